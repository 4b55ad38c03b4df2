"""Fewer bits, in one screen: share a scale, round to whole numbers, multiply back; and how much that costs.

A weight becomes a whole number times a scale, ``w ~ q * scale``. What differs between recipes is only who shares a
scale (the whole tensor, an output channel, a group of inputs) and how many bits a whole number has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from labsupport.errors import ParameterError

Sharing = Literal["tensor", "channel", "group"]


@dataclass(frozen=True)
class Quantized:
    """Whole numbers and their scales.

    Args:
        values: int8 [out, in], each in -2^(bits-1) ... 2^(bits-1) - 1.
        scale: float32, one for each block of a row: [1, 1] (tensor), [out, 1] (channel) or [out, in / group].
        bits: of a whole number, 8 or fewer.
    """

    values: Tensor
    scale: Tensor
    bits: int

    def dequantize(self) -> Tensor:
        """The weights that the whole numbers stand for, float32 [out, in]."""
        each = self.values.shape[1] // self.scale.shape[1]
        return self.values * self.scale.repeat_interleave(each, dim=1)


def quantize(
    weight: Tensor,
    bits: int,
    sharing: Sharing = "channel",
    group: int = 128,
    *,
    levels: int | None = None,
    rounding: Callable[[Tensor], Tensor] = torch.round,
) -> Quantized:
    """Round to the nearest of 2^bits evenly spaced values; the largest of those that share a scale sets it.

    ``scale = max|w| / levels`` and ``q = clamp(round(w / scale))``. Two conventions are in use. ModelOpt takes
    ``levels = 2^(bits-1) - 1`` (127, 7), so that the largest weight is kept. TensorRT-LLM's weight-only kernels take
    ``2^(bits-1)`` (128, 8): finer steps, but the largest positive weight is cut to 127/128 or 7/8 of itself.
    Where all weights of a block are zero the scale is 1.

    Args:
        weight: [out, in], of any float type.
        bits: 2 to 8.
        sharing: who shares a scale: the tensor, each output channel (row), each group of ``group`` inputs in a row.
        group: inputs in a group; read for ``group`` only.
        levels: the whole number that ``max|w|`` stands for; ``2^(bits-1) - 1`` where missing.
        rounding: what becomes of halves.

    Raises:
        ParameterError: a weight is not finite, the inputs do not divide into groups, or bits are not 2 to 8.

    Example:
        >>> quantize(torch.tensor([[0.1, -0.7]]), 4).values.tolist()
        [[1, -7]]
        >>> quantize(torch.tensor([[0.1, -0.7]]), 4, levels=8).values.tolist()
        [[1, -8]]
    """
    if not 2 <= bits <= 8:
        raise ParameterError(f"{bits} bits", why="whole numbers are kept in an int8 here", fix="use 2 to 8 bits")
    if bad := int((~weight.isfinite()).sum()):
        raise ParameterError(
            f"{bad} of {weight.numel()} weights are NaN or infinite",
            why="such a weight would become the scale of all that share one with it",
            fix="look at the original model; labs verify names the tensor",
        )
    wide = weight.float()
    blocks = _blocks(wide, sharing, group)
    half = 2 ** (bits - 1)
    scale = blocks.abs().amax(dim=(0, 2) if sharing == "tensor" else 2, keepdim=True) / (levels or half - 1)
    scale = torch.where(scale == 0, 1.0, scale)
    values = rounding(blocks / scale).clamp(-half, half - 1).to(torch.int8)
    return Quantized(values.reshape(wide.shape), scale[..., 0], bits)


def _blocks(weight: Tensor, sharing: Sharing, group: int) -> Tensor:
    """[out, blocks of a row, inputs in a block]."""
    inputs = weight.shape[1]
    each = group if sharing == "group" else inputs
    if each < 1 or inputs % each:
        fitting = [str(2**power) for power in range(4, 8) if inputs % 2**power == 0]
        raise ParameterError(
            f"{inputs} inputs do not divide into groups of {group}",
            why="every group of a row has a scale of its own, and all groups are of one size",
            fix=f"use a group of {' or '.join(fitting)}" if fitting else "share a scale by channel",
        )
    return weight.reshape(len(weight), inputs // each, each)


def weight_only(weight: Tensor, bits: int) -> Quantized:
    """What trtllm-build makes of a float weight with quant_algo W8A16 or W4A16: a scale a channel, max|w| / 128 or / 8.

    Source: TensorRT-LLM 0.20, ``symmetric_quantize`` in ``cutlass_preprocessors.cpp``.
    """
    return quantize(weight, bits, "channel", levels=2 ** (bits - 1), rounding=round_half_away)


def round_half_away(x: Tensor) -> Tensor:
    """Round to the nearest whole number, halves away from zero, as C's ``round``; ``torch.round`` takes the even one.

    Example:
        >>> round_half_away(torch.tensor([0.5, 1.5, -2.5, 2.4])).tolist()
        [1.0, 2.0, -3.0, 2.0]
    """
    half = (x - x.trunc()).abs() == 0.5
    return torch.where(half, x + x.sign() / 2, x.round())


def sqnr_db(weight: Tensor, restored: Tensor) -> float:
    """Signal-to-quantization-noise ratio in decibels, ``10 log10(sum w^2 / sum (w - w')^2)``; infinite without noise.

    A bit more halves the step, so it adds about 6.02 dB.
    """
    noise = float((weight.double() - restored.double()).square().sum())
    return 10 * math.log10(float(weight.double().square().sum()) / noise) if noise else math.inf


def pack_int4(values: Tensor) -> Tensor:
    """Two rows into one row of bytes: row 2j in the low four bits, row 2j+1 in the high four, two's complement.

    Args:
        values: int8 [out, in], each -8 ... 7.

    Returns:
        int8 [out / 2, in], the form of ``weight`` in a W4A16_AWQ checkpoint.

    Raises:
        ParameterError: the rows are odd in number, or a value does not fit four bits.

    Example: 7 and -1 are 0111 and 1111, so the byte is 11110111.

        >>> pack_int4(torch.tensor([[7], [-1]], dtype=torch.int8)).view(torch.uint8).tolist()
        [[247]]
    """
    if values.shape[0] % 2:
        raise ParameterError(
            f"{values.shape[0]} rows cannot be packed in pairs",
            why="a byte holds four bits of one output row and four bits of the next",
            fix="keep this layer in 8 bits or more, or use a tp_size that leaves an even number of rows on each rank",
        )
    if values.numel() and (int(values.min()) < -8 or int(values.max()) > 7):
        raise ParameterError(
            f"values from {int(values.min())} to {int(values.max())}",
            why="four bits hold -8 ... 7",
            fix="quantize to 4 bits first",
        )
    low, high = values[0::2] & 0xF, values[1::2] & 0xF
    return low | (high << 4)


def unpack_int4(packed: Tensor) -> Tensor:
    """The way back: int8 [out / 2, in] -> int8 [out, in], each -8 ... 7."""
    low, high = (packed << 4) >> 4, packed >> 4  # shifting an int8 to the right carries its sign along
    return torch.stack([low, high], dim=1).flatten(0, 1)
