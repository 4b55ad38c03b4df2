"""Attention in tiles: the square of scores that plain attention stores, and the one tile that flash attention holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def attention_tiles(tokens: int, tile: int, at: tuple[int, int], *, alt: str) -> LabFigure:
    """Left the scores as plain attention stores them, right the same in tiles, at one moment of the walk.

    The walk goes along a row of tiles, then down. A tile before the present one is gone, what lies right of the
    diagonal is never made; the strip holds the running results of each row of tiles that was begun.

    Args:
        tokens: side of the square.
        tile: side of a tile.
        at: row and column of the present tile, from 0.

    Raises:
        ParameterError: the present tile lies outside, or right of the diagonal.
    """
    count = -(-tokens // tile)
    row, column = at
    if not 0 <= column <= row < count:
        raise ParameterError(
            f"tile {at} of {count} rows of tiles",
            why="the walk visits the tiles on and below the diagonal",
            fix="0 <= column <= row < tokens / tile",
        )

    def draw(theme: Theme) -> Figure:
        figure, (left, right) = theme.figure(2.75, columns=2)
        _square(left, theme, count, lambda r, c: "generated" if c <= r else "removed")
        left.set_title(f"plain: {tokens} x {tokens} scores, all stored", fontsize=9)
        state = {True: "removed", False: "free"}
        _square(
            right,
            theme,
            count,
            lambda r, c: "" if c > r else "chosen" if (r, c) == at else state[(r, c) < at],
            done=row + 1,
        )
        right.set_title(f"tiles: {tile} x {tile} scores at a time", fontsize=9)
        figure.supxlabel(
            "orange: stored · hatched gray: masked, or thrown away · red: the present tile · blue: running m, s, o",
            fontsize=8,
        )
        return figure

    return LabFigure(draw, alt=alt, badge="diagram")


def _square(axes: Axes, theme: Theme, count: int, role_at: Callable[[int, int], str], done: int = 0) -> None:
    from matplotlib.patches import Rectangle

    for row in range(count):
        for column in range(count):
            role = role_at(row, column)
            if role:
                axes.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, **theme.fill(role)))
        if row < done:
            axes.add_patch(Rectangle((count + 0.3, row + 0.04), 0.5, 0.92, **theme.fill("cached")))
    axes.set_xlim(-0.1, count + 0.9)
    axes.set_ylim(count + 0.1, -0.1)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("keys", fontsize=8)
    axes.set_ylabel("queries", fontsize=8)
    axes.spines[:].set_visible(False)
