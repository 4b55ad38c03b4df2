"""The two norms of decoder-only models, applied to the last axis."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RmsNorm(nn.Module):
    """``x / rms(x) * weight``: no mean is taken off and no bias added.

    Gemma multiplies by ``1 + w``. Its converter has added the 1 already, so one formula serves every family.

    Args:
        weight: scale, [size].
        eps: added to the mean square, so that a row of zeros stays finite.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size], in the dtype of ``x``; the mean square is taken in float32 or better."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        unit = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (unit * self.weight).to(x.dtype)


class LayerNorm(nn.Module):
    """``(x - mean) / std * weight + bias``, the norm of OPT and GPT-2.

    Args:
        weight: scale, [size].
        bias: shift, [size].
        eps: added to the variance.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., size] -> [..., size], in the dtype of ``x``."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
