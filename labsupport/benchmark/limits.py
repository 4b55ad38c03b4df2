"""What a model must read and compute for a token, and how near to the machine's limits a result comes."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.benchmark.machine import Limits
from labsupport.errors import ModelError

BITS = {"fp32": 32.0, "bf16": 16.0, "int8": 8.0, "int4": 4.5}
"""Bits read for a weight: int4 has a scale of 16 bits for each 32; the scales of int8, one a row, are left out."""

LOWEST = 0.1
"""The share of a limit below which a result is more likely a fault of the measurement than a slow engine."""

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight")


@dataclass(frozen=True)
class Work:
    """What one token costs at least; the KV cache of a short prompt is left out.

    Args:
        weights: numbers that a decoding step reads once each: all but a table that is only looked up.
    """

    weights: int

    def read_bytes(self, precision: str) -> float:
        """Bytes of weights that a decoding step reads."""
        return self.weights * BITS[precision] / 8

    def decode_limit(self, precision: str, limits: Limits) -> float:
        """Tokens a second at which reading the weights alone fills the memory bandwidth (batch 1)."""
        return limits.read / self.read_bytes(precision)

    def prefill_limit(self, limits: Limits) -> float:
        """Tokens a second at which the products with the weights alone take all float32 operations."""
        return limits.flops / (2 * self.weights)


def work_of(model: Path) -> Work:
    """Count the weights in the headers of a Hugging Face folder's safetensors files.

    An embedding table counts where it is the output head too (tied), not where it is only looked up.

    Raises:
        ModelError: the folder has no safetensors file.
    """
    sizes: dict[str, int] = {}
    for file in sorted(model.glob("*.safetensors")):
        sizes |= {name: math.prod(entry["shape"]) for name, entry in header(file).items() if name != "__metadata__"}
    if not sizes:
        raise ModelError(
            f"no weights in {model}", why="it has no *.safetensors file", fix="labs fetch, or name another folder"
        )
    tied = not any(name.startswith("lm_head.") for name in sizes)
    return Work(sum(size for name, size in sizes.items() if tied or not name.endswith(_EMBEDDINGS)))


def header(file: Path) -> dict[str, Any]:
    """What a safetensors file says of its tensors: name -> dtype, shape, offsets."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header: dict[str, Any] = json.loads(opened.read(length))
    return header


def doubt(what: str, rate: float, limit: float) -> str | None:
    """A sentence where ``rate`` beats its ``limit``, which is a bug somewhere, or stays below a tenth of it."""
    share = rate / limit
    if share > 1:
        return (
            f"{what}: {rate:.1f} is {share:.2f} times its limit of {limit:.1f}: less work than it should be, or a cache"
        )
    if share < LOWEST:
        return f"{what}: {rate:.1f} is {share:.3f} of its limit of {limit:.1f}: look for what it waits for"
    return None
