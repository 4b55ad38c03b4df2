"""What the run-time half asks of a model, be it compiled, eager or a test double: run tokens on a paged cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Cache = Any
"""The paged key-value pools of all layers. Only the model looks inside; everybody else hands it on."""

Logits = NDArray[np.float32]


class Model(Protocol):
    """A decoder on a paged KV cache.

    A sequence's *table* lists the blocks that hold its keys and values: position p lies in block
    ``table[p // tokens_per_block]``. Block 0 is scratch, which rows that only fill up a batch write to; a pool of n
    blocks has n - 1 to give away.
    """

    @property
    def vocab_size(self) -> int:
        """Logits of one token."""
        ...

    @property
    def tokens_per_block(self) -> int:
        """Tokens in a block of the cache."""
        ...

    @property
    def max_rows(self) -> int:
        """Sequences that one generation call can take."""
        ...

    def new_cache(self, blocks: int) -> Cache:
        """Pools of ``blocks`` blocks, scratch included."""
        ...

    def context(
        self, cache: Cache, tokens: Sequence[int], start: int, table: Sequence[int], *, every: bool = False
    ) -> Logits:
        """Run tokens of one sequence at the positions from ``start`` on; what is before lies in the cache.

        Returns:
            Logits [V] of the last token; with ``every``, [len(tokens), V].
        """
        ...

    def generation(
        self, cache: Cache, tokens: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> Logits:
        """Run one token of each of B sequences -> logits [B, V]."""
        ...

    def copy_blocks(self, cache: Cache, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy block to block for each (from, to), in all layers."""
        ...
