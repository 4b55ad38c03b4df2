"""The block manager by hand: sharing, eviction, copy on write, and a check that sees what is wrong."""

from __future__ import annotations

import pytest

from labsupport.engine.blocks import ROOT, BlockManager, Key, chain_key


def keys_of(tokens: list[int], size: int = 4) -> list[Key]:
    keys: list[Key] = []
    for start in range(0, len(tokens) - size + 1, size):
        keys.append(chain_key(keys[-1] if keys else ROOT, tokens[start : start + size]))
    return keys


def served(blocks: BlockManager, request: int, tokens: list[int]) -> int:
    """A request that ran its whole prompt -> tokens that it found in the cache."""
    keys = keys_of(tokens)
    found = blocks.add(request, keys)
    blocks.grow(request, len(tokens))
    blocks.seal(request, keys)
    blocks.check()
    return found


def test_a_table_grows_by_whole_blocks() -> None:
    blocks = BlockManager(6, 4)
    blocks.add(0, [])
    assert [blocks.grow(0, tokens) for tokens in (1, 4, 5, 12)] == [1, 0, 1, 1]
    assert blocks.tables(0) == [[1, 2, 3]]
    assert (blocks.held(0), blocks.available, blocks.usable) == (3, 2, 5)
    blocks.check()


def test_the_same_beginning_is_shared_and_kept() -> None:
    blocks = BlockManager(12, 4)
    prefix = list(range(8))
    assert served(blocks, 0, [*prefix, 8, 9]) == 0
    assert served(blocks, 1, [*prefix, 7]) == 8
    assert blocks.tables(0)[0][:2] == blocks.tables(1)[0][:2]
    assert blocks.freed_by([0]) == 1  # the two of the prefix stay with request 1
    assert blocks.freed_by([0, 1]) == 4
    blocks.release(0)
    blocks.release(1)
    assert blocks.available == blocks.usable
    assert served(blocks, 2, [*prefix, 5]) == 8  # nobody held them, and they were still there
    assert blocks.reused_blocks == 4


def test_a_block_is_reused_only_with_everything_before_it() -> None:
    blocks = BlockManager(12, 4)
    served(blocks, 0, [1, 2, 3, 4, 5, 6, 7, 8])
    assert served(blocks, 1, [9, 2, 3, 4, 5, 6, 7, 8]) == 0
    assert served(blocks, 2, [1, 2, 3, 4, 0, 6, 7, 8]) == 4


def test_two_that_compute_the_same_at_once_keep_one_copy() -> None:
    blocks = BlockManager(12, 4)
    keys = keys_of([1, 2, 3, 4])
    for request in (0, 1):
        blocks.add(request, keys)
        blocks.grow(request, 5)
    blocks.seal(0, keys)
    blocks.seal(1, keys)
    blocks.check()
    assert blocks.match(keys) == blocks.tables(0)[0][:1]
    blocks.release(0)
    blocks.release(1)
    blocks.check()


def test_the_block_let_go_longest_ago_is_evicted_first_and_ends_before_beginnings() -> None:
    blocks = BlockManager(6, 4)
    old, new = [1] * 8, [2] * 8
    for request, tokens in enumerate((old, new)):
        served(blocks, request, tokens)
        blocks.release(request)
    blocks.add(2, [])
    blocks.grow(2, 8)  # one free block, then one that must be evicted
    blocks.check()
    assert [len(blocks.match(keys_of(tokens))) for tokens in (old, new)] == [1, 2]


def test_beams_share_until_they_write() -> None:
    blocks = BlockManager(12, 4)
    blocks.add(0, [])
    blocks.grow(0, 6)
    blocks.rearrange(0, [0, 0, 0])
    assert blocks.held(0) == 2
    pairs = blocks.part(0, 6)
    blocks.check()
    assert pairs == [(2, 3), (2, 4)]  # the last one keeps the original
    assert blocks.tables(0) == [[1, 3], [1, 4], [1, 2]]
    blocks.rearrange(0, [1, 1, 0])  # nobody continues beam 2: its block is free
    blocks.check()
    assert blocks.held(0) == 3
    assert blocks.part(0, 7) == [(4, 5)]
    blocks.release(0)
    blocks.check()
    assert blocks.available == 11


def test_an_empty_pool_gives_nothing() -> None:
    blocks = BlockManager(3, 4)
    blocks.add(0, [])
    with pytest.raises(KeyError):
        blocks.grow(0, 12)


@pytest.mark.parametrize("wrong", ["lost", "twice", "free and held", "references", "name"])
def test_check_sees_what_is_wrong(wrong: str) -> None:
    blocks = BlockManager(12, 4)
    served(blocks, 0, [1] * 8)
    if wrong == "lost":
        blocks._free.pop()
    elif wrong == "twice":
        blocks.tables(0)[0][1] = blocks.tables(0)[0][0]
    elif wrong == "free and held":
        blocks._free.append(blocks.tables(0)[0][0])
    elif wrong == "references":
        blocks._references[blocks.tables(0)[0][0]] += 1
    else:
        blocks._key_of[blocks._free[0]] = b"what another block holds"
    with pytest.raises(AssertionError, match="broken"):
        blocks.check()
