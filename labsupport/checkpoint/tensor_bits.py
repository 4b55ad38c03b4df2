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

_CACHED = 1 << 18  # numbers at a time: their bits and a copy or two fit in a core's cache


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
    """Round a float32 tensor to ``kind``; what float16 cannot hold becomes infinite (numpy's error ``over``).

    Example: 1 + 2**-8 lies half-way between two bfloat16 numbers; the even one is 1.

        >>> hex(from_float32(np.array([1 + 2**-8], np.float32), "BF16")[0])
        '0x3f80'
    """
    if kind == "F16":
        return values.astype(np.float16)
    if kind == "F32":
        return values
    flat = np.ascontiguousarray(values).reshape(-1)
    rounded = np.empty(flat.shape, HELD[kind])
    for start in range(0, flat.size, _CACHED):
        rounded[start : start + _CACHED] = _bfloat16(flat[start : start + _CACHED])
    return rounded.reshape(values.shape)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of the bits, after adding just under half of the last place that stays (half, if it is odd)."""
    bits = values.view(np.uint32)
    wide = (bits >> 16) & 1
    wide += 0x7FFF
    wide += bits
    half = (wide >> 16).astype(np.uint16)
    if (odd := np.isnan(values)).any():  # rounding could carry a NaN into infinity
        half[odd] = (bits[odd] >> 16).astype(np.uint16) | 0x40
    return half


def cast(bits: Array, kind: str, wanted: str, *, plus_one: bool = False) -> Array:
    """A tensor in another type, with 1 added on the way where asked (in float32, rounded once)."""
    if kind == wanted and not plus_one:
        return bits
    values = to_float32(bits, kind)
    return from_float32(values + np.float32(1) if plus_one else values, wanted)
