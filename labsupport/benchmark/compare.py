"""Two results of the same load, by ratio: which differences are real, and which are a regression.

Absolute times belong to a machine and its day; a ratio of two runs on one machine says what a change did. The interval
comes from the bootstrap over both runs' requests. It knows the noise within a run and not that between runs: for a
verdict that must hold, run OLD and NEW in turn on the same machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labsupport.benchmark.resample import draws, interval, rate_samples
from labsupport.benchmark.served import Point, Report
from labsupport.benchmark.timeline import Timeline, window
from labsupport.errors import BenchmarkError, ParameterError

LATENCIES = {"TTFT": "ttft", "ITL": "itl", "request latency": "latency"}
RANKS = (50, 90)


@dataclass(frozen=True)
class Change:
    """One metric at one load level.

    Args:
        ratio: new by old, with the interval ``low`` to ``high``.
        more_is_better: as for rates.
        verdict: ``worse``, ``better``, ``same`` within the tolerance, or ``unclear``: the interval reaches beyond it.
    """

    load: str
    metric: str
    old: float
    new: float
    ratio: float
    low: float
    high: float
    more_is_better: bool
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """All metrics of all load levels that both results have."""

    tolerance: float
    changes: tuple[Change, ...]
    warnings: tuple[str, ...]

    @property
    def regressions(self) -> list[Change]:
        """What is worse by more than the tolerance, with the whole interval."""
        return [one for one in self.changes if one.verdict == "worse"]


def compare(old: Report, new: Report, tolerance: float = 0.1) -> Comparison:
    """Compare ``new`` with ``old``.

    Args:
        tolerance: 0.1: a latency may grow to 1.1 times, a rate fall to 1 / 1.1.

    Raises:
        BenchmarkError: the two measured different tasks.
        ParameterError: a tolerance below 0.
    """
    check_tolerance(tolerance)
    differing = [
        name for name in sorted({*old.settings, *new.settings}) if old.settings.get(name) != new.settings.get(name)
    ]
    counts = {"requests", "seconds", "warm-up", "seed"}  # more of the same task
    if task := [name for name in differing if name not in counts]:
        raise BenchmarkError(
            f"the two results are of different tasks: {', '.join(task)}",
            why="; ".join(f"{name}: {old.settings.get(name)} and {new.settings.get(name)}" for name in task),
            fix="measure both with the same options",
        )
    pairs = [(one, other) for one in old.points for other in new.points if one.load == other.load]
    if not pairs:
        raise BenchmarkError(
            "no load level is in both results",
            why=f"old: {_loads(old)}; new: {_loads(new)}",
            fix="the same --concurrency or --rate for both",
        )
    warnings = [] if old.cpu == new.cpu else [f"two machines: {old.cpu} and {new.cpu}: the ratio is theirs too"]
    warnings += [f"new failed {other.failed} requests, old {one.failed} ({one.load})" for one, other in pairs
                 if other.failed > one.failed]  # fmt: skip
    changes = [change for one, other in pairs for change in _changes(one, other, tolerance)]
    return Comparison(tolerance, tuple(changes), tuple(warnings))


def check_tolerance(tolerance: float) -> None:
    """Raises a ParameterError for one below 0."""
    if tolerance < 0:
        raise ParameterError(f"a tolerance of {tolerance}", why="it is a share", fix="--tolerance 0.1")


def _loads(report: Report) -> str:
    return ", ".join(point.load for point in report.points)


def _changes(old: Point, new: Point, tolerance: float) -> list[Change]:
    found = []
    for title, name in LATENCIES.items():
        before, after = _values(old.runs, name), _values(new.runs, name)
        if len(before) and len(after):
            for rank in RANKS:
                figure: Callable[..., NDArray[np.float64]] = np.percentile
                samples = [figure(values[draws(len(values), seed)], rank, axis=1)
                           for seed, values in enumerate((before, after))]  # fmt: skip
                pair = float(figure(before, rank)), float(figure(after, rank))
                found.append(change(old.load, f"{title} p{rank}", pair, samples, tolerance, more_is_better=False))
    pair = old.output_rate.value, new.output_rate.value
    samples = [_rates(old.runs, 0), _rates(new.runs, 1)]
    return [*found, change(old.load, "output tokens/s", pair, samples, tolerance, more_is_better=True)]


def _values(runs: Sequence[Timeline], name: str) -> NDArray[np.float64]:
    values = (getattr(one, name) for one in runs if one.is_good)
    return np.array([value for value in values if value is not None])


def _rates(runs: Sequence[Timeline], seed: int) -> NDArray[np.float64]:
    good = [one for one in runs if one.is_good]
    return rate_samples([(chunk.at, chunk.tokens) for one in good for chunk in one.chunks], *window(good), seed)


def change(
    load: str, metric: str, pair: tuple[float, float], samples: Sequence[NDArray[np.float64]], tolerance: float, *,
    more_is_better: bool,
) -> Change:  # fmt: skip
    """One metric, old and new, with resampled values of either."""
    low, high = interval(samples[1] / samples[0])
    return Change(load, metric, *pair, pair[1] / pair[0], low, high, more_is_better,
                  verdict(low, high, tolerance, more_is_better=more_is_better))  # fmt: skip


def verdict(low: float, high: float, tolerance: float, *, more_is_better: bool) -> str:
    """What an interval of the ratio new / old says.

    Example:
        >>> verdict(1.2, 1.4, 0.1, more_is_better=False), verdict(0.95, 1.3, 0.1, more_is_better=False)
        ('worse', 'unclear')
    """
    if more_is_better:
        low, high = 1 / high, 1 / low
    if low > 1 + tolerance:
        return "worse"
    if high < 1 / (1 + tolerance):
        return "better"
    return "same" if high <= 1 + tolerance and low >= 1 / (1 + tolerance) else "unclear"


def lines(found: Comparison) -> list[str]:
    """A line for each metric, and the verdict."""
    text = [f"{'':22}{'':18}{'old':>11}{'new':>11}{'new/old':>9}  interval of 95 %"]
    for one in found.changes:
        scale = 1.0 if one.more_is_better else 1e3
        name = one.metric if one.more_is_better else f"{one.metric}, ms"
        text.append(
            f"{one.load:18}{name:22}{scale * one.old:11.2f}{scale * one.new:11.2f}{one.ratio:9.3f}"
            f"  {one.low:.3f} to {one.high:.3f}  {one.verdict}"
        )
    text += [f"careful: {warning}" for warning in found.warnings]
    worse = len(found.regressions)
    return [*text, f"{worse} regression(s) beyond {found.tolerance:.0%}" if worse else "no regression"]
