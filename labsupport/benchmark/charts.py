"""Measurements as pictures: their numbers, handed to the figures' room."""

from __future__ import annotations

from labsupport.benchmark.catalogue import OURS
from labsupport.benchmark.engines import Found
from labsupport.benchmark.resample import Estimate
from labsupport.benchmark.served import Point, Report
from labsupport.figures.engines import EngineBar, engine_bars
from labsupport.figures.figure import LabFigure
from labsupport.figures.load import Lane, Level, Spot, lanes, pareto, ribbons


def spot(value: Estimate, scale: float = 1.0) -> Spot:
    """An estimate for a figure."""
    return Spot(scale * value.value, scale * value.low, scale * value.high)


def level(one: Point) -> Level:
    """A load level of a curve: its 90th percentile of the gap between tokens, and its rate."""
    gap = one.itl or one.ttft
    return Level(one.load.replace("concurrency ", ""), spot(gap.p90, 1e3), spot(one.output_rate))


def chart_of(found: Report) -> LabFigure:
    """Throughput against latency, with the objective's box and the highest limit of the machine."""
    limits = [one.share.output_limit for one in found.points if one.share]
    levels = [level(one) for one in found.points]
    best = max(levels, key=lambda one: one.rate.value)
    alt = (
        f"{found.target}: {len(levels)} load levels; the most is {best.rate.value:.0f} output tokens a second at "
        f"{best.load}, with a gap of {best.latency.value:.0f} ms between tokens (90th percentile)."
    )
    slo = found.slo.itl * 1e3 if found.slo.itl else None
    return pareto({found.target: levels}, alt=alt, slo=slo, roofline=max(limits, default=None))


def waiting(points: list[Point], *, alt: str, badge: str = "measured here") -> LabFigure:
    """Percentiles of the time to the first token over the load."""
    loads = [float(one.load.split()[1].removesuffix("/s")) for one in points]
    lines = {rank: [spot(getattr(one.ttft, rank), 1e3) for one in points] for rank in ("p50", "p90", "p99")}
    closed = points[0].load.startswith("concurrency")
    return ribbons(loads, lines, alt=alt, load="users at once" if closed else "requests a second", badge=badge)


def lanes_of(one: Point, *, alt: str, most: int = 16) -> LabFigure:
    """The first requests of a load level in time."""
    good = [Lane(run.due, run.sent, [chunk.at for chunk in run.chunks]) for run in one.runs if run.is_good]
    return lanes(good, alt=alt, most=most, title=one.load)


def engines_chart(found: Found) -> LabFigure:
    """A bar for each engine and precision, beside the line of the memory's bandwidth."""
    bars = [
        EngineBar(row.title, row.precision, row.decode.median, row.decode.low, row.decode.high,
                  row.decode.median / row.share, ours=row.peer == OURS)
        for row in found.rows
    ]  # fmt: skip
    best = {bar.precision: bar for bar in sorted(bars, key=lambda bar: bar.rate)}  # the last of a precision stays
    said = "; ".join(f"{name}: {bar.engine} leads with {bar.rate:.0f}" for name, bar in best.items())
    return engine_bars(
        bars, alt=f"{found.model}, decoded tokens a second. {said}.", title=f"{found.model}: decode, tokens a second"
    )
