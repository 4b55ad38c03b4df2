"""Attention against a cache, in tiles, and from parts: three ways to the numbers of plain attention.

The tiles follow Dao et al. 2022, "FlashAttention", with the running softmax of Milakov and Gimelshein 2018, "Online
normalizer calculation for softmax". Putting parts together by their log-sum-exp is "Flash-Decoding" (Dao et al. 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor


def cached_attention(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One new token looks back over the cache and at itself.

    Args:
        q: [A, D], the token's queries, already turned by RoPE.
        k, v: [K, D], its key and value; query heads ``i * A/K`` to ``(i + 1) * A/K - 1`` use KV head i.
        keys, values: [K, n, D], the cache; left as it is.

    Returns:
        [A, D], and the two grown tensors [K, n + 1, D].
    """
    keys, values = torch.cat([keys, k[:, None]], dim=1), torch.cat([values, v[:, None]], dim=1)
    grouped = q.reshape(len(k), -1, q.shape[-1])  # [K, A/K, D]: no key is copied
    weights = (grouped @ keys.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ values).flatten(0, 1), keys, values


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, tile: int) -> Tensor:
    """Causal attention of one head that never holds more than ``tile`` x ``tile`` scores.

    Args:
        q, k, v: [n, D].
        tile: rows and columns of a tile; the last ones may be narrower.

    Returns:
        [n, D], equal to plain attention but for rounding.
    """
    out = torch.empty_like(q)
    for top in range(0, len(q), tile):
        rows = torch.arange(top, min(top + tile, len(q)), device=q.device)
        peak = q.new_full((len(rows), 1), -torch.inf)
        total, mixed = torch.zeros_like(peak), torch.zeros_like(q[rows])
        for left in range(0, top + 1, tile):  # what lies right of the diagonal is not even computed
            columns = torch.arange(left, min(left + tile, len(q)), device=q.device)
            scores = q[rows] @ k[columns].T / q.shape[-1] ** 0.5
            scores = scores.masked_fill(columns > rows[:, None], -torch.inf)
            higher = torch.maximum(peak, scores.amax(dim=1, keepdim=True))
            shrink, grown = (peak - higher).exp(), (scores - higher).exp()
            total = total * shrink + grown.sum(dim=1, keepdim=True)
            mixed = mixed * shrink + grown @ v[columns]
            peak = higher
        out[rows] = mixed / total
    return out


def merge(outs: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over a whole cache from the attention over its parts.

    Args:
        outs: [parts, D], each the weighted mean of the values of one part.
        lse: [parts], the log-sum-exp of that part's scores; -inf for a part in which nothing may be seen.

    Returns:
        The mean over all, [D], and its log-sum-exp.

    Example:
        >>> merge(torch.tensor([[1.0], [4.0]]), torch.tensor([0.0, 0.0]))[0]
        tensor([2.5000])
    """
    return lse.softmax(dim=0) @ outs, lse.logsumexp(dim=0)
