"""A model of three lines behind the backend: the same tokens in every process, and a token that kills its thread."""

from __future__ import annotations

from typing import Any

from engine_double import HashModel

from labsupport.backends.tensorrtllm.parameters import Parameters
from labsupport.engine.executor import Executor
from labsupport.engine.limits import ExecutorConfig, KvCacheConfig, Limits
from labsupport.engine.protocol import Logits
from labsupport.engine.runner import Runner

KILLS, FAILS = 28, 27  # a token that ends the batch's thread, and one that the model fails on
LIMITS = Limits(max_batch_size=4, max_input_len=64, max_seq_len=96, max_num_tokens=64, max_beam_width=3)


class Double(HashModel):
    """A ``HashModel`` with two tokens that break it."""

    def context(self, cache: Any, tokens: Any, start: int, table: Any, *, every: bool = False) -> Logits:
        if KILLS in tokens:
            raise SystemExit("a token kills")
        if FAILS in tokens:
            raise RuntimeError("a token fails")
        return super().context(cache, tokens, start, table, every=every)


def executor(parameters: Parameters | None = None, limits: Limits = LIMITS) -> Executor:
    reuse = parameters.enable_kv_cache_reuse if parameters else True
    config = ExecutorConfig(kv_cache_config=KvCacheConfig(enable_block_reuse=reuse))
    return Executor(Double(max_rows=12), limits, config, threaded=False)


def runner() -> Runner:
    return Runner(Double(max_rows=12), LIMITS)
