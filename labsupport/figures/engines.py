"""Engines side by side: a bar for each, and the line that the memory's bandwidth draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import level_bars
from labsupport.figures.style import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class EngineBar:
    """One engine at one precision; rates in tokens a second.

    Args:
        precision: the group that it stands in.
        rate: the median of its rounds.
        low, high: the slowest and the fastest round.
        limit: what the memory bandwidth allows at this precision.
        ours: drawn as the one to look at.
    """

    engine: str
    precision: str
    rate: float
    low: float
    high: float
    limit: float
    ours: bool = False


def engine_bars(
    bars: Sequence[EngineBar], *, alt: str, title: str = "Decode, tokens a second", badge: str = "measured here"
) -> LabFigure:
    """A panel for each precision: a bar an engine, a whisker over its rounds, a dashed line at the roofline.

    Args:
        bars: in reading order; the bars of a precision stand together.

    Raises:
        ParameterError: no bars, or a rate outside its own range.
    """
    if not bars or any(not 0 < bar.low <= bar.rate <= bar.high for bar in bars):
        raise ParameterError(
            "no bars, or a rate not between its slowest and its fastest round",
            why="a bar shows the median of rounds that took some time",
            fix="give each engine its median, lowest and highest rate",
        )
    groups = {name: [bar for bar in bars if bar.precision == name] for name in dict.fromkeys(b.precision for b in bars)}

    def draw(theme: Theme) -> Figure:
        sizes = [len(group) for group in groups.values()]
        figure, panels = theme.figure(
            0.8 + 0.3 * sum(sizes) + 0.35 * len(sizes), len(sizes), 1, sharex=True, squeeze=False, height_ratios=sizes
        )
        for axes, (precision, group) in zip(panels[:, 0], groups.items(), strict=True):
            _panel(axes, precision, group, theme)
        widest = max(max(bar.high, bar.limit) for bar in bars)
        panels[-1, 0].set_xlim(0, 1.16 * widest)
        panels[-1, 0].set_xlabel(
            "bar: median, line: slowest to fastest round, dashes: memory bandwidth", color=theme.muted, fontsize=8
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=theme.ink)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _panel(axes: Axes, precision: str, group: Sequence[EngineBar], theme: Theme) -> None:
    plain = {"facecolor": theme.soft, "edgecolor": theme.muted, "linewidth": 0.6}
    for row, bar in enumerate(group):
        axes.barh(row, bar.rate, height=0.62, **(theme.fill("generated") if bar.ours else plain))
        axes.plot([bar.low, bar.high], [row, row], color=theme.ink, linewidth=1.2)
        axes.annotate(
            f"{bar.rate:.0f}", (bar.high, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8,
            bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    limit = group[0].limit
    axes.axvline(limit, color=theme.ink, linestyle="--", linewidth=1.0)
    axes.set_title(f"{precision}, at most {limit:.0f}", fontsize=9)
    level_bars(axes, [bar.engine for bar in group], theme)
    axes.grid(axis="x")
