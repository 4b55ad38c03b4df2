"""Engines for tests: tiny checkpoints built, each once in a test run. A build takes ten to thirty seconds."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from checkpoints_made import made

from labsupport.engine.build import build
from labsupport.engine.build_config import build_config
from labsupport.engine.loaded import Engine

BLOCK = 8  # tokens in a block of the tiny engines
TABLE = [3, 1, 7, 5, 2, 8, 4, 6, 9]  # blocks in no order: 72 tokens


def built(checkpoint: Path, **options: Any) -> Path:
    """The engine of a checkpoint; of one sequence, and with the logits of the prompt, unless said otherwise."""
    settings = {"max_batch_size": 1, "tokens_per_block": BLOCK, "max_input_len": 64} | options
    return made(
        lambda folder: build(checkpoint, build_config(**settings), output=folder), "engine", checkpoint, settings
    )


@cache
def engine(checkpoint: Path, **options: Any) -> Engine:
    """The same, loaded."""
    return Engine(built(checkpoint, **options))
