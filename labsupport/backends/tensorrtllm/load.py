"""The config's parameters -> an executor over a loaded engine."""

from __future__ import annotations

from dataclasses import fields, replace

from labsupport.backends.tensorrtllm.parameters import Parameters
from labsupport.engine.executor import Executor
from labsupport.engine.limits import ExecutorConfig, KvCacheConfig, Limits
from labsupport.errors import ParameterError


def load(parameters: Parameters) -> tuple[Executor, str]:
    """Load the engine, and make an executor that somebody else steps -> it, and a line for the log.

    Raises:
        EngineError: the engine is damaged, or was built for another machine.
        ParameterError: the parameters ask for more than the engine or the memory has.
    """
    from labsupport.engine.loaded import Engine

    engine = Engine(parameters.engine)
    built = Limits(**{field.name: getattr(engine.build_config, field.name) for field in fields(Limits)})
    _require_fit(parameters, built)
    limits = replace(built, max_beam_width=parameters.max_beam_width)
    config = ExecutorConfig(
        capacity_scheduler_policy=parameters.batch_scheduler_policy,
        batching_type=parameters.batching_type,
        enable_chunked_context=parameters.enable_chunked_context,
        iter_stats_max_iterations=parameters.iter_stats_max_iterations,
        kv_cache_config=KvCacheConfig(parameters.enable_kv_cache_reuse, parameters.max_tokens_in_paged_kv_cache),
    )
    size = engine.tokens_per_block
    blocks = config.pool_blocks(limits, size) - 1
    room = int(parameters.kv_cache_free_gpu_mem_fraction * _free_bytes()) // engine.block_bytes()
    if room < blocks:  # of the two limits the smaller one counts
        kv = KvCacheConfig(parameters.enable_kv_cache_reuse, room * size)
        blocks, config = room, replace(config, kv_cache_config=kv)
    executor = Executor(engine, limits, config, threaded=False)
    note = f"engine {parameters.engine}: {limits.max_batch_size} slots, {blocks} blocks of {size} tokens"
    return executor, note


def _require_fit(parameters: Parameters, built: Limits) -> None:
    if not 1 <= parameters.max_beam_width <= built.max_beam_width:
        raise ParameterError(
            f"max_beam_width {parameters.max_beam_width}",
            why=f"the engine was built for {built.max_beam_width} beam(s)",
            fix=f"use 1 to {built.max_beam_width}, or build with --max_beam_width {parameters.max_beam_width}",
        )
    window = parameters.max_attention_window_size
    if window is not None and window < built.max_seq_len:
        raise ParameterError(
            f"max_attention_window_size {window} is not served",
            why=f"the engine's attention sees all {built.max_seq_len} tokens, and cannot be told to forget",
            fix="leave it empty",
        )


def _free_bytes() -> int:
    import psutil

    return int(psutil.virtual_memory().available)
