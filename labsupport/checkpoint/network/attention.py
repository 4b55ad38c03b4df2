"""Attention as one tensor-parallel rank computes it: its own heads, and its own slice of the output projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from labsupport.checkpoint.network.rotary import Rotary

if TYPE_CHECKING:
    from labsupport.checkpoint.network.memory import Memory


@dataclass(frozen=True)
class Heads:
    """The heads of one rank, and how they look back.

    Args:
        queries: query heads on this rank.
        keys: key/value heads on this rank; each serves ``queries / keys`` query heads in a row.
        size: numbers in a head.
        scale: factor on the dot products, 1/sqrt(size) but for Gemma 2 and 3.
        softcap: scores are squeezed into (-softcap, softcap) by tanh (Gemma 2), or None.
        window: how many tokens a query sees, itself included; None sees all before it.
    """

    queries: int
    keys: int
    size: int
    scale: float
    softcap: float | None = None
    window: int | None = None


class AttentionShard(nn.Module):
    """Queries, keys and values of some heads -> this rank's part of the attention output.

    Args:
        qkv: hidden -> (queries + 2 * keys) * size, rows stacked q, k, v.
        dense: queries * size -> hidden, without its bias.
        heads: the heads of this rank.
        rotary: turns q and k, or None where positions are learned.
        q_norm, k_norm: norms over a head, or None (Gemma 3 and Qwen3 have them).
        cache: what a KV cache of fewer bits keeps of a key or value, or None where it keeps all.
    """

    def __init__(
        self,
        qkv: nn.Module,
        dense: nn.Module,
        heads: Heads,
        rotary: Rotary | None,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
        cache: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.qkv, self.dense, self.heads, self.rotary = qkv, dense, heads, rotary
        self.q_norm, self.k_norm = q_norm or nn.Identity(), k_norm or nn.Identity()
        self.cache = cache or nn.Identity()

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """x: [batch, tokens, hidden]; memory: what the tokens look back on -> a part of [batch, tokens, hidden]."""
        q, k, v = self.project(x, memory.positions)
        part: Tensor = self.dense(memory.attend(q, k, v, self.heads).flatten(-2))
        return part

    def project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values, each [batch, tokens, heads, size], normed and turned: what a cache would keep."""
        of = self.heads
        stacked = self.qkv(x).unflatten(-1, (of.queries + 2 * of.keys, of.size))
        q, k, v = stacked.split([of.queries, of.keys, of.keys], dim=-2)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary is not None:
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        return q, self.cache(k), self.cache(v)


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Which key each query may see: positions [q], [k] -> bool [q, k].

    Example:
        >>> visible(torch.arange(3), torch.arange(3), window=2).int().tolist()
        [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    """
    distance = queries[:, None] - keys[None, :]
    seen = distance >= 0
    return seen if window is None else seen & (distance < window)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, heads: Heads) -> Tensor:
    """``softmax(scale * q k) v``; the softmax is taken in float32 or better.

    Args:
        q: [batch, q_tokens, queries, size].
        k, v: [batch, k_tokens, keys, size].
        mask: [q_tokens, k_tokens], True where a key may be seen.
        heads: scale and softcap.

    Returns:
        [batch, q_tokens, queries, size].
    """
    shared = heads.queries // heads.keys
    k, v = k.repeat_interleave(shared, dim=-2), v.repeat_interleave(shared, dim=-2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * heads.scale
    if heads.softcap is not None:
        scores = heads.softcap * torch.tanh(scores / heads.softcap)
    weights = (
        scores.to(torch.promote_types(q.dtype, torch.float32)).masked_fill(~mask, float("-inf")).softmax(-1).to(q.dtype)
    )
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)
