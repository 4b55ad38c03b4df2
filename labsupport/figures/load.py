"""Load tests: throughput against latency with the box of an objective, percentiles over load, requests in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import label_ends
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = ("o", "s", "^", "D")
COLORS = ("generated", "prompt", "kept", "chosen")


@dataclass(frozen=True)
class Spot:
    """A figure with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Level:
    """One load level of a curve.

    Args:
        load: the words beside its mark.
        latency: what the user waits, in milliseconds.
        rate: what the server gives, in tokens a second.
    """

    load: str
    latency: Spot
    rate: Spot


@dataclass(frozen=True)
class Lane:
    """One request in time, in seconds: due, sent, and each content that came."""

    due: float
    sent: float
    chunks: Sequence[float]


def pareto(
    curves: Mapping[str, Sequence[Level]],
    *,
    alt: str,
    slo: float | None = None,
    roofline: float | None = None,
    latency: str = "gap between tokens, p90, ms",
    title: str = "What the server gives, and what its users wait",
    badge: str = "measured here",
) -> LabFigure:
    """Throughput over latency, a curve each server, whiskers of 95 %; good is up and left.

    Args:
        curves: name -> levels in the order of the load.
        slo: the limit of the latency: points in the box keep it.
        roofline: tokens a second that the machine cannot beat.

    Raises:
        ParameterError: no levels.
    """
    if not curves or not all(curves.values()):
        raise ParameterError("a curve without levels", why="there is nothing to draw", fix="measure at least one load")
    levels = [level for curve in curves.values() for level in curve]
    right = 1.18 * max(*(level.latency.high for level in levels), slo or 0)
    top = 1.15 * max(*(level.rate.high for level in levels), roofline or 0)

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(3.6)
        if slo:
            axes.axvspan(0, slo, color=ROLES["kept"], alpha=0.14, linewidth=0)
            axes.axvline(slo, color=ROLES["kept"], linewidth=1.0)
            axes.text(slo, 0.02 * top, f" objective: {slo:.3g} ms", color=theme.ink, fontsize=8, ha="left")
        if roofline:
            axes.axhline(roofline, color=theme.ink, linestyle="--", linewidth=1.0)
            axes.annotate(f"limit of the machine: {roofline:.0f}", (right, roofline), xytext=(0, 3), ha="right",
                          textcoords="offset points", fontsize=8)  # fmt: skip
        for number, (name, curve) in enumerate(curves.items()):
            _curve(axes, name, curve, number, theme)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        axes.set(xlim=(0, right), ylim=(0, top), xlabel=latency, ylabel="output tokens a second")
        axes.grid()
        axes.set_title(title)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _curve(axes: Axes, name: str, curve: Sequence[Level], number: int, theme: Theme) -> None:
    color = ROLES[COLORS[number % len(COLORS)]]
    x, y = [level.latency.value for level in curve], [level.rate.value for level in curve]
    thin: dict[str, Any] = {"color": color, "linewidth": 1.0, "alpha": 0.7}
    for level in curve:
        axes.plot(
            [level.latency.low, level.latency.high], [level.rate.value] * 2, color=color, linewidth=1.0, alpha=0.7
        )
        axes.plot([level.latency.value] * 2, [level.rate.low, level.rate.high], **thin)
        axes.annotate(
            level.load, (level.latency.value, level.rate.value), xytext=(5, 7 if number % 2 == 0 else -12),
            textcoords="offset points", fontsize=8,
            color=theme.ink, bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )  # fmt: skip
    axes.plot(x, y, color=color, marker=MARKS[number % len(MARKS)], markersize=5, label=name, linewidth=1.4)


