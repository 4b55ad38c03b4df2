"""Our engine on a GPU: shapes with random weights, built and run, beside the same network without a build.

A step of decoding is timed as one CUDA graph, and a second time from Python, with tokens going in and logits out.
The limit of one sequence is the memory: every weight but the embedding is read once a token.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labsupport.benchmark.gpu_users import GIVEN, NEW, behind_triton, in_process, transformers_rows
from labsupport.checkpoint.config import CheckpointConfig, parse_config
from labsupport.checkpoint.random_weights import random_checkpoint
from labsupport.doctor.shapes import known_shapes
from labsupport.engine.build import Built, build
from labsupport.engine.build_config import build_config
from labsupport.engine.cuda_graph import Captured
from labsupport.engine.export import products
from labsupport.engine.loaded import Engine
from labsupport.engine.paged import Paged, look_back
from labsupport.engine.parts import Parts, take_apart
from labsupport.engine.products import for_few_rows

LENGTH = 512  # positions that the cache has room for, and that attention looks through


@dataclass(frozen=True)
class GpuRow:
    """One way of decoding one shape.

    Args:
        shape: of the model.
        way: ``eager in a CUDA graph``, ``engine`` (a replayed step) or ``engine from Python`` (ids in, logits out).
        batch: sequences.
        milliseconds: of a step, the median.
        tokens_per_second: over all sequences.
        share: of the limit that reading the weights sets; None for more than one sequence.
    """

    shape: str
    way: str
    batch: int
    milliseconds: float
    tokens_per_second: float
    share: float | None


def config_of(name: str, dtype: str = "bfloat16") -> CheckpointConfig:
    """The checkpoint's config of a published Llama shape (``labs doctor`` knows it)."""
    shape = known_shapes()[name]
    return parse_config({
        "architecture": "LlamaForCausalLM", "dtype": dtype, "hidden_size": shape.hidden, "vocab_size": shape.vocab,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
        "head_size": shape.head_size, "intermediate_size": shape.intermediate, "hidden_act": "silu",
        "norm_epsilon": 1e-5, "position_embedding_type": "rope_gpt_neox", "rotary_base": 500000.0,
        "max_position_embeddings": 2048, "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
    })  # fmt: skip


def bandwidth() -> dict[str, float]:
    """Bytes a second of the GPU's memory: reading 4 GB, and copying them (read and written bytes counted)."""
    numbers = torch.empty(1 << 31, dtype=torch.bfloat16, device="cuda")
    other = torch.empty_like(numbers)
    size = numbers.numel() * numbers.element_size()
    read = min(_seconds(lambda: numbers.view(torch.int32).max(), 2) for _ in range(6))
    copy = min(_seconds(lambda: other.copy_(numbers), 2) for _ in range(8))
    return {"read": size / read, "copy": 2 * size / copy}


def measure(
    names: Sequence[str],
    batches: Sequence[int],
    folder: Path,
    say: Callable[[str], object],
    keep: Callable[[dict[str, Any]], object] = lambda found: None,  # noqa: ARG005
) -> dict[str, Any]:
    """Build and time every shape, then put each under users.

    Args:
        names: of ``doctor.shapes.known_shapes``, Llama alone.
        batches: sequences of a step, and numbers of users.
        folder: for checkpoints and engines; a shape of 8 billion parameters takes 33 GB.
        say: called with each line as it is known.
        keep: called with the recording as far as it goes, after each part.

    Returns:
        A recording: device, versions, date, bandwidth, builds and rows.
    """
    speed = bandwidth()
    say(f"read {speed['read'] / 1e12:.2f} TB/s, copy {speed['copy'] / 1e12:.2f} TB/s")
    builds: dict[str, Any] = {}
    rows, users = list[dict[str, Any]](), list[dict[str, Any]]()
    found = {
        "what": "decoding with random weights in bfloat16, a step at position 400, KV cache of 512 positions; users "
        f"send {GIVEN} tokens each and get {NEW}",
        "command": f"labs bench gpu {' '.join(names)}",
        "device": torch.cuda.get_device_name(), "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "triton", "transformers", "numpy")}
        | {"cuda": torch.version.cuda, "python": platform.python_version()},
        "bytes_per_second": speed, "builds": builds, "rows": rows, "users": users,
    }  # fmt: skip
    engines = {}
    for name in names:
        checkpoint = random_checkpoint(config_of(name), folder / f"checkpoint-{name}", device="cuda")
        options = build_config(max_batch_size=max(batches), max_seq_len=2048)
        target = folder / f"engine-{name}"
        done = build(checkpoint, options, output=target, device="cuda", workers=8, force=True, progress=say)
        engines[name] = done.folder
        rows += map(vars, _steps(name, checkpoint, done, batches, max(speed.values()), builds, say))
        torch.cuda.empty_cache()
        keep(found)
    for serve in (in_process, transformers_rows, behind_triton):
        for name, engine in engines.items():
            users += map(vars, serve(name, engine, batches, say))
            torch.cuda.empty_cache()
            keep(found)
    return found


