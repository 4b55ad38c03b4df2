"""Direct labels: names at the ends of lines and numbers at the ends of bars, in place of a legend box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from labsupport.figures.style import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STROKES: Sequence[tuple[str, str]] = (("-", "o"), ("--", "s"), ("-.", "^"), (":", "D"), ("-", "v"), ("--", "P"))
"""Line style and marker of the first, second, ... line: what tells lines apart without color."""


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move ``places`` apart until neighbors are at least ``gap`` away, moving each as little as needed.

    Example:
        >>> spread([0.0, 0.0, 5.0], gap=1.0)
        [-0.5, 0.5, 5.0]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[list[int]] = []  # runs of labels that touch, each centered on the mean of its places

    def first(group: list[int]) -> float:
        return sum(places[index] for index in group) / len(group) - gap * (len(group) - 1) / 2

    for index in order:
        groups.append([index])
        while len(groups) > 1 and first(groups[-2]) + gap * len(groups[-2]) > first(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    moved = {index: first(group) + gap * rank for group in groups for rank, index in enumerate(group)}
    return [moved[index] for index in range(len(places))]


def label_ends(
    axes: Axes, theme: Theme, ends: Sequence[tuple[float, float]], names: Sequence[str], colors: Sequence[str]
) -> None:
    """Write each line's name to the right of the axes, level with its end, without overlaps.

    Args:
        axes: with its limits and scales already set.
        ends: the last point (x, y) of each line, in data units.
        names, colors: one a line; a name is written in the legible shade of its line.
    """
    height = axes.bbox.height / axes.figure.dpi * 72  # points
    levels = [axes.transAxes.inverted().transform(axes.transData.transform(end))[1] for end in ends]
    gap = 12 / max(height, 1)
    for level, end, name, color in zip(spread(levels, gap), ends, names, colors, strict=True):
        axes.annotate(
            name,
            xy=end,
            xytext=(1.03, level),
            textcoords="axes fraction",
            va="center",
            color=theme.legible(color),
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2},
        )


def level_bars(axes: Axes, names: Sequence[str], theme: Theme) -> None:
    """Prepare axes for horizontal bars: the first name on top, no ticks, no frame but the base line."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.spines["left"].set_color(theme.muted)
    axes.set_xticks([])
