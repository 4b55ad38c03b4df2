"""The same engine under users: through its executor in this process, through Triton, and beside transformers.

Users of a closed loop; each sends random token ids and gets as many back as it asked for. Triton serves the model
``tensorrt_llm`` alone, over gRPC: random weights have no tokenizer.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from labsupport.benchmark.arrivals import Closed
from labsupport.benchmark.load import run, timelines
from labsupport.benchmark.served import Client, point
from labsupport.benchmark.target import Target
from labsupport.benchmark.target_engine import EngineTarget
from labsupport.benchmark.target_triton import GrpcTarget
from labsupport.benchmark.timeline import Slo
from labsupport.benchmark.workload import Job
from labsupport.doctor.shapes import known_shapes
from labsupport.engine.limits import ExecutorConfig, KvCacheConfig
from labsupport.repository.engine_config import read_engine
from labsupport.repository.model_config import Assets, Options, build_configs
from labsupport.repository.text_format import CONFIG, to_text
from labsupport.serving import Server
from labsupport.serving.local import why_not_here

GIVEN, NEW = 64, 128  # tokens of a prompt and of an answer
ROUNDS = 2  # requests of each user; as many again are sent before, so that every step has been recorded
ALONE = "tensorrt_llm"

Say = Callable[[str], object]


@dataclass(frozen=True)
class UsersRow:
    """One way of serving one shape to so many users at once.

    Args:
        way: ``engine``, ``Triton`` or ``transformers`` (one batch, ``generate``).
        tokens_per_second: of output, over all users.
        ttft, itl: medians, in seconds.
    """

    shape: str
    way: str
    users: int
    tokens_per_second: float
    ttft: float
    itl: float


def in_process(name: str, engine: Path, users: Sequence[int], say: Say) -> list[UsersRow]:
    """The engine's executor in this process.

    Args:
        engine: an engine folder.
        users: numbers of them, one load each.

    Raises:
        BenchmarkError: no request was answered.
    """
    config = ExecutorConfig(kv_cache_config=KvCacheConfig(max_tokens=_room(users)))
    return _rows(EngineTarget(engine, config=config), name, "engine", engine, users, say)


def behind_triton(name: str, engine: Path, users: Sequence[int], say: Say) -> list[UsersRow]:
    """The same behind Triton; none where it cannot run.

    Raises:
        ServerError: Triton does not start.
        BenchmarkError: no request was answered.
    """
    if problem := why_not_here():
        say(f"  no Triton: {problem}")
        return []
    with TemporaryDirectory() as place:
        repository = one_model(engine, Path(place), _room(users))
        with Server(repository, seconds=180) as server:
            return _rows(GrpcTarget(server.address, ALONE), name, "Triton", engine, users, say)


def _room(users: Sequence[int]) -> int:
    """Tokens of cache, so many that nobody waits for blocks."""
    return 2 * max(users) * (GIVEN + NEW)


def one_model(engine: Path, folder: Path, tokens: int) -> Path:
    """A repository that holds the engine's model and nothing else, with room for so many tokens in its cache."""
    options = Options(parameters={"max_tokens_in_paged_kv_cache": str(tokens)})
    config = build_configs(read_engine(engine), Assets(str(engine.resolve()), ""), options)[ALONE]
    (folder / ALONE / "1").mkdir(parents=True)
    (folder / ALONE / CONFIG).write_text(to_text(config), encoding="utf-8")
    return folder


def _rows(target: Target, name: str, way: str, engine: Path, users: Sequence[int], say: Say) -> list[UsersRow]:
    vocabulary = read_engine(engine).pretrained_config.vocab_size
    return asyncio.run(_loaded(target, name, way, vocabulary, users, say))


async def _loaded(
    target: Target, name: str, way: str, vocabulary: int, users: Sequence[int], say: Say
) -> list[UsersRow]:
    rows = []
    chance = np.random.default_rng(0)
    async with target:
        for count in users:
            drawn = chance.integers(0, vocabulary, (2 * ROUNDS * count, GIVEN))
            jobs = [Job(tuple(int(id) for id in ids), "", NEW) for ids in drawn]
            await run(target, jobs[: ROUNDS * count], Closed(count))
            raws, _ = await run(target, jobs[ROUNDS * count :], Closed(count))
            found = point(str(count), timelines(target, raws), Slo(), Client(cores=None, lag_p99=0.0, late_p99=0.0))
            itl = found.itl.p50.value if found.itl else float("nan")
            rows.append(UsersRow(name, way, count, found.output_rate.value, found.ttft.p50.value, itl))
            say(_line(rows[-1]))
    return rows


def transformers_rows(name: str, engine: Path, batches: Sequence[int], say: Say) -> list[UsersRow]:  # noqa: ARG001
    """``generate`` of transformers in bfloat16, one batch of prompts at a time: eager, as it comes."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    shape = known_shapes()[name]
    config = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_size,
        vocab_size=shape.vocab, max_position_embeddings=2048, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    rows = []
    for batch in batches:
        ids = torch.randint(0, shape.vocab, (batch, GIVEN), device="cuda")

        def seconds(new: int, ids: torch.Tensor = ids) -> float:
            took = []
            for _ in range(3):
                torch.cuda.synchronize()
                began = time.perf_counter()
                model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False,
                    pad_token_id=0,
                )  # fmt: skip
                torch.cuda.synchronize()
                took.append(time.perf_counter() - began)
            return statistics.median(took[1:])

        first, whole = seconds(1), seconds(NEW // 2)
        step = (whole - first) / (NEW // 2 - 1)
        rows.append(UsersRow(name, "transformers", batch, batch * NEW / (first + (NEW - 1) * step), first, step))
        say(_line(rows[-1]))
    return rows


def _line(row: UsersRow) -> str:
    return (
        f"{row.shape:22} {row.way:12} users {row.users:2}  {row.tokens_per_second:9.1f} tok/s  "
        f"{1e3 * row.itl:7.3f} ms a token, first token {1e3 * row.ttft:.1f} ms"
    )
