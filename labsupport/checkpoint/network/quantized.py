"""Linear layers and KV caches of fewer bits, computed as their kernels define them, in floats.

A kernel multiplies whole numbers (or 8-bit floats) and scales the sum. Scaling first gives the same product up to the
rounding of the sum, so every form here is one layer: scale the input, round the input, multiply by restored weights.

Source of the stored forms: ModelOpt 0.29, ``modelopt/torch/export``; TensorRT-LLM 0.20, ``preprocess_weights``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.network.linear import Linear
from labsupport.checkpoint.quantize.arithmetic import Quantized, unpack_int4, weight_only
from labsupport.errors import CheckpointError

FP8_MAX = 448.0  # the largest number of float8_e4m3fn


class RoundInt8(nn.Module):
    """To the 256 whole multiples of one scale, and back: what static int8 activations, or an INT8 cache, keep.

    Args:
        scale: float32 [1], fixed at calibration; what lies beyond 127 scales is cut.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.float())

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same, in the dtype of ``x``."""
        return ((x / self.scale).round().clamp(-128, 127) * self.scale).to(x.dtype)


class RoundFp8(RoundInt8):
    """To float8_e4m3 (three bits of fraction) after division by one scale, and back; saturates at 448 scales."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same, in the dtype of ``x``."""
        return (to_fp8(x / self.scale).to(torch.float32) * self.scale).to(x.dtype)


def to_fp8(x: Tensor) -> Tensor:
    """The nearest float8_e4m3fn, ties to even, saturating: PyTorch alone would give NaN beyond 464."""
    return x.float().clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)


class QuantizedLinear(Linear):
    """``round(x * prequant) @ weight.T + bias``, with weights restored from fewer bits.

    Args:
        weight: restored, [out, in], as the kernel sees it: with ``prequant`` divided out of its columns.
        bias: [out], or None.
        prequant: factor on each input, [in], or None.
        rounding: of the scaled input, or None where activations keep their bits.
    """

    prequant: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        prequant: Tensor | None = None,
        rounding: nn.Module | None = None,
    ) -> None:
        super().__init__(weight, bias)
        self.register_buffer("prequant", prequant)
        self.rounding = rounding or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        scaled = x if self.prequant is None else x * self.prequant
        return super().forward(self.rounding(scaled))


@dataclass(frozen=True)
class Stored:
    """What a rank file holds in place of one weight, and how to read it.

    Args:
        get: name of a part (``weight``, ``weights_scaling_factor``) -> the tensor as it is stored.
        config: of the checkpoint.
    """

    get: Callable[[str], Tensor]
    config: CheckpointConfig

    def weight(self) -> Tensor:
        """The restored weight, float32 [out, in], inputs still to be multiplied by ``prequant``."""
        return RESTORE[self.config.quantization.quant_algo or ""](self)

    def whole(self) -> Quantized:
        """The whole numbers and their scales, as the weight-only kernels of ``WHOLE`` read them."""
        return WHOLE[self.config.quantization.quant_algo or ""](self)

    def prequant(self) -> Tensor | None:
        """The factors on the inputs, float32 [in], or None."""
        smoothed = self.config.quantization.quant_algo in ("W4A16_AWQ", "W8A8_SQ_PER_CHANNEL")
        return self.get("prequant_scaling_factor").float() if smoothed else None

    def rounding(self) -> nn.Module | None:
        """What happens to activations: static int8, static FP8, or nothing."""
        kind = {"W8A8_SQ_PER_CHANNEL": RoundInt8, "FP8": RoundFp8}.get(self.config.quantization.quant_algo or "")
        return kind(self.get("activation_scaling_factor")) if kind else None


def _weight_only(stored: Stored) -> Quantized:
    weight = stored.get("weight")
    if not weight.is_floating_point():
        raise CheckpointError(
            f"the weights of this {stored.config.quantization.quant_algo} checkpoint are {weight.dtype} already",
            why="they are in the layout of one GPU family's kernels, which only that GPU can read",
            fix="use the portable form, float weights with the same quant_algo: labs quantize",
        )
    made = weight_only(weight, 8 if stored.config.quantization.quant_algo == "W8A16" else 4)
    # the kernel's scales have the model's dtype; the whole numbers were found with the float32 ones
    return replace(made, scale=made.scale.to(getattr(torch, stored.config.dtype)).float())


def _awq(stored: Stored) -> Quantized:
    values, scale = unpack_int4(stored.get("weight")), stored.get("weights_scaling_factor")
    # trtllm-build casts these scales to the model's dtype
    return Quantized(values, scale.to(getattr(torch, stored.config.dtype)).float(), 4)


def _fp8(stored: Stored) -> Tensor:
    return stored.get("weight").view(torch.float8_e4m3fn).float() * stored.get("weights_scaling_factor")


def _int8_smooth(stored: Stored) -> Tensor:
    return stored.get("weight") * stored.get("weights_scaling_factor")[:, None]


WHOLE: dict[str, Callable[[Stored], Quantized]] = {"W8A16": _weight_only, "W4A16": _weight_only, "W4A16_AWQ": _awq}
RESTORE: dict[str, Callable[[Stored], Tensor]] = {
    **{algo: lambda stored: stored.whole().dequantize() for algo in WHOLE},
    "FP8": _fp8,
    "W8A8_SQ_PER_CHANNEL": _int8_smooth,
}


def quantized_linear(stored: Stored, bias: Tensor | None, dtype: torch.dtype) -> QuantizedLinear:
    """The layer that a quantized module of a checkpoint is.

    Args:
        dtype: what is computed in.

    Raises:
        CheckpointError: the form is not one of ``RESTORE``.
    """
    algo = stored.config.quantization.quant_algo
    if algo not in RESTORE:
        raise CheckpointError(
            f"quant_algo {algo} cannot be executed",
            why=f"the forms that are written here are {', '.join(RESTORE)}",
            fix="check structure alone: labs verify --no-execution",
        )
    prequant = stored.prequant()
    return QuantizedLinear(
        stored.weight().to(dtype), bias, None if prequant is None else prequant.to(dtype), stored.rounding()
    )


def cache_rounding(config: CheckpointConfig, scale: Tensor | None) -> nn.Module | None:
    """What the KV cache keeps of keys and values: INT8, FP8, or all of it (None).

    In generation every token reads the cache, so that is what this network computes for all of them; a context phase
    with a float kernel reads the rounded keys of earlier requests only.

    Args:
        scale: ``attention.kv_cache_scaling_factor``, [1].

    Raises:
        CheckpointError: the config asks for a form that is not written here, or the scale is missing.
    """
    algo = config.quantization.kv_cache_quant_algo
    if algo is None:
        return None
    if scale is None or algo not in ("INT8", "FP8"):
        raise CheckpointError(
            f"kv_cache_quant_algo {algo} cannot be executed",
            why="there is no kv_cache_scaling_factor" if scale is None else "INT8 and FP8 are written here",
            fix="quantize the model again: labs quantize",
        )
    return (RoundInt8 if algo == "INT8" else RoundFp8)(scale)
