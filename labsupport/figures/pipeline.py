"""The map of the whole way, with the place where a lab stands on it, and tables drawn as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Stop:
    """A station of the map.

    Args:
        name: what is there.
        labs: which labs teach it.
        made_by: the step that leads here from the station before.
    """

    name: str
    labs: str
    made_by: str = ""


TOKEN_LINE: Sequence[Stop] = (
    Stop("text", "00"),
    Stop("tokens", "01", "tokenize"),
    Stop("logits", "01, 04", "forward"),
    Stop("token", "02, 03", "sample"),
    Stop("stream", "09", "decode"),
)
"""How one answer is made."""

MODEL_LINE: Sequence[Stop] = (
    Stop("HF folder", "00", ""),
    Stop("checkpoint", "05, 06", "convert"),
    Stop("engine", "07", "build"),
    Stop("repository", "08", "assemble"),
    Stop("server", "09 – 11", "serve"),
)
"""How a model becomes a server."""


def pipeline_map(here: str | None = None, *, alt: str) -> LabFigure:
    """Two lines of stations: how one answer is made, and how a model becomes a server.

    Args:
        here: the station where the reader stands, such as ``logits`` or ``engine``; None for the plain map.

    Raises:
        ParameterError: there is no such station.
    """
    names = [stop.name for stop in (*TOKEN_LINE, *MODEL_LINE)]
    if here is not None and here not in names:
        raise ParameterError(
            f"no station {here!r} on the map", why="the map has ten of them", fix="one of " + ", ".join(names)
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=2.7)
        for title, stops, level in (("one answer", TOKEN_LINE, 1.05), ("one model", MODEL_LINE, 0.0)):
            axes.text(-0.5, level + 0.53, title, fontweight="bold", va="center")
            _line(axes, theme, level, stops, here)
        axes.set_xlim(-0.52, len(TOKEN_LINE) - 0.48)
        axes.set_ylim(-0.48, 1.64)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge="diagram")


@dataclass(frozen=True)
class Row:
    """A row of a table with a verdict.

    Args:
        state: ``ok``, ``note`` or ``missing``.
        cells: the text of each column.
    """

    state: Literal["ok", "note", "missing"]
    cells: tuple[str, ...]


_SIGNS = {"ok": ("✓", "kept"), "note": ("!", "generated"), "missing": ("✗", "chosen")}


def table(
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    alt: str,
    widths: Sequence[float] = (),
    badge: str = "measured here",
) -> LabFigure:
    """A table as a figure: a sign and a color for each row's verdict, then its cells, wrapped to their columns.

    Args:
        columns: the head.
        rows: each with as many cells as there are columns.
        widths: shares of the width, one a column; equal when empty.

    Raises:
        ParameterError: a row has too few or too many cells.
    """
    for row in rows:
        if len(row.cells) != len(columns):
            raise ParameterError(
                f"a row of {len(row.cells)} cells under {len(columns)} columns: {row.cells}",
                why="each cell stands under its column's name",
                fix="give an empty string for a cell that has nothing to say",
            )
    shares = [share / sum(widths) for share in widths] if widths else [1 / len(columns)] * len(columns)

    def draw(theme: Theme) -> Figure:
        inches = [share * (theme.width - 0.5) for share in shares]
        lines = [[_wrap(cell, width) for cell, width in zip(row.cells, inches, strict=True)] for row in rows]
        heights = [0.14 + 0.15 * max(text.count("\n") + 1 for text in line) for line in lines]
        figure, axes = theme.figure(height=0.5 + sum(heights))
        lefts = [0.35 + sum(inches[:column]) for column in range(len(columns))]
        for left, name in zip(lefts, columns, strict=True):
            axes.text(left, -0.15, name, fontweight="bold", va="center")
        top = 0.0
        for row, line, height in zip(rows, lines, heights, strict=True):
            axes.axhline(top, color=theme.grid, linewidth=0.8)
            _sign(axes, top + height / 2, row.state)
            for left, text in zip(lefts, line, strict=True):
                axes.text(left, top + height / 2, text, va="center_baseline", linespacing=1.15)
            top += height
        axes.set_xlim(0, theme.width - 0.1)
        axes.set_ylim(top + 0.05, -0.32)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _line(axes: Axes, theme: Theme, level: float, stops: Sequence[Stop], here: str | None) -> None:
    boxes = [_station(axes, theme, place, level, stop, stop.name == here) for place, stop in enumerate(stops)]
    for place, stop in enumerate(stops[1:], start=1):
        ends = {"patchA": boxes[place - 1], "patchB": boxes[place], "shrinkA": 4, "shrinkB": 4}
        arrow = {"arrowstyle": "-|>", "color": theme.muted, **ends}  # drawn after the boxes that it ends at
        axes.annotate("", xy=(place, level), xytext=(place - 1, level), arrowprops=arrow, zorder=3)
        axes.text(place - 0.5, level + 0.2, stop.made_by, ha="center", fontsize=8, color=theme.muted)


def _station(axes: Axes, theme: Theme, place: int, level: float, stop: Stop, here: bool) -> Any:
    """Draw one station; its box, for the arrows to end at."""
    edge, width, weight = (ROLES["chosen"], 2.5, "bold") if here else (theme.muted, 1.0, "normal")
    box = {"boxstyle": "round,pad=0.5", "facecolor": theme.soft, "edgecolor": edge, "linewidth": width}
    text = axes.text(place, level, stop.name, ha="center", va="center", bbox=box, fontweight=weight, zorder=2)
    axes.text(place, level - 0.3, f"lab {stop.labs}", ha="center", va="center", fontsize=8, color=theme.muted)
    if here:
        axes.text(place, level + 0.38, "▼ you are here", ha="center", va="center", fontsize=8, fontweight="bold")
    return text.get_bbox_patch()


def _sign(axes: Axes, height: float, state: str) -> None:
    sign, role = _SIGNS[state]
    axes.plot(0.15, height, "o", markersize=11, color=ROLES[role], markeredgewidth=0)
    axes.text(0.15, height + 0.005, sign, ha="center", va="center", fontweight="bold", color="#000000")


def _wrap(text: str, inches: float) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, max(int(inches * 13.2), 4), break_long_words=True)) or ""
