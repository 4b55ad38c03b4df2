"""Percentiles, and how far they can be trusted: the bootstrap (Efron 1979).

Draw as many requests as there were, with replacement, and compute the figure again; the middle 95 % of a thousand such
figures is its interval. Requests are drawn, not tokens: the gaps of one request hang together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from labsupport.errors import BenchmarkError

Array = NDArray[np.float64]
DRAWS = 1000
LEVEL = 0.95
SLICES = 10


class Estimate(BaseModel, frozen=True):
    """A figure with its interval of 95 %."""

    value: float
    low: float
    high: float


class Distribution(BaseModel, frozen=True):
    """Mean and percentiles of one metric over requests (or over gaps)."""

    count: int
    mean: Estimate
    p50: Estimate
    p90: Estimate
    p99: Estimate


def draws(count: int, seed: int = 0, times: int = DRAWS) -> NDArray[np.int64]:
    """Which of ``count`` things each of ``times`` samples takes: int64 [times, count]."""
    return np.random.default_rng(seed).integers(0, count, (times, count))


def interval(samples: Array) -> tuple[float, float]:
    """The middle 95 % of ``samples``."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def estimate(values: Sequence[float], figure: Callable[..., Array], seed: int = 0) -> Estimate:
    """``figure`` of the values, with its interval; it takes an array and ``axis``, as ``numpy.mean`` does."""
    array = np.asarray(values, dtype=np.float64)
    low, high = interval(figure(array[draws(len(array), seed)], axis=1))
    return Estimate(value=float(figure(array, axis=0)), low=low, high=high)


def percentile(rank: float) -> Callable[..., Array]:
    """The figure ``percentile(99)``, for :func:`estimate`."""

    def figure(array: Array, axis: int) -> Array:
        return np.asarray(np.percentile(array, rank, axis=axis))

    return figure


def distribution(values: Sequence[float], seed: int = 0) -> Distribution:
    """Mean and percentiles of one value a request.

    Raises:
        BenchmarkError: no values.
    """
    if not len(values):
        raise BenchmarkError(
            "a metric without a value",
            why="no request gave it; a gap between tokens needs at least two tokens",
            fix="ask for more output tokens, and for streaming",
        )
    ranks = {f"p{rank}": estimate(values, percentile(rank), seed) for rank in (50, 90, 99)}
    return Distribution(count=len(values), mean=estimate(values, np.mean, seed), **ranks)


def grouped(groups: Sequence[Sequence[float]], seed: int = 0, times: int = 300) -> Distribution:
    """The same of many values a request: whole requests are drawn, and all their values with them."""
    arrays = [np.asarray(group, dtype=np.float64) for group in groups if len(group)]
    everything = np.concatenate(arrays)
    figures = np.array(
        [_four(np.concatenate([arrays[at] for at in row])) for row in draws(len(arrays), seed, times)]
    )  # [times, 4]
    parts = []
    for column, value in enumerate(_four(everything)):
        low, high = interval(figures[:, column])
        parts.append(Estimate(value=value, low=low, high=high))
    return Distribution(count=len(everything), mean=parts[0], p50=parts[1], p90=parts[2], p99=parts[3])


def _four(array: Array) -> list[float]:
    return [float(array.mean()), *map(float, np.percentile(array, [50, 90, 99]))]


def rate_samples(events: Sequence[tuple[float, float]], begin: float, end: float, seed: int = 0) -> Array:
    """Rates that a repeated run might give: float64 [DRAWS].

    The time from ``begin`` to ``end`` is cut into ten slices; slices are drawn, since neighbors in time hang together.

    Args:
        events: when something came, and how much.
    """
    edges = np.linspace(begin, end, SLICES + 1)
    times, amounts = np.array([at for at, _ in events]), np.array([amount for _, amount in events], dtype=np.float64)
    sums, _ = np.histogram(times, edges, weights=amounts)
    return np.asarray(sums[draws(SLICES, seed)].mean(axis=1) * SLICES / (end - begin))
