"""A model of three lines whose memory is real: what it answers depends on every value that it finds in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from labsupport.engine.protocol import Logits

Pool = np.ndarray  # uint64 [blocks, tokens_per_block]


class HashModel:
    """The "key-value" of a token is a hash of all that is before it in the cache, read through the table.

    A wrong table, a block that was given away, overwritten or shared too long changes the logits of everything after.
    Rows that fill up a generation call write to block 0, as compiled graphs do.
    """

    def __init__(self, vocab_size: int = 29, tokens_per_block: int = 4, max_rows: int = 8) -> None:
        self.vocab_size, self.tokens_per_block, self.max_rows = vocab_size, tokens_per_block, max_rows
        self.calls = 0
        self.fails_at: int | None = None

    def new_cache(self, blocks: int) -> Pool:
        return np.random.default_rng(0).integers(2**63, size=(blocks, self.tokens_per_block), dtype=np.uint64)

    def copy_blocks(self, cache: Pool, pairs: Sequence[tuple[int, int]]) -> None:
        for source, target in pairs:
            cache[target] = cache[source]

    def context(
        self, cache: Pool, tokens: Sequence[int], start: int, table: Sequence[int], *, every: bool = False
    ) -> Logits:
        self._count()
        rows = [self._run(cache, token, start + i, table) for i, token in enumerate(tokens)]
        return np.stack(rows) if every else rows[-1]

    def generation(
        self, cache: Pool, tokens: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> Logits:
        self._count()
        assert len(tokens) <= self.max_rows
        cache[0] += np.uint64(1)
        return np.stack([self._run(cache, *row) for row in zip(tokens, positions, tables, strict=True)])

    def _run(self, cache: Pool, token: int, position: int, table: Sequence[int]) -> Logits:
        assert 0 not in table
        value = digest(token, cache[list(table)].reshape(-1)[:position])
        cache[table[position // self.tokens_per_block], position % self.tokens_per_block] = value
        return logits_of(value, self.vocab_size)

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("the double was told to fail")


def digest(token: int, before: np.ndarray) -> int:
    """The same in every process, which Python's own ``hash`` is not."""
    return int.from_bytes(hashlib.blake2b(np.int64(token).tobytes() + before.tobytes()).digest()[:7], "little")


def logits_of(value: int, vocab_size: int) -> Logits:
    return np.random.default_rng(value).normal(size=vocab_size).astype(np.float32) * 3


class Alone:
    """What the double says of a sequence without blocks or tables: the reference."""

    def __init__(self, vocab_size: int = 29) -> None:
        self.vocab_size = vocab_size
        self._known: dict[tuple[int, ...], tuple[np.ndarray, Logits]] = {(): (np.empty(0, np.uint64), np.empty(0))}

    def __call__(self, tokens: Sequence[int]) -> Logits:
        """Logits [V] of the token after ``tokens``."""
        return self._after(tuple(tokens))[1]

    def every(self, tokens: Sequence[int]) -> Logits:
        """Logits [len(tokens), V]."""
        return np.stack([self(tokens[: n + 1]) for n in range(len(tokens))])

    def _after(self, tokens: tuple[int, ...]) -> tuple[np.ndarray, Logits]:
        if tokens not in self._known:
            before, _ = self._after(tokens[:-1])
            value = digest(tokens[-1], before)
            self._known[tokens] = np.append(before, np.uint64(value)), logits_of(value, self.vocab_size)
        return self._known[tokens]
