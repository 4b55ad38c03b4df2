"""Quantization as pictures: a histogram on its grid, number lines, levels, ranges, nibbles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RULED = 40  # levels that can be told apart as rules; more become a band of ticks


def weight_grid(
    weights: ArrayLike,
    levels: ArrayLike,
    *,
    alt: str,
    note: str = "",
    span: float | None = None,
    error: float | None = None,
    badge: str = "measured here",
) -> LabFigure:
    """A histogram of weights with the values that survive rounding; below it the error that each weight gets.

    Args:
        weights: any shape.
        levels: [n], the values of the grid, rising. What lies more than half a step outside of it is cut.
        note: a line over the histogram.
        span: the x axis reaches from -span to span; to the largest weight or level where missing.
        error: the same for the error's axis; to the largest error where missing.

    Raises:
        ParameterError: no weights, or fewer than two levels.
    """
    values = np.asarray(weights, dtype=np.float64).ravel()
    grid = np.unique(np.asarray(levels, dtype=np.float64))
    if not values.size or grid.size < 2:
        raise ParameterError(
            f"{values.size} weights and {grid.size} levels",
            why="a grid has at least two values, and something is rounded to it",
            fix="give the weights, and scale * arange(-8, 8)",
        )
    reach = float(span or max(np.abs(values).max(), np.abs(grid).max()) * 1.04)
    low, high = grid[0] - (grid[1] - grid[0]) / 2, grid[-1] + (grid[-1] - grid[-2]) / 2

    def draw(theme: Theme) -> Figure:
        figure, rows = theme.figure(height=2.9, rows=2, sharex=True, height_ratios=[2.4, 1])
        edges = np.linspace(-reach, reach, 122)
        centers = (edges[1:] + edges[:-1]) / 2
        shares = np.histogram(values, edges)[0] / values.size
        inside = (centers >= low) & (centers <= high)
        for keep, role in ((inside, "kept"), (~inside, "removed")):
            rows[0].bar(centers[keep], shares[keep], width=edges[1] - edges[0], **theme.fill(role) | {"linewidth": 0})
        rows[0].set_yscale("log")
        rows[0].set_ylim(0.3 / values.size, 1.5)
        rows[0].set_ylabel("share")
        rows[0].set_title(note, fontsize=9)
        x = np.linspace(-reach, reach, 2401)
        rows[1].plot(x, x - _nearest(x, grid), color=ROLES["chosen"], linewidth=1.1)
        rows[1].axhline(0, color=theme.muted, linewidth=0.6)
        rows[1].set_ylabel("error")
        rows[1].set_ylim(*((-error, error) if error else rows[1].get_ylim()))
        rows[1].set_xlabel("weight")
        rows[1].set_xlim(-reach, reach)
        for axes in rows:
            _rules(axes, theme, grid)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def number_lines(lines: Mapping[str, ArrayLike], *, alt: str, badge: str = "diagram") -> LabFigure:
    """One number line a format, a tick for each value that it can hold; all lines share one axis.

    Args:
        lines: name -> [n] values.

    Raises:
        ParameterError: no lines.
    """
    if not lines:
        raise ParameterError("no number lines", why="each format is one line", fix="give a name and its values")
    ticks = {name: np.asarray(values, dtype=np.float64) for name, values in lines.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.55 + 0.5 * len(ticks))
        for row, values in enumerate(ticks.values()):
            axes.hlines(row, values.min(), values.max(), color=theme.muted, linewidth=0.6)
            width = 1.4 if values.size <= RULED else 0.5
            axes.vlines(values, row - 0.3, row + 0.3, color=theme.ink, linewidth=width)
        axes.set_yticks(range(len(ticks)), list(ticks))
        axes.set_ylim(len(ticks) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def block_levels(values: ArrayLike, block: int, levels: Sequence[ArrayLike] = (), *, alt: str) -> LabFigure:
    """Neighboring weights as dots, block by block, over the rules of the levels that each block uses.

    Args:
        values: [n] weights of one row, n a multiple of ``block``.
        block: weights in a block.
        levels: one array a block; the distinct values of the block where none are given.

    Raises:
        ParameterError: the weights are no whole number of blocks, or the levels are not one array a block.
    """
    weights = np.asarray(values, dtype=np.float64).ravel()
    blocks = weights.reshape(-1, block) if block > 0 and weights.size % block == 0 else weights[:0].reshape(0, 1)
    if not blocks.size or (levels and len(levels) != len(blocks)):
        raise ParameterError(
            f"{weights.size} weights in blocks of {block}, and {len(levels)} grids",
            why="each block has its own grid",
            fix="give a whole number of blocks, and one grid a block or none",
        )
    grids = [np.asarray(each, dtype=np.float64) for each in levels] or [np.unique(each) for each in blocks]

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=3.0)
        for index, (each, grid) in enumerate(zip(blocks, grids, strict=True)):
            start = index * block
            axes.hlines(grid, start - 0.4, start + block - 0.6, color=theme.muted, linewidth=0.6)
            dots = {"markersize": 4, "color": ROLES["kept"], "markeredgecolor": theme.ink, "markeredgewidth": 0.4}
            axes.plot(np.arange(start, start + block), each, "o", **dots)
            words = f"{np.unique(each).size} values"
            axes.text(start + block / 2, 1.01, words, transform=axes.get_xaxis_transform(), ha="center")
            axes.axvline(start + block - 0.5, color=theme.ink, linewidth=0.8, linestyle="--")
        axes.set_xlim(-1, weights.size)
        axes.set_xticks(range(0, weights.size + 1, block))
        axes.set_xlabel("position in the row")
        axes.set_ylabel("weight")
        return figure

    return LabFigure(draw, alt=alt, badge="measured here")


def channel_ranges(panels: Mapping[str, Mapping[str, ArrayLike]], *, alt: str) -> LabFigure:
    """The largest absolute values of input channels, largest first, one panel a state: a line, then dots.

    Args:
        panels: title -> {tensor name -> [channels]}; all lines of a panel keep the order of its first one.

    Raises:
        ParameterError: no panels, or lines of different lengths.
    """
    lengths = {np.asarray(line).size for lines in panels.values() for line in lines.values()}
    if len(lengths) != 1:
        raise ParameterError(
            f"lines of {sorted(lengths)} channels", why="all share one axis", fix="give one value a channel to each"
        )
    first = np.asarray(next(iter(next(iter(panels.values())).values())), dtype=np.float64)
    order = np.argsort(-first, kind="stable")

    def draw(theme: Theme) -> Figure:
        figure, grid = theme.figure(2.8, columns=len(panels), sharey=True, squeeze=False)
        for axes, (title, lines) in zip(grid[0], panels.items(), strict=True):
            for rank, (name, line) in enumerate(lines.items()):
                color, swatch = (ROLES["chosen"], "━") if rank == 0 else (theme.ink, "•")
                shape = {"linewidth": 1.4} if rank == 0 else {"linestyle": "", "marker": ".", "markersize": 2.5}
                shown = np.asarray(line, dtype=np.float64)[order]
                axes.plot(np.arange(1, shown.size + 1), shown, color=color, zorder=3 - rank, **shape)
                place = {"transform": axes.transAxes, "ha": "right", "va": "top"}
                axes.text(0.98, 0.98 - 0.09 * rank, f"{swatch} {name}", color=theme.legible(color), **place)
            axes.set(xscale="log", yscale="log", title=title, xlabel="input channel, largest input first")
            axes.grid(axis="y")
        grid[0][0].set_ylabel("largest |value|")
        return figure

    return LabFigure(draw, alt=alt, badge="measured here")


def nibbles(low: int, high: int, *, alt: str) -> LabFigure:
    """The eight bits of a byte that holds two 4-bit numbers in two's complement, the high one on the left.

    Raises:
        ParameterError: a number does not fit four bits.
    """
    if not (-8 <= low <= 7 and -8 <= high <= 7):
        raise ParameterError(f"{low} and {high}", why="four bits hold -8 ... 7", fix="quantize to 4 bits first")
    digits = f"{high & 15:04b}{low & 15:04b}"

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=1.5)
        for place, digit in enumerate(digits):
            style = theme.fill("cached" if place < 4 else "kept") | {"hatch": None}
            axes.bar(place, 1, width=0.94, **style)
            box = {"facecolor": theme.paper, "edgecolor": "none", "boxstyle": "round,pad=0.25"}
            axes.text(place, 0.5, digit, ha="center", va="center", fontsize=12, color=theme.ink, bbox=box)
        sides = ((1.5, f"high nibble: row 2j + 1, q = {high}"), (5.5, f"low nibble: row 2j, q = {low}"))
        for middle, words in sides:
            axes.text(middle, 1.12, words, ha="center", va="bottom")
        axes.text(3.5, -0.15, f"one byte, {int(digits, 2)} of 0 ... 255", ha="center", va="top", color=theme.muted)
        axes.set_xlim(-0.6, 7.6)
        axes.set_ylim(-0.55, 1.5)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge="diagram")


def _nearest(x: NDArray[np.float64], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    borders = (grid[1:] + grid[:-1]) / 2
    return grid[np.searchsorted(borders, x)]


def _rules(axes: Axes, theme: Theme, grid: NDArray[np.float64]) -> None:
    if grid.size <= RULED:
        for level in grid:
            axes.axvline(level, color=theme.muted, linewidth=0.6, linestyle=":")
    else:
        axes.plot(grid, np.zeros_like(grid), "|", color=theme.muted, transform=axes.get_xaxis_transform(), markersize=5)
