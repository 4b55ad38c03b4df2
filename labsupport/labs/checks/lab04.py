"""Checks of lab 04, transformer and KV cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from labsupport.labs.checks import exercise, expect, expect_close, expect_equal
from labsupport.labs.reference.attention import cached_attention, merge
from labsupport.labs.reference.counting import sequences_that_fit, text_work


class StaticCache:
    """Keys and values in room that is allocated once, as engines do it. It has two faults.

    Args:
        layers, kv_heads, head_size: of the model.
        room: tokens that fit.
    """

    def __init__(self, layers: int, kv_heads: int, room: int, head_size: int) -> None:
        self.kv = torch.zeros(layers, 2, kv_heads, room, head_size)
        self.at = 0  # rows that are filled, in every layer

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v [kv_heads, n, head_size] of one layer; return what that layer may look at."""
        end = self.at + k.shape[1]
        self.kv[layer, 0, :, self.at : end] = k
        self.kv[layer, 1, :, self.at : end] = v
        self.at = end
        return self.kv[layer, 0], self.kv[layer, 1]


def append(self: StaticCache, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """``StaticCache.append`` without its faults: one pointer for all layers, and no empty rows handed out."""
    end = self.at + k.shape[1]
    self.kv[layer, 0, :, self.at : end] = k
    self.kv[layer, 1, :, self.at : end] = v
    if layer == len(self.kv) - 1:
        self.at = end
    return self.kv[layer, 0, :, :end], self.kv[layer, 1, :, :end]


def how_many(free: int, layers: int, kv_heads: int, head_size: int, tokens: int, bytes_each: int, block: int) -> int:
    """Sequences of ``tokens`` tokens that fit into ``free`` bytes of cache, in blocks of ``block`` tokens."""
    return sequences_that_fit(free, tokens, 2 * layers * kv_heads * head_size * bytes_each, block)


@exercise("04.1", reference=how_many)
def users(attempt: Callable[..., float]) -> None:
    """Round numbers first, then lengths that leave a block half empty, then real shapes."""
    cases = [
        (1000, 1, 1, 1, 10, 1, 1),
        (1039, 1, 1, 1, 10, 1, 1),
        (640, 1, 1, 1, 10, 1, 16),
        (640, 1, 1, 1, 16, 1, 16),
        (10**10, 32, 32, 128, 4096, 2, 32),
        (10**10, 32, 8, 128, 1000, 2, 64),
        (10**6, 30, 3, 64, 100, 4, 32),
    ]
    for case in cases:
        names = ("free", "layers", "kv_heads", "head_size", "tokens", "bytes_each", "block")
        expect_equal(
            attempt(*case), how_many(*case), given=", ".join(f"{n}={x}" for n, x in zip(names, case, strict=True))
        )


@exercise("04.2", reference=cached_attention)
def one_new_token(attempt: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> None:
    """An empty cache, one head, grouped heads; the caller's cache stays as it was."""
    for heads, kv_heads, size, cached in [(1, 1, 2, 0), (1, 1, 2, 1), (2, 1, 4, 3), (4, 2, 4, 5), (9, 3, 8, 2)]:
        given = f"{heads} query heads, {kv_heads} KV heads of size {size}, {cached} cached tokens"
        torch.manual_seed(cached)
        q, k, v = torch.randn(heads, size), *torch.randn(2, kv_heads, size)
        keys, values = torch.randn(2, kv_heads, cached, size)
        kept = keys.clone()
        got, want = attempt(q, k, v, keys, values), cached_attention(q, k, v, keys, values)
        expect(isinstance(got, tuple) and len(got) == 3, f"For {given}: return three tensors: mixed, keys, values")
        expect(torch.equal(keys, kept), f"For {given}: your function changed the cache that it was given")
        for name, mine, right in zip(("mixed", "keys", "values"), got, want, strict=True):
            expect_close(mine, right, given=f"{given}, {name}", rtol=1e-4, atol=1e-5)


@exercise("04.3", reference=text_work)
def work(attempt: Callable[[int, int, int, int, bool], int]) -> None:
    """Short texts, each kind of product by itself, then both."""
    for prompt, new in [(3, 1), (3, 2), (5, 4), (100, 50)]:
        for per_token, per_pair in [(1, 0), (0, 1), (1000, 7)]:
            for cached in (False, True):
                case = (prompt, new, per_token, per_pair, cached)
                given = f"prompt={prompt}, new={new}, per_token={per_token}, per_pair={per_pair}, cached={cached}"
                expect_equal(attempt(*case), text_work(*case), given=given)


@exercise("04.4", reference=merge)
def parts(attempt: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """Equal parts, unequal ones, large scores, a part in which nothing may be seen."""
    cases = [
        ([[1.0], [4.0]], [0.0, 0.0]),
        ([[1.0], [4.0]], [0.0, 1.0986123]),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0.5, -1.0, 2.0]),
        ([[1.0], [4.0]], [800.0, 801.0]),
        ([[1.0], [0.0]], [-2.0, -torch.inf]),
    ]
    for outs, lse in cases:
        given = f"outs={outs}, lse={lse}"
        got, want = attempt(torch.tensor(outs), torch.tensor(lse)), merge(torch.tensor(outs), torch.tensor(lse))
        expect(
            isinstance(got, tuple) and len(got) == 2, f"For {given}: return two tensors: the mean and its log-sum-exp"
        )
        expect_close(got[0], want[0], given=f"{given}, mean", rtol=1e-4)
        expect_close(got[1], want[1], given=f"{given}, log-sum-exp", rtol=1e-4)


@exercise("04.5", reference=append)
def static_cache(attempt: Callable[[StaticCache, int, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """A prompt of 3 tokens, then two single ones, through two layers; each layer must see exactly its own rows."""
    layers, kv_heads, size = 2, 2, 4
    cache = StaticCache(layers, kv_heads, room=8, head_size=size)
    torch.manual_seed(0)
    seen = [torch.zeros(2, kv_heads, 0, size) for _ in range(layers)]
    for step, count in enumerate((3, 1, 1)):
        for layer in range(layers):
            new = torch.randn(2, kv_heads, count, size)
            seen[layer] = torch.cat([seen[layer], new], dim=2)
            got = attempt(cache, layer, *new)
            given = f"pass {step} ({count} new), layer {layer}"
            expect(isinstance(got, tuple) and len(got) == 2, f"In {given}: return the layer's keys and values")
            for name, mine, right in zip(("keys", "values"), got, seen[layer], strict=True):
                rows = mine.shape[1]
                expect(
                    rows == right.shape[1],
                    f"In {given}: {rows} rows of {name} are handed out, expected {right.shape[1]}",
                )
                wrong = [row for row in range(rows) if not torch.equal(mine[:, row], right[:, row])]
                expect(not wrong, f"In {given}: row {wrong[:1]} of the {name} is not the one that was stored there")
    expect_equal(cache.at, 5, given="cache.at after 3 + 1 + 1 tokens")
