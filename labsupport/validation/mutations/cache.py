"""M16 to M20, M22 and M45: faults of the KV cache, of the slots and of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from labsupport.validation.mutations.fault import Bench, Fault, around, swapped, within
from labsupport.validation.mutations.network import shards
from labsupport.validation.target import Answer, Ask, Target, Wrapped

WHERE = "the KV cache"
BATCH = "the batch"


def _int8_cache(share: float) -> Callable[[Bench], AbstractContextManager[None]]:
    """Keys and values in int8 with a scale that is ``share`` of what calibration gives now."""

    @contextmanager
    def swap(bench: Bench) -> Iterator[None]:
        from labsupport.checkpoint.network.quantized import RoundInt8

        found = shards(bench)
        before = [shard.cache for shard in found]
        try:
            for shard, scale in zip(found, cache_scales(bench), strict=True):
                shard.cache = RoundInt8(scale * share)
            yield
        finally:
            for shard, cache in zip(found, before, strict=True):
                shard.cache = cache

    return swap


def cache_scales(bench: Bench) -> list[Any]:
    """The int8 scale of each layer's cache: its largest key or value on a sentence, over 127."""
    import torch

    found: list[Any] = []
    for shard in shards(bench):
        shard.cache = _Peak(found)
    ids = bench.half.tokenizer.encode("The quick brown fox jumps over the lazy dog, who is 12 and does not mind.")
    blocks = list(range(1, 2 + len(ids) // bench.model.tokens_per_block))
    bench.model.context(bench.model.new_cache(1 + len(blocks)), ids, 0, blocks)
    for shard in shards(bench):
        shard.cache = torch.nn.Identity()
    return [torch.maximum(*found[2 * index : 2 * index + 2]).reshape(1) / 127 for index in range(len(found) // 2)]


def _Peak(found: list[Any]) -> Any:
    """A cache that keeps all, and notes its largest number."""
    from torch import nn

    class Peak(nn.Module):
        def forward(self, x: Any) -> Any:
            found.append(x.abs().max())
            return x

    return Peak()


@contextmanager
def _stale_key(_: Bench) -> Iterator[None]:
    """A block is given to somebody else, and stays known under the key of what it held before."""
    from labsupport.engine.blocks import BlockManager

    def take(self: Any) -> int:
        if self._cached:
            block, _ = self._cached.popitem()
        else:
            block = self._free.popleft()
        self._references[block] = 1
        self.new_blocks += 1
        return int(block)

    def let_go(self: Any, table: Sequence[int]) -> None:
        for block in reversed(table):
            self._references[block] -= 1
            if self._references[block] == 0:
                del self._references[block]
                self._cached[block] = None

    with swapped(BlockManager, _take=take, _let_go=let_go):
        yield


@contextmanager
def _page_boundary(_: Bench) -> Iterator[None]:
    """The first token of a page is written where the page before it begins."""
    from labsupport.engine import eager
    from labsupport.engine.paged import look_back as honest

    def look_back(positions: Any, table: Any, size: int, window: int | None) -> Any:
        at = honest(positions, table, size, window)
        before = honest((positions - 1).clamp(min=0), table, size, window)
        wrong = (positions > 0) & (positions % size == 0)
        return replace(at, block=at.block.where(~wrong, before.block))

    with swapped(eager, look_back=look_back):
        yield


class Around:
    """A model with one call changed."""

    def __init__(self, model: Any, **calls: Any) -> None:
        self._model = model
        vars(self).update(calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@contextmanager
def _suffix_offset(bench: Bench) -> Iterator[Target]:
    """After a hit in the prefix cache, the rest of the prompt runs one position too early."""
    model = bench.model

    def context(cache: Any, tokens: Sequence[int], start: int, table: Sequence[int], *, every: bool = False) -> Any:
        return model.context(cache, tokens, max(0, start - 1), table, every=every)

    yield bench.target(Around(model, context=context))


@contextmanager
def _chain_without_parent(_: Bench) -> Iterator[None]:
    """A block is found by its own tokens, whatever stands in front of them."""
    from labsupport.engine import sequences
    from labsupport.engine.blocks import ROOT, chain_key

    with swapped(sequences, chain_key=lambda _, tokens: chain_key(ROOT, tokens)):
        yield


@contextmanager
def _padded_positions(_: Bench) -> Iterator[None]:
    """Decoding counts positions from the left edge of a padded batch, prefill did not."""
    from labsupport.engine import eager
    from labsupport.engine.paged import look_back as honest

    def look_back(positions: Any, table: Any, size: int, window: int | None) -> Any:
        at = honest(positions, table, size, window)
        return replace(at, positions=positions.max().expand_as(positions)) if table.dim() == 2 else at

    with swapped(eager, look_back=look_back):
        yield


@contextmanager
def _kernel_by_batch(bench: Bench) -> Iterator[Target]:
    """With four rows or more another kernel runs, which adds up in bfloat16."""
    import torch

    model = bench.model

    def generation(cache: Any, tokens: Sequence[int], positions: Sequence[int], tables: Any) -> Any:
        logits = model.generation(cache, tokens, positions, tables)
        return torch.from_numpy(logits).bfloat16().float().numpy() if len(tokens) >= 4 else logits

    yield bench.target(Around(model, generation=generation))


class Swapping(Wrapped):
    """Answers of neighbors change places in a share of the cases."""

    def __init__(self, inner: Target, share: float) -> None:
        super().__init__(inner)
        self.share, self._rng = share, np.random.default_rng(45)

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """As the inner one, some to the wrong client."""
        answers = self.inner.generate(asks)
        for place in range(len(answers) - 1):
            if self._rng.random() < self.share:
                answers[place : place + 2] = answers[place : place + 2][::-1]
        return answers


def _swapping(share: float) -> Callable[[Bench], AbstractContextManager[Target]]:
    @contextmanager
    def plant(bench: Bench) -> Iterator[Target]:
        yield Swapping(bench.target(), share)

    return plant


FAULTS = (
    Fault("M16", "int8 KV cache with a stale scale", "L2", WHERE,
          within(_int8_cache(0.25), quantization="KV INT8"), "1/4"),
    Fault("M16", "int8 KV cache with a stale scale", "L2", WHERE,
          within(_int8_cache(0.5), quantization="KV INT8"), "1/2", measured=False),
    Fault("M17", "a page keeps its name when it is given away", "L7", WHERE, around(_stale_key)),
    Fault("M18", "first token of a page written one page early", "L2", WHERE, around(_page_boundary)),
    Fault("M19", "prefix cache: the rest runs one position early", "L7", WHERE, _suffix_offset, "offset"),
    Fault("M19", "prefix cache: key without what stands before", "L7", WHERE, around(_chain_without_parent), "key",
          measured=False),
    Fault("M20", "positions counted in a padded batch", "L7", BATCH, around(_padded_positions),
          note="our batch is packed: decoding counts as if it were padded"),
    Fault("M22", "a kernel chosen by the batch size", "L7", BATCH, _kernel_by_batch),
    Fault("M45", "answers change places, 0.5 %", "L7", BATCH, _swapping(0.005), "0.5%"),
    Fault("M45", "answers change places, 2 %", "L7", BATCH, _swapping(0.02), "2%", measured=False),
    Fault("M45", "answers change places, 10 %", "L7", BATCH, _swapping(0.1), "10%", measured=False),
)  # fmt: skip
