"""The tensors of one rank, as the builder asks for them: by name, in one dtype, with a clear word for a missing one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from labsupport.checkpoint.network.linear import Linear
from labsupport.checkpoint.network.norms import LayerNorm, RmsNorm
from labsupport.errors import CheckpointError


class RankTensors:
    """Reads one rank's tensors and casts them.

    Args:
        stored: name -> tensor, as in ``rank<r>.safetensors``.
        rank: the global rank, for messages.
        dtype: what every tensor is cast to.
        prefix: put before each name asked for.
    """

    def __init__(self, stored: Mapping[str, Tensor], rank: int, dtype: torch.dtype, prefix: str = "") -> None:
        self.stored, self.rank, self.dtype, self.prefix = stored, rank, dtype, prefix

    def under(self, prefix: str) -> RankTensors:
        """The same tensors, asked for by what follows ``prefix.``."""
        return RankTensors(self.stored, self.rank, self.dtype, f"{self.prefix}{prefix}.")

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None where the checkpoint has none of that name."""
        found = self.stored.get(self.prefix + name)
        if found is None:
            return None
        if not found.is_floating_point() or found.dtype.itemsize == 1:
            raise CheckpointError(
                f"{self.prefix}{name} in rank{self.rank}.safetensors is {str(found.dtype).removeprefix('torch.')}",
                why="the weights are quantized, and this network multiplies plain floats only",
                fix="check structure alone: labs verify --no-execution",
            )
        return found.to(self.dtype)

    def __getitem__(self, name: str) -> Tensor:
        found = self.get(name)
        if found is None:
            raise CheckpointError(
                f"rank{self.rank}.safetensors has no tensor {self.prefix}{name}",
                why="the network needs it, and the build with TensorRT-LLM would stop here as well",
                fix="convert the model again: labs convert",
            )
        return found

    def linear(self, name: str, *, bias: bool = True) -> Linear:
        """The linear layer ``name``; with ``bias`` False, without its bias, whether stored or not."""
        return Linear(self[f"{name}.weight"], self.get(f"{name}.bias") if bias else None)

    def norm(self, name: str, eps: float) -> LayerNorm | RmsNorm:
        """The norm ``name``: the one with a bias is LayerNorm, the one without is RmsNorm."""
        shift = self.get(f"{name}.bias")
        scale = self[f"{name}.weight"]
        return RmsNorm(scale, eps) if shift is None else LayerNorm(scale, shift, eps)

    def optional_norm(self, name: str, eps: float) -> LayerNorm | RmsNorm | None:
        """The norm ``name``, or None where the checkpoint has none."""
        return None if self.get(f"{name}.weight") is None else self.norm(name, eps)
