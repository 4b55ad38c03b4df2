"""Products of one token on a GPU: the kernel that reads a matrix once, in the places where the layers have theirs."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from labsupport.checkpoint.network.mlp import MlpShard
from labsupport.engine.gpu import multiply
from labsupport.engine.products import FloatProduct


class RowProduct(FloatProduct):
    """Weights of 32 or 16 bits times one row; many rows go to the library."""

    def forward(self, x: Tensor) -> Tensor:
        """[1, rows, in] -> [1, rows, out]; generation calls it with one row."""
        if not self.few:
            return super().forward(x)
        y: Tensor = multiply(x.flatten(), self.weight, None)
        return (y if self.bias is None else y + self.bias)[None]


class PairedMlp(MlpShard):
    """An MLP whose two branches are read in one launch."""

    def forward(self, x: Tensor) -> Tensor:
        """[1, rows, hidden] -> a part of the same shape."""
        fc, gate = cast(RowProduct, self.fc), cast(RowProduct, self.gate)
        if not fc.few:
            return super().forward(x)
        both = multiply(x.flatten(), fc.weight, gate.weight)
        part: Tensor = self.proj((self.act(both[0]) * both[1])[None, None])
        return part


def pair(module: nn.Module) -> None:
    """Put a :class:`PairedMlp` in the place of every MLP below ``module`` that has two branches without biases."""
    for name, child in module.named_children():
        branches = (child.fc, child.gate) if isinstance(child, MlpShard) else ()
        if branches and all(isinstance(each, RowProduct) and each.bias is None for each in branches):
            setattr(module, name, PairedMlp(child.fc, child.gate, child.proj, child.act))  # type: ignore[arg-type]
        else:
            pair(child)
