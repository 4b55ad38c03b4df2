"""The tensors of one rank, as the builder asks for them: by name, in one dtype, with a clear word for a missing one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.expected import is_quantized
from labsupport.checkpoint.network.linear import Linear
from labsupport.checkpoint.network.norms import LayerNorm, RmsNorm
from labsupport.checkpoint.network.quantized import Stored, quantized_linear
from labsupport.errors import CheckpointError

Quantizer = Callable[[Stored, "Tensor | None", torch.dtype], Linear]


class RankTensors:
    """Reads one rank's tensors and casts them.

    Args:
        stored: name -> tensor, as in ``rank<r>.safetensors``.
        rank: the global rank, for messages.
        dtype: what every tensor is cast to.
        config: says which weights are quantized; None where none is.
        prefix: put before each name asked for.
        quantized: makes a layer of what a quantized module holds; the engine keeps the whole numbers instead.
    """

    def __init__(
        self,
        stored: Mapping[str, Tensor],
        rank: int,
        dtype: torch.dtype,
        config: CheckpointConfig | None = None,
        prefix: str = "",
        quantized: Quantizer = quantized_linear,
    ) -> None:
        self.stored, self.rank, self.dtype, self.config, self.prefix = stored, rank, dtype, config, prefix
        self.quantized = quantized

    def under(self, prefix: str) -> RankTensors:
        """The same tensors, asked for by what follows ``prefix.``."""
        return RankTensors(self.stored, self.rank, self.dtype, self.config, f"{self.prefix}{prefix}.", self.quantized)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.stored

    def get(self, name: str) -> Tensor | None:
        """The tensor, or None where the checkpoint has none of that name."""
        return self._float(name, self.raw(name)) if name in self else None

    def raw(self, name: str) -> Tensor:
        """The tensor as it is stored.

        Raises:
            CheckpointError: the checkpoint has none of that name.
        """
        if name not in self:
            raise CheckpointError(
                f"rank{self.rank}.safetensors has no tensor {self.prefix}{name}",
                why="the network needs it, and the build with TensorRT-LLM would stop here as well",
                fix="convert the model again: labs convert",
            )
        return self.stored[self.prefix + name]

    def __getitem__(self, name: str) -> Tensor:
        return self._float(name, self.raw(name))

    def linear(self, name: str, *, bias: bool = True) -> Linear:
        """The linear layer ``name``; with ``bias`` False, without its bias, whether stored or not."""
        shift = self.get(f"{name}.bias") if bias else None
        if self.config is not None and is_quantized(self.config, self.prefix + name):
            stored = Stored(lambda part: self.raw(f"{name}.{part}"), self.config)
            return self.quantized(stored, shift, self.dtype)
        return Linear(self[f"{name}.weight"], shift)

    def norm(self, name: str, eps: float) -> LayerNorm | RmsNorm:
        """The norm ``name``: the one with a bias is LayerNorm, the one without is RmsNorm."""
        shift = self.get(f"{name}.bias")
        scale = self[f"{name}.weight"]
        return RmsNorm(scale, eps) if shift is None else LayerNorm(scale, shift, eps)

    def optional_norm(self, name: str, eps: float) -> LayerNorm | RmsNorm | None:
        """The norm ``name``, or None where the checkpoint has none."""
        return self.norm(name, eps) if f"{name}.weight" in self else None

    def _float(self, name: str, found: Tensor) -> Tensor:
        if not found.is_floating_point() or found.dtype.itemsize == 1:
            raise CheckpointError(
                f"{self.prefix}{name} in rank{self.rank}.safetensors is {str(found.dtype).removeprefix('torch.')}",
                why="config.json says that this tensor is not quantized",
                fix="quantize the model again: labs quantize",
            )
        return found.to(self.dtype)
