"""A linear layer as a rank holds it. A quantized layer takes its place by having the same ``forward``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Module):
    """``x @ weight.T + bias``.

    Args:
        weight: [out, in], the order of ``torch.nn.Linear``; every family is stored so, GPT-2 too.
        bias: [out], or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        return F.linear(x, self.weight, self.bias)
