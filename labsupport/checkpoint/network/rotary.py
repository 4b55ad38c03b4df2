"""Rotary position embedding: a pair of numbers is turned by an angle that grows with the position.

Source: Su et al. 2021, "RoFormer"; the order of the pairs is GPT-NeoX's (``rope_gpt_neox``), where element i is
paired with element i + size/2. The scaling ``llama3`` is that of the Llama 3.1 release.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labsupport.errors import CheckpointError


class Rotary(nn.Module):
    """Turns queries and keys by their positions.

    Args:
        frequencies: radians a position, [rotary_dim / 2], float32.
    """

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """x: [batch, tokens, heads, head_size]; positions: [tokens]. Elements past ``rotary_dim`` pass unturned."""
        angle = positions[:, None].float() * self.frequencies  # [tokens, rotary_dim / 2]
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]  # one axis more, for the heads
        half = self.frequencies.shape[0]
        first, second, rest = x[..., :half].float(), x[..., half : 2 * half].float(), x[..., 2 * half :]
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        return torch.cat([turned.to(x.dtype), rest], dim=-1)


def frequencies(rotary_dim: int, base: float, scaling: Mapping[str, Any] | None = None) -> Tensor:
    """``base ** (-2i / rotary_dim)`` for i = 0 ... rotary_dim/2 - 1, then scaled; float32.

    Args:
        rotary_dim: how many elements of a head are turned; even.
        base: ``rotary_base`` of the checkpoint's config (theta in Hugging Face's).
        scaling: ``rotary_scaling`` of the checkpoint's config, or None.

    Raises:
        CheckpointError: a kind of scaling that is not known here.
    """
    plain = 1.0 / base ** (torch.arange(0, rotary_dim, 2).float() / rotary_dim)
    kind = (scaling or {}).get("rope_type") or (scaling or {}).get("type") or "none"
    if scaling is None or kind in ("none", "default"):
        return plain
    if kind == "linear":
        return plain / float(scaling["factor"])
    if kind == "llama3":
        return _llama3(plain, scaling)
    raise CheckpointError(
        f"rotary_scaling of type '{kind}' cannot be executed",
        why="only the types none, linear and llama3 are written here; the weights are not at fault",
        fix="check structure and round trip alone: labs verify --no-execution",
    )


def _llama3(plain: Tensor, scaling: Mapping[str, Any]) -> Tensor:
    """Slow waves are stretched by ``factor``, fast ones kept, and those between are blended."""
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = float(scaling["original_max_position_embeddings"]) * plain / (2 * math.pi)  # within the first context
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return keep * plain + (1 - keep) * plain / float(scaling["factor"])
