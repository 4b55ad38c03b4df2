"""Checks of lab 12, batching and paged KV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from labsupport.labs.checks import exercise, expect, expect_close, expect_equal

LENGTHS, SLOTS = (2, 9, 4, 3, 8, 2, 5), 3  # of exercise 12.1


class Ask(NamedTuple):
    """A request as a scheduler sees it.

    Args:
        id: its number.
        prompt: tokens that it is let in with.
        last: tokens that will be in the cache when it writes its last one.
        held: blocks that it holds now.
    """

    id: int
    prompt: int
    last: int
    held: int = 0


def static_steps(lengths: Sequence[int], slots: int) -> int:
    """Iterations of static batching: each batch lasts as long as its longest request."""
    return sum(max(lengths[first : first + slots]) for first in range(0, len(lengths), slots))


def inflight_steps(lengths: Sequence[int], slots: int) -> int:
    """Iterations when each slot takes the next request as soon as it is free."""
    ends = [0] * slots
    for length in lengths:
        ends[ends.index(min(ends))] += length
    return max(ends)


def empty_share(lengths: Sequence[int], block: int) -> float:
    """Share of the rows in all taken blocks that hold no token, for sequences of ``lengths`` cached tokens."""
    taken = sum(-(-length // block) for length in lengths) * block
    return 1 - sum(lengths) / taken


def gather(pool: Tensor, table: Sequence[int], length: int) -> Tensor:
    """Keys of one sequence in the order of its text: pool [blocks, block, heads, size] -> [length, heads, size]."""
    return pool[list(table)].flatten(0, 1)[:length]


def schedule(
    waiting: Sequence[Ask], running: Sequence[Ask], free: int, slots: int, budget: int, block: int
) -> list[int]:
    """Whom to let in, under guaranteed_no_evict, when every running request generates one token.

    Args:
        waiting: in order of arrival.
        running: with the blocks that each holds.
        free: blocks that nobody holds.
        slots, budget: max_batch_size and max_num_tokens.
        block: tokens in a block.

    Returns:
        Ids of those who enter, in their order; nobody overtakes.
    """
    free -= sum(-(-job.last // block) - job.held for job in running)
    budget -= len(running)
    entering: list[int] = []
    for job in waiting:
        blocks = -(-job.last // block)
        if len(running) + len(entering) == slots or blocks > free or job.prompt > budget:
            break
        entering.append(job.id)
        free, budget = free - blocks, budget - job.prompt
    return entering


def reused(prompt: Sequence[int], before: Sequence[int], block: int) -> int:
    """Tokens of ``prompt`` that need not be computed, when ``before`` has been: whole blocks, and never all of it."""
    common = next((i for i, (a, b) in enumerate(zip(prompt, before, strict=False)) if a != b), None)
    common = min(len(prompt), len(before)) if common is None else common
    return min(common, len(prompt) - 1) // block * block


@exercise("12.1", reference=(static_steps(LENGTHS, SLOTS), inflight_steps(LENGTHS, SLOTS)))
def steps(attempt: tuple[int, int]) -> None:
    """A count each; the hint does not give the number away."""
    expect(isinstance(attempt, tuple) and len(attempt) == 2, "Hand in two numbers: static, in flight")
    static, inflight = attempt
    expect(
        static == static_steps(LENGTHS, SLOTS),
        f"static: {static} is not it. Cut the list in batches of {SLOTS}; each lasts as long as its longest request",
    )
    expect(
        inflight == inflight_steps(LENGTHS, SLOTS),
        f"in flight: {inflight} is not it. Draw {SLOTS} lines; the next request always goes where a line ends first",
    )


@exercise("12.2", reference=empty_share)
def empty(attempt: Callable[[Sequence[int], int], float]) -> None:
    """One sequence, an exact fit, unequal ones, blocks of one token."""
    for lengths, block in [([5], 4), ([8], 4), ([1, 31, 32], 32), ([3, 5, 7], 1), ([100, 1, 1], 64)]:
        given = f"lengths={lengths}, block={block}"
        expect_close(attempt(lengths, block), empty_share(lengths, block), given=given)


@exercise("12.3", reference=gather)
def through_the_table(attempt: Callable[[Tensor, list[int], int], Tensor]) -> None:
    """Keys that say where they stand: block, then row."""
    pool = torch.arange(5 * 2 * 1 * 1, dtype=torch.float32).view(5, 2, 1, 1)
    for table, length in [([1], 2), ([1, 2], 3), ([4, 1], 4), ([3, 4, 1], 5), ([2], 1)]:
        want, given = gather(pool, table, length), f"blocks of 2, table={table}, length={length}"
        got = attempt(pool.clone(), table, length)
        expect(isinstance(got, Tensor), f"For {given}: return a tensor")
        expect(got.shape == want.shape, f"For {given}: the shape is {tuple(got.shape)}, expected {tuple(want.shape)}")
        expect_close(got.flatten(), want.flatten(), given=f"{given}, keys")


@exercise("12.4", reference=schedule)
def let_in(attempt: Callable[..., list[int]]) -> None:
    """Slots, room, promises, budget and order, one after the other, then all together."""
    short, long, tiny = Ask(1, 4, 6), Ask(2, 4, 40), Ask(3, 2, 3)
    cases: list[tuple[list[Ask], list[Ask], int, int, int, int]] = [
        ([short, tiny], [], 9, 4, 64, 4),
        ([short, tiny], [], 9, 1, 64, 4),
        ([short, tiny], [Ask(7, 4, 8, 2)], 9, 2, 64, 4),
        ([long, tiny], [], 9, 4, 64, 4),
        ([short, tiny], [Ask(7, 4, 16, 1)], 4, 4, 64, 4),
        ([short, tiny], [Ask(7, 4, 16, 1)], 5, 4, 64, 4),
        ([short, tiny], [], 9, 4, 5, 4),
        ([short, tiny], [Ask(7, 4, 8, 2)], 9, 4, 4, 4),
        ([short, Ask(2, 4, 8), tiny], [Ask(7, 4, 8, 2), Ask(8, 3, 12, 2)], 6, 8, 12, 4),
        ([], [Ask(7, 4, 8, 2)], 3, 4, 64, 4),
    ]
    for case in cases:
        waiting, running, *numbers = case
        names = ("free", "slots", "budget", "block")
        given = f"waiting={[tuple(a) for a in waiting]}, running={[tuple(a) for a in running]}, " + ", ".join(
            f"{name}={number}" for name, number in zip(names, numbers, strict=True)
        )
        got = attempt(list(waiting), list(running), *numbers)
        expect(isinstance(got, list), f"For {given}: return a list of ids")
        expect_equal(got, schedule(*case), given=given)


@exercise("12.5", reference=reused)
def beginnings(attempt: Callable[[list[int], list[int], int], int]) -> None:
    """Nothing in common, a part of a block, whole blocks, the very same prompt, a difference at the start."""
    text = list(range(1, 13))
    cases = [
        (text, [99, *text[1:]], 4),
        (text, [*text[:3], 99], 4),
        (text, [*text[:9], 99, 99], 4),
        (text, text[:8], 4),
        (text, text, 4),
        (text[:9], text, 4),
        ([1, 2, 3, 4, 99, 6, 7, 8, 9], text, 4),
        ([1, 1, 1], [1, 1, 1], 1),
    ]
    for prompt, before, block in cases:
        expect_equal(
            attempt(list(prompt), list(before), block),
            reused(prompt, before, block),
            given=f"prompt={prompt}, before={before}, block={block}",
        )
