"""The three float types of a checkpoint as bits, and exact casts between them, with numpy alone.

numpy has no bfloat16, so its tensors travel as uint16; float32 is the hub of every cast. Rounding is to the nearest,
ties to even, which is what IEEE hardware and PyTorch do.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# The name in config.json -> (the name in a safetensors header, how numpy holds it)
NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
HELD: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2"), "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "I16": np.dtype("<i2"), "I8": np.dtype("i1"),
    "U8": np.dtype("u1"), "BOOL": np.dtype("?"), "F8_E4M3": np.dtype("u1"), "F8_E5M2": np.dtype("u1"),
}  # fmt: skip


def to_float32(bits: Array, kind: str) -> NDArray[np.float32]:
    """Widen a tensor: exact for all three types.

    Args:
        bits: any shape, as ``HELD[kind]`` says.
        kind: F32, F16 or BF16.
    """
    if kind == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.astype(np.float32, copy=False)


def from_float32(values: NDArray[np.float32], kind: str) -> Array:
    """Round a float32 tensor to ``kind``; what float16 cannot hold becomes infinite.

    Example: 1 + 2**-8 lies half-way between two bfloat16 numbers; the even one is 1.

        >>> hex(from_float32(np.array([1 + 2**-8], np.float32), "BF16")[0])
        '0x3f80'
    """
    if kind == "F16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16)
    if kind != "BF16":
        return values
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1)).astype(np.uint32)) >> 16
    quiet = (bits >> 16) | 0x40  # rounding could carry a NaN into infinity
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)


def cast(bits: Array, kind: str, wanted: str, *, plus_one: bool = False) -> Array:
    """A tensor in another type, with 1 added on the way where asked (in float32, rounded once)."""
    if kind == wanted and not plus_one:
        return bits
    values = to_float32(bits, kind)
    return from_float32(values + np.float32(1) if plus_one else values, wanted)
