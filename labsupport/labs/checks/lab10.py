"""Checks of lab 10, model validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from labsupport.decoding import Xorwow, inverse_cdf
from labsupport.labs.checks import exercise, expect, expect_close, expect_equal
from labsupport.validation.mutations.blind import levels

Array = NDArray[np.float64]
ANSWERS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7", "healthy")


def violations(logits: Array, ids: Sequence[int], delta: float) -> list[int]:
    """Places where the token's logit is more than 2 delta behind the largest.

    Args:
        logits: [n, V], the reference's.
        ids: [n], what the server chose.
        delta: how far a logit may honestly be off.
    """
    behind = logits.max(axis=-1) - logits[np.arange(len(ids)), list(ids)]
    return [int(place) for place in np.flatnonzero(behind > 2 * delta)]


def transform(probs: Array, token: int, v: float) -> float:
    """A randomized probability integral transform: uniform if the token was drawn from probs [V].

    Args:
        probs: the distribution.
        token: what was drawn.
        v: uniform in (0, 1), from a stream of its own.
    """
    p = probs[token]
    likelier = probs > p
    equal_before = (probs == p) & (np.arange(len(probs)) < token)
    return float(probs[likelier | equal_before].sum() + v * p)


def replay(probs: Array, ids: Sequence[int], seed: int) -> int:
    """How many tokens are not those that the seed draws from probs [n, V], one uniform a token."""
    stream = Xorwow(seed)
    return sum(inverse_cdf(row, stream.uniform()) != id for row, id in zip(probs, ids, strict=True))


def runs_needed(share: float, miss: float) -> int:
    """The fewest requests with which a fault that shows in a share of them is missed with at most ``miss``."""
    return math.ceil(math.log(miss) / math.log1p(-share))


@exercise("10.1", reference=violations)
def near_ties(attempt: Callable[[Array, Sequence[int], float], Sequence[int]]) -> None:
    """Favorites, a near-tie, a fault, and one exactly at the limit."""
    logits = np.array([[5.0, 4.9, 0.0], [5.0, 4.5, 0.0], [1.0, 3.0, 2.0], [2.0, 1.5, 0.0]])
    for ids, delta in (([0, 0, 1, 0], 0.1), ([1, 0, 1, 0], 0.1), ([1, 1, 2, 0], 0.1), ([1, 1, 2, 1], 0.25)):
        got = attempt(logits.copy(), list(ids), delta)
        expect(isinstance(got, (list, tuple, np.ndarray)), f"expected a list of places; you got {got!r}")
        expect_equal(
            [int(place) for place in got],
            violations(logits, ids, delta),
            given=f"logits={logits.tolist()}, ids={ids}, delta={delta}",
        )


@exercise("10.2", reference=transform)
def uniform(attempt: Callable[[Array, int, float], float]) -> None:
    """Each token of small distributions, one with equal probabilities."""
    for probs in (np.array([0.1, 0.6, 0.3]), np.array([0.25, 0.25, 0.5]), np.array([0.0, 1.0])):
        for token in np.flatnonzero(probs):
            for v in (0.25, 0.5):
                expect_close(
                    attempt(probs.copy(), int(token), v), transform(probs, int(token), v),
                    given={"probs": probs, "token": int(token), "v": v}, atol=1e-9,
                )  # fmt: skip


@exercise("10.3", reference=replay)
def same_seed(attempt: Callable[[Array, Sequence[int], int], int]) -> None:
    """Honest answers of several seeds, then one that is off in two places, then a wrong seed."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(6, 0.7), size=12)
    for seed in (0, 42, (1 << 63) + 1):
        stream = Xorwow(seed)
        ids = [inverse_cdf(row, stream.uniform()) for row in probs]
        other = [*ids[:3], (ids[3] + 1) % 6, *ids[4:9], (ids[9] + 1) % 6, *ids[10:]]
        for told, written, asked in (("an honest answer", ids, seed), ("two tokens changed", other, seed),
                                     ("another seed's answer", ids, seed ^ 5)):  # fmt: skip
            expect_equal(int(attempt(probs.copy(), list(written), asked)), replay(probs, written, asked),
                         given=f"{told}, seed {asked}")  # fmt: skip


@exercise("10.4", reference=runs_needed)
def how_many(attempt: Callable[[float, float], int]) -> None:
    """One picked at random, then shares and risks."""
    for share, miss in ((0.05, 0.95), (0.05, 0.05), (0.005, 0.05), (0.1, 0.001), (0.5, 0.01)):
        expect_equal(int(attempt(share, miss)), runs_needed(share, miss), given={"share": share, "miss": miss})


@exercise("10.5", reference=levels())
def blind(attempt: Mapping[str, str]) -> None:
    """Five letters, each with a level or healthy; nothing right is given away."""
    expect(isinstance(attempt, Mapping), f"expected a dict such as {{'A': 'L2'}}; you got {attempt!r}")
    for letter, right in levels().items():
        expect(letter in attempt, f"Server {letter} is missing.")
        said = str(attempt[letter])
        expect(said in ANSWERS, f"Server {letter}: {said!r} is neither a level, L0 to L7, nor healthy.")
        expect(said == right, f"Server {letter}: you say {said}. Run its ladder again: {_clue(said, right)}.")


def _clue(said: str, right: str) -> str:
    if said == "healthy":
        return "one of its levels fails"
    if right == "healthy":
        return "nothing fails"
    return f"{said} passes" if said < right else "a lower level fails already"
