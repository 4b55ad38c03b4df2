"""The paged KV cache as attention sees it: new keys and values go into blocks, and a table tells which to look through.

A pool holds blocks of ``tokens_per_block`` tokens. A sequence owns some blocks, in any order; its *table* lists them,
so that position p lies in block ``table[p // tokens_per_block]`` at offset ``p % tokens_per_block``. Block 0 is
scratch: rows that only fill up a batch write there, and nobody reads it.

Source: Kwon et al. 2023, PagedAttention, arXiv 2309.06180; TensorRT-LLM calls the table ``kv_cache_block_offsets``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labsupport.checkpoint.network.attention import Heads
from labsupport.engine.gpu import attend_blocks

Pool = tuple[Tensor, Tensor]
"""Keys and values of one layer on one rank, each [blocks, tokens_per_block, kv_heads, head_size]."""


@dataclass(frozen=True)
class Lookback:
    """Where the tokens of one call stand, and what each of them may see. Made once a step, used by every layer.

    Args:
        positions: int64 [tokens].
        block, offset: where each token's key and value go, int64 [tokens].
        table: blocks to look back through: int64 [blocks] of the one sequence (context), or [tokens, blocks], a row for
            each sequence (generation).
        bias: float32 [tokens, blocks * tokens_per_block], 0 where a key may be seen and -inf elsewhere.
    """

    positions: Tensor
    block: Tensor
    offset: Tensor
    table: Tensor
    bias: Tensor


def look_back(positions: Tensor, table: Tensor, tokens_per_block: int, window: int | None) -> Lookback:
    """The :class:`Lookback` of a call.

    Args:
        positions: int64 [tokens].
        table: [blocks] for one sequence, or [tokens, blocks].
        window: how many tokens a query sees, itself included; None for all.

    Example:
        >>> look_back(torch.tensor([5]), torch.tensor([[7, 3]]), tokens_per_block=4, window=None).block
        tensor([3])
    """
    page = (positions // tokens_per_block)[:, None]
    block = table.expand(len(positions), -1).gather(1, page)[:, 0]
    keys = torch.arange(table.shape[-1] * tokens_per_block, device=positions.device)
    distance = positions[:, None] - keys
    seen = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    bias = torch.zeros(seen.shape, device=positions.device).masked_fill_(~seen, float("-inf"))
    return Lookback(positions, block, positions % tokens_per_block, table, bias)


class Paged:
    """A :class:`~labsupport.checkpoint.network.memory.Memory` over one layer's pools.

    Args:
        where: the call.
        pools: one pool a hosted rank; attention shards take them in turn.
    """

    def __init__(self, where: Lookback, pools: Sequence[Pool]) -> None:
        self.where, self.positions = where, where.positions
        self._pools = iter(pools)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
        """q [1, tokens, queries, size]; k, v [1, tokens, keys, size] -> the shape of q."""
        keys, values = next(self._pools)
        at = self.where
        keys[at.block, at.offset], values[at.block, at.offset] = k[0].to(keys.dtype), v[0].to(values.dtype)
        if q.is_cuda and at.table.dim() == 2 and heads.size & (heads.size - 1) == 0:
            mixed: Tensor = attend_blocks(q[0], keys, values, at.table, at.bias, heads.scale, heads.softcap or 0.0)
            return mixed[None]
        mix = _each_its_own if at.table.dim() == 2 else _together
        return mix(q[0], keys[at.table].flatten(-4, -3), values[at.table].flatten(-4, -3), at.bias, heads)[None]


def _together(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, heads: Heads) -> Tensor:
    """Many tokens of one sequence: matrix products. q [tokens, queries, size]; k, v [n, keys, size]."""
    tokens = q.shape[0]
    grouped = (
        torch.unflatten(q, 1, (heads.keys, -1)).permute(1, 2, 0, 3).contiguous().flatten(1, 2).float()
    )  # [keys, group * tokens, size]
    scores = grouped @ k.float().permute(1, 2, 0)
    weights = _weights(torch.unflatten(scores, 1, (-1, tokens)), bias, heads).flatten(1, 2)
    mixed = weights @ v.float().permute(1, 0, 2)
    return torch.unflatten(mixed, 1, (-1, tokens)).permute(2, 0, 1, 3).contiguous().flatten(1, 2).to(q.dtype)


def _each_its_own(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, heads: Heads) -> Tensor:
    """One token of each sequence: sums of products, which the compiler turns into loops over the pages in place.

    q [rows, queries, size]; k, v [rows, n, keys, size].
    """
    grouped = torch.unflatten(q, 1, (heads.keys, -1)).float()  # [rows, keys, group, size]
    scores = (grouped[:, None] * k[:, :, :, None].float()).sum(-1)  # [rows, n, keys, group]
    weights = _weights(scores.permute(0, 2, 3, 1), bias[:, None, None], heads).permute(0, 3, 1, 2)
    mixed = (weights[..., None] * v[:, :, :, None].float()).sum(1)
    return mixed.flatten(1, 2).to(q.dtype)


def _weights(scores: Tensor, bias: Tensor, heads: Heads) -> Tensor:
    scores = scores * heads.scale
    if heads.softcap is not None:
        scores = heads.softcap * torch.tanh(scores / heads.softcap)
    return (scores + bias).softmax(-1)