def ribbons(
    loads: Sequence[float],
    percentiles: Mapping[str, Sequence[Spot]],
    *,
    alt: str,
    load: str = "requests a second",
    latency: str = "time to first token, ms",
    title: str = "Percentiles over the load",
    logarithmic: bool = False,
    badge: str = "measured here",
) -> LabFigure:
    """A line for each percentile over the load, in a ribbon of its interval.

    Raises:
        ParameterError: lines whose length differs from that of ``loads``.
    """
    if not percentiles or any(len(line) != len(loads) for line in percentiles.values()):
        raise ParameterError("a percentile misses a load", why="each load has one value", fix="as many values as loads")
    shown = dict(zip(percentiles, COLORS, strict=False))

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(3.0)
        for number, (name, line) in enumerate(percentiles.items()):
            color = ROLES[shown[name]]
            axes.fill_between(loads, [one.low for one in line], [one.high for one in line], color=color, alpha=0.2,
                              linewidth=0)  # fmt: skip
            axes.plot(loads, [one.value for one in line], color=color, marker=MARKS[number], markersize=4)
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(0)
        axes.margins(x=0.03)
        axes.set(xlabel=load, ylabel=latency)
        axes.grid()
        axes.set_title(title)
        ends = [(float(loads[-1]), line[-1].value) for line in percentiles.values()]
        label_ends(axes, theme, ends, list(percentiles), [ROLES[shown[name]] for name in percentiles])
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def lanes(
    requests: Sequence[Lane], *, alt: str, most: int = 16, title: str = "Requests in time", badge: str = "measured here"
) -> LabFigure:
    """A lane for each request: due until sent (hatched), sent until first content (outline), then a tick a content.

    Args:
        most: lanes that are drawn, the first ones.

    Raises:
        ParameterError: no requests, or one without content.
    """
    if not requests or any(not lane.chunks for lane in requests):
        raise ParameterError("a request without content", why="its lane would be empty", fix="leave failed ones out")
    kept = sorted(requests, key=lambda lane: lane.due)[:most]

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(0.9 + 0.2 * len(kept))
        for row, lane in enumerate(kept):
            first, last = lane.chunks[0], lane.chunks[-1]
            if lane.sent - lane.due > 1e-3:
                axes.barh(row, lane.sent - lane.due, left=lane.due, height=0.7, **theme.fill("chosen"))
            axes.barh(row, first - lane.sent, left=lane.sent, height=0.7, **theme.fill("free"))
            axes.barh(row, last - first, left=first, height=0.7, color=ROLES["generated"], alpha=0.35)
            axes.vlines(lane.chunks, row - 0.35, row + 0.35, color=ROLES["generated"], linewidth=0.8)
        axes.set_yticks(range(len(kept)), [str(row + 1) for row in range(len(kept))], fontsize=7)
        axes.invert_yaxis()
        axes.set(xlabel="seconds", ylabel="request", xlim=(min(lane.due for lane in kept), None))
        axes.set_title(f"{title}: outlined = waiting for the first token, a tick = a token", fontsize=9)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def strips(
    groups: Mapping[str, Sequence[float]],
    *,
    alt: str,
    xlabel: str = "seconds that a request took",
    title: str = "Every request, and three figures",
    badge: str = "measured here",
) -> LabFigure:
    """A strip of dots for each group, one dot a value, with mean, median and 99th percentile; the axis is logarithmic.

    Raises:
        ParameterError: a group without values, or a value of 0 or less.
    """
    if not groups or any(not len(values) or min(values) <= 0 for values in groups.values()):
        raise ParameterError("a strip without dots", why="a logarithmic axis has no 0", fix="give positive values")

    def draw(theme: Theme) -> Figure:
        import numpy as np

        figure, axes = theme.figure(0.9 + 0.85 * len(groups))
        chance = np.random.default_rng(0)
        for row, values in enumerate(groups.values()):
            array = np.asarray(values, dtype=np.float64)
            heights = row + chance.uniform(-0.2, 0.2, len(array))
            axes.plot(array, heights, ".", color=ROLES["generated"], markersize=4, alpha=0.6, markeredgewidth=0)
            marks = [("mean", array.mean(), 0.3, (0, -9), "center"),
                     ("p50", np.percentile(array, 50), -0.3, (-1, 2), "right"),
                     ("p99", np.percentile(array, 99), -0.3, (1, 2), "left")]  # fmt: skip
            for color, (name, value, side, offset, align) in zip(COLORS[1:], marks, strict=True):
                axes.plot([value, value], [row - 0.3, row + 0.3], color=ROLES[color], linewidth=2)
                axes.annotate(
                    name, (value, row + side), xytext=offset, textcoords="offset points", ha=align, fontsize=8
                )
        axes.set_yticks(range(len(groups)), list(groups))
        axes.set_ylim(len(groups) - 0.35, -0.65)
        axes.set_xscale("log")
        everything = [value for values in groups.values() for value in values]
        low, high = min(everything), max(everything)
        room = 1.4 if high > 5 * low else 3.0  # values that are nearly equal do not fill the axis
        axes.set_xlim(low / room, high * room)
        axes.grid(axis="x")
        axes.set_xlabel(xlabel)
        axes.set_title(title)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)
