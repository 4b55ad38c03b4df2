"""The blocks of the paged KV cache: who holds which, which are worth keeping, which can be given away.

A block is in exactly one of three places:

* *held*: it stands in the table of at least one sequence; ``references`` counts in how many.
* *cached*: nobody holds it, but its keys and values are those of a known chain of tokens, so a prompt that begins with
  the same chain can take it over. The block that was let go longest ago is given away first.
* *free*.

Only full blocks are cached, under a key that stands for *all* tokens up to the block's end: the keys and values of a
token depend on everything before it.

Source: TensorRT-LLM ``batch_manager/kvCacheManager.cpp``; Kwon et al. 2023, PagedAttention, arXiv 2309.06180. There the
cache is a radix tree; here it is a dictionary of hash chains, as in vLLM.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Key = bytes
ROOT: Key = b""  # the key before the first block


def chain_key(before: Key, tokens: Sequence[int]) -> Key:
    """The key of a full block: its own tokens, and through ``before`` all those in front of it."""
    return hashlib.blake2b(before + np.asarray(tokens, dtype=np.int64).tobytes(), digest_size=16).digest()


@dataclass
class _Held:
    """What one request holds: a table for each of its beams, and how many blocks of the first one have a key."""

    tables: list[list[int]]
    keyed: int


class BlockManager:
    """Hands out blocks 1 to ``blocks - 1``; block 0 is scratch.

    Args:
        blocks: size of the pool, scratch included.
        tokens_per_block: tokens in a block.
    """

    def __init__(self, blocks: int, tokens_per_block: int) -> None:
        self.usable, self.tokens_per_block = blocks - 1, tokens_per_block
        self.new_blocks = self.reused_blocks = 0  # over the life of the pool
        self._free = deque(range(1, blocks))
        self._cached: OrderedDict[int, None] = OrderedDict()  # let go longest ago first
        self._references: Counter[int] = Counter()
        self._key_of: dict[int, Key] = {}
        self._block_of: dict[Key, int] = {}
        self._held: dict[int, _Held] = {}

    # -- questions

    @property
    def available(self) -> int:
        """Blocks that can be given away now, cached ones among them."""
        return len(self._free) + len(self._cached)

    def blocks_for(self, tokens: int) -> int:
        """Blocks that so many tokens of one sequence fill."""
        return -(-tokens // self.tokens_per_block)

    def tables(self, request: int) -> list[list[int]]:
        """The table of each beam of a request."""
        return self._held[request].tables

    def held(self, request: int) -> int:
        """Different blocks that a request holds, over all its beams."""
        tables = self._held[request].tables if request in self._held else []
        return len(tables[0]) if len(tables) == 1 else len(set().union(*tables))

    def match(self, keys: Iterable[Key]) -> list[int]:
        """The blocks that hold the beginning of a chain of keys, as far as it is known."""
        found: list[int] = []
        for key in keys:
            if key not in self._block_of:
                break
            found.append(self._block_of[key])
        return found

    def in_use(self, block: int) -> bool:
        """Whether a sequence holds the block."""
        return self._references[block] > 0

    def freed_by(self, requests: Iterable[int]) -> int:
        """Blocks that would become available if all these requests let go of theirs: those that no other one holds."""
        let_go = Counter(block for request in requests for table in self.tables(request) for block in table)
        return sum(self._references[block] == count for block, count in let_go.items())

    # -- what a request does, in the order of its life

    def add(self, request: int, keys: Iterable[Key]) -> int:
        """A new request takes over the cached beginning of its chain -> tokens that need not be computed again."""
        table = self.match(keys)
        for block in table:
            self._cached.pop(block, None)
            self._references[block] += 1
        self._held[request] = _Held([table], len(table))
        self.reused_blocks += len(table)
        return len(table) * self.tokens_per_block

    def grow(self, request: int, tokens: int) -> int:
        """Extend each beam's table to hold so many tokens -> blocks that were taken."""
        taken = 0
        for table in self.tables(request):
            while len(table) < self.blocks_for(tokens):
                table.append(self._take())
                taken += 1
        return taken

    def seal(self, request: int, keys: Sequence[Key]) -> None:
        """The first blocks of a request are computed and full: later requests may use them under these keys."""
        held = self._held[request]
        for block, key in zip(held.tables[0][held.keyed :], keys[held.keyed :], strict=False):
            if key not in self._block_of:  # else another request computed the same chain at the same time
                self._key_of[block], self._block_of[key] = key, block
            held.keyed += 1

    def rearrange(self, request: int, parents: Sequence[int]) -> None:
        """Beams go on from other beams: new beam i continues old beam ``parents[i]`` and shares all its blocks."""
        old = self.tables(request)
        new = [list(old[parent]) for parent in parents]
        self._references.update(block for table in new for block in table)
        self._held[request].tables = new
        for table in old:
            self._let_go(table)

    def part(self, request: int, position: int) -> list[tuple[int, int]]:
        """Before beams write at a position: each gets a block of its own there -> (from, to) pairs to copy."""
        index = position // self.tokens_per_block
        pairs = []
        for table in self.tables(request):
            if self._references[shared := table[index]] > 1:
                table[index] = self._take()
                self._references[shared] -= 1
                pairs.append((shared, table[index]))
        return pairs

    def release(self, request: int) -> None:
        """A request lets go of all its blocks. The ends of its tables go first, so that beginnings are kept longest."""
        for table in self._held.pop(request).tables:
            self._let_go(table)

    # -- inside

    def _take(self) -> int:
        if self._free:
            block = self._free.popleft()
        else:
            block, _ = self._cached.popitem(last=False)  # KeyError: the scheduler gave away more than there is
            del self._block_of[self._key_of.pop(block)]
        self._references[block] = 1
        self.new_blocks += 1
        return block

    def _let_go(self, table: Sequence[int]) -> None:
        for block in reversed(table):
            self._references[block] -= 1
            if self._references[block] == 0:
                del self._references[block]
                if block in self._key_of:
                    self._cached[block] = None
                else:
                    self._free.append(block)

    def check(self) -> None:
        """Verify that no block is lost, given twice or kept under a wrong name.

        Raises:
            AssertionError: which rule is broken.
        """
        tables = [table for held in self._held.values() for table in held.tables]
        counted = Counter(block for table in tables for block in table)
        places = [*self._free, *self._cached, *counted]
        rules = {
            "every block is in exactly one place": sorted(places) == list(range(1, self.usable + 1)),
            "references count the tables": counted == +self._references,
            "no table holds a block twice": all(len(set(table)) == len(table) for table in tables),
            "keys and blocks are a one-to-one map": {k: b for b, k in self._key_of.items()} == self._block_of,
            "cached blocks have a key, free ones have none": set(self._cached) <= set(self._key_of)
            and not set(self._free) & set(self._key_of),
        }
        for rule, holds in rules.items():
            if not holds:
                raise AssertionError(f"{rule}: broken, with tables {tables}, free {list(self._free)}")
