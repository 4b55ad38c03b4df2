"""What a checkpoint stores in place of a weight, made from the whole weight and then cut for the ranks.

Scales are found on the whole matrix, so a model gives the same weights on any number of ranks.

Source: NVIDIA ModelOpt 0.29, ``modelopt/torch/export/quant_utils.py`` and ``model_config_utils.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labsupport.checkpoint.layout_cut import Piece
from labsupport.checkpoint.network.quantized import FP8_MAX, to_fp8
from labsupport.checkpoint.quantize.arithmetic import pack_int4, quantize
from labsupport.checkpoint.quantize.calibrate import Inputs


@dataclass(frozen=True)
class Form:
    """One quantized weight, not yet cut.

    Args:
        values: int8 or float8_e4m3fn, [out, in]; four bits are not yet packed.
        weights_scaling_factor: float32, [1], [out] or [out, in / group].
        activation_scaling_factor: float32 [1], or None where activations keep their bits.
        prequant_scaling_factor: [in], in the checkpoint's dtype, or None.
        packed: whether two rows share a byte.
    """

    values: Tensor
    weights_scaling_factor: Tensor
    activation_scaling_factor: Tensor | None = None
    prequant_scaling_factor: Tensor | None = None
    packed: bool = False

    def cut(self, pieces: Sequence[Piece]) -> dict[str, Tensor]:
        """The tensors of one rank, by the last part of their names; ``pieces`` say which rows and columns it holds."""
        rows = torch.cat([torch.arange(*piece.rows) for piece in pieces])
        first, stop = pieces[0].columns or (0, self.values.shape[1])
        values, scale = self.values.view(torch.int8)[rows, first:stop], self.weights_scaling_factor
        if scale.dim() == 2:
            each = self.values.shape[1] // scale.shape[1]
            scale = scale[rows, first // each : stop // each]
        elif scale.numel() > 1:
            scale = scale[rows]
        found = {
            "weight": pack_int4(values) if self.packed else values.view(self.values.dtype),
            "weights_scaling_factor": scale,
        }
        if self.activation_scaling_factor is not None:
            found["activation_scaling_factor"] = self.activation_scaling_factor
        if self.prequant_scaling_factor is not None:
            found["prequant_scaling_factor"] = self.prequant_scaling_factor[first:stop]
        return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def int4_form(weights: Sequence[Tensor], given: Inputs, group: int, dtype: torch.dtype) -> list[Form]:
    """W4A16_AWQ: ``q = clamp(round(W' / scale), -8, 7)``, ``W' = W / prequant``, scale = max of a group / 7.

    Args:
        weights: float32 [out, in] of the layers that read one input.
        given: the factors that AWQ found; without them, plain rounding, stored with factors of one.
        group: inputs that share a scale.
        dtype: of the stored factors.
    """
    prequant = torch.ones(weights[0].shape[1]) if given.prequant is None else given.prequant
    made = [quantize(weight / prequant, 4, "group", group) for weight in weights]
    return [Form(one.values, one.scale, prequant_scaling_factor=prequant.to(dtype), packed=True) for one in made]


def int8_smooth_form(weights: Sequence[Tensor], given: Inputs, dtype: torch.dtype) -> list[Form]:
    """W8A8_SQ_PER_CHANNEL: int8 weights with a scale a row (max / 127), int8 inputs with one scale for all."""
    prequant = torch.ones(weights[0].shape[1]) if given.prequant is None else given.prequant
    made = [quantize(weight / prequant, 8, "channel") for weight in weights]
    activation = torch.tensor([given.largest / 127])
    return [Form(one.values, one.scale[:, 0], activation, prequant.to(dtype)) for one in made]


def fp8_form(weights: Sequence[Tensor], given: Inputs) -> list[Form]:
    """FP8: ``W / scale`` as float8_e4m3fn, scale = max / 448, the same for the layers that read one input."""
    largest = max(float(weight.abs().max()) for weight in weights)
    scale, activation = torch.tensor([largest / FP8_MAX]), torch.tensor([given.largest / FP8_MAX])
    return [Form(to_fp8(weight / scale), scale, activation) for weight in weights]


def cache_scale(largest: float, algo: str) -> Tensor:
    """``kv_cache_scaling_factor``, float32 [1]: what a stored number is multiplied with.

    INT8: largest / 127. FP8: largest / 448, but at least 1, as ModelOpt writes it: e4m3 has 3 bits of fraction at any
    size, so there is nothing to gain from using its whole range.
    """
    return torch.tensor([largest / 127 if algo == "INT8" else max(largest / FP8_MAX, 1.0)])