def _steps(
    name: str, checkpoint: Path, done: Built, batches: Sequence[int], speed: float, builds: dict[str, Any],
    say: Callable[[str], object],
) -> list[GpuRow]:  # fmt: skip
    """Load the engine and time its steps, beside those of the network without a build."""
    began = time.perf_counter()
    engine = Engine(done.folder)
    loading = time.perf_counter() - began
    read = sum(tensor.nbytes for weights in (*engine._weights, engine._head) for tensor in weights)
    limit = read / speed
    say(f"{name}: built in {done.seconds:.1f} s; {read / 1e9:.3f} GB a token, so at least {1e3 * limit:.3f} ms")
    parts = take_apart(checkpoint, config_of(name), products("cuda", "bfloat16"), "cuda")
    off = _difference(engine, parts)
    say(f"  loaded in {loading:.1f} s; logits differ from those of the network without a build by {off:.4f}")
    builds[name] = {
        "seconds": done.seconds, "seconds_to_load": loading, "largest_difference_from_eager": off,
        "bytes_per_token": read, "milliseconds_at_the_limit": 1e3 * limit,
        "phases": [vars(phase) for phase in done.report.phases],
    }  # fmt: skip
    rows = []
    for way, batch, seconds in _times(engine, parts, batches):
        share = limit / seconds if batch == 1 else None
        rows.append(GpuRow(name, way, batch, 1e3 * seconds, batch / seconds, share))
        say(f"  {way:24} batch {batch:2}  {1e3 * seconds:7.3f} ms  {batch / seconds:9.1f} tok/s"
            + (f"  {100 * share:.0f} % of the limit" if share else ""))  # fmt: skip
    return rows


def _times(engine: Engine, parts: Parts, batches: Sequence[int]) -> list[tuple[str, int, float]]:
    found = []
    width = LENGTH // engine.tokens_per_block
    for batch in batches:
        cache = engine.new_cache(1 + batch * width)
        tables = [[1 + row * width + page for page in range(width)] for row in range(batch)]
        ids, at = torch.ones(1, batch, dtype=torch.int64), torch.full((batch,), 400)
        if batch == 1:
            eager = Captured(_eager_step(parts, cache, engine.tokens_per_block), batch, width)
            eager(ids, at, torch.tensor(tables))
            found.append(("eager in a CUDA graph", batch, _seconds(eager.graph.replay, 50)))
        step: Any = engine._step(cache, batch, width)
        step(ids, at, torch.tensor(tables))
        found.append(("engine", batch, _seconds(step.graph.replay, 100)))
        took = []
        for _ in range(30):
            began = time.perf_counter()
            engine.generation(cache, [1] * batch, [400] * batch, tables)
            took.append(time.perf_counter() - began)
        found.append(("engine from Python", batch, statistics.median(took)))
    return found


def _eager_step(parts: Parts, cache: Any, tokens_per_block: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    for part in (*parts.layers, parts.head):
        for_few_rows(part.module, False)

    @torch.inference_mode()
    def step(tokens: Tensor, positions: Tensor, table: Tensor) -> Tensor:
        x = parts.inputs(tokens, positions)
        where = look_back(positions, table, tokens_per_block, None)
        for part, pools in zip(parts.layers, cache, strict=True):
            x = part.module(x, Paged(where, pools))
        logits: Tensor = parts.head.module(x)[0]
        return logits

    return step


def _difference(engine: Engine, parts: Parts) -> float:
    """Largest difference of any logit, after the same eight tokens, one at a time."""
    mine, theirs = engine.new_cache(3), engine.new_cache(3)
    step = _eager_step(parts, theirs, engine.tokens_per_block)
    table = torch.tensor([[1, 2]], device="cuda")
    for place, token in enumerate(range(5, 13)):
        ours = engine.generation(mine, [token], [place], [[1, 2]])
        other = step(torch.tensor([[token]], device="cuda"), torch.tensor([place], device="cuda"), table)
    return float(np.abs(ours - other.cpu().numpy()).max())


def _seconds(work: Callable[[], object], times: int) -> float:
    """Seconds of one ``work``, between events on the GPU: the median of three runs of ``times``."""
    work()
    took = []
    for _ in range(3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(times):
            work()
        end.record()
        torch.cuda.synchronize()
        took.append(float(begin.elapsed_time(end)) / times / 1e3)
    return statistics.median(took)
