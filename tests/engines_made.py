"""Engines for tests: tiny checkpoints built, each once in a test run. A build takes ten to thirty seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints_made import made

from labsupport.engine.build import build
from labsupport.engine.build_config import build_config
from labsupport.engine.loaded import Engine

BLOCK = 8  # tokens in a block of the tiny engines
TABLE = [3, 1, 7, 5, 2, 8, 4, 6, 9]  # blocks in no order: 72 tokens


def built(checkpoint: Path, *, device: str = "cpu", **options: Any) -> Path:
    """The engine of a checkpoint; of one sequence, and with the logits of the prompt, unless said otherwise."""
    settings = {"max_batch_size": 1, "tokens_per_block": BLOCK, "max_input_len": 64} | options
    return made(
        lambda folder: build(checkpoint, build_config(**settings), output=folder, device=device),
        "engine", device, checkpoint, settings,
    )  # fmt: skip


@cache
def engine(checkpoint: Path, **options: Any) -> Engine:
    """The same, loaded."""
    return Engine(built(checkpoint, **options))


def run(model: Any, tokens: list[int], prompt: int) -> np.ndarray:
    """Logits after the last token of the prompt and after each of the others, teacher-forced, [1 + steps, vocab]."""
    cache = model.new_cache(1 + len(TABLE))
    rows = [model.context(cache, tokens[:prompt], 0, TABLE)]
    rows += [model.generation(cache, [tokens[at]], [at], [TABLE])[0] for at in range(prompt, len(tokens))]
    return np.stack(rows)


def check_a_shared_step(compiled: Any, plain: Any, tolerance: float) -> list[Any]:
    """Ten sequences of several lengths give the same logits in both -> the two caches."""
    caches = [model.new_cache(40) for model in (compiled, plain)]
    tables = [[1 + 3 * row, 2 + 3 * row, 3 + 3 * row][: 1 + row % 3] for row in range(10)]
    for step in range(6):
        asked = [[7 + step + row for row in range(10)], [step + row % 2 for row in range(10)], tables]
        found = [model.generation(cache, *asked) for model, cache in zip((compiled, plain), caches, strict=True)]
        assert np.abs(found[0] - found[1]).max() < tolerance
    return caches
