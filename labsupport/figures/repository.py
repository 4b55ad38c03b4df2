"""A model repository as pictures: its tree beside the graph of its tensors, and what each unfilled placeholder does."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Outcome = Literal["unreadable", "refused", "silent"]
OUTCOMES: Mapping[Outcome, tuple[str, str, str]] = {
    "unreadable": ("✗", "chosen", "the file cannot be read"),
    "refused": ("!", "generated", "it is read, and the model does not load"),
    "silent": ("", "free", "a default in silence"),
}
NARROW = 4.0  # inches: a panel of small multiples has no room for the tree
_LINE, _BOX = 0.168, 0.44  # inches: a line of the tree, the height of a box
_TREE = 2.75  # inches


@dataclass(frozen=True)
class Leaf:
    """A line of the tree; ``wrong`` marks it."""

    depth: int
    name: str
    note: str = ""
    wrong: bool = False


@dataclass(frozen=True)
class Station:
    """A box of the graph: a model, and a line of small print below its name."""

    name: str
    note: str = ""


@dataclass(frozen=True)
class Wire:
    """The tensors that go from one box to another.

    Args:
        source, target: names of stations; ``client`` is at the top and at the bottom.
        names: the tensors; the first ones are written out.
        wrong: those that lead nowhere; only they are written out then.
    """

    source: str
    target: str
    names: tuple[str, ...]
    wrong: tuple[str, ...] = ()


def tree_and_graph(
    leaves: Sequence[Leaf],
    stations: Sequence[Station],
    wires: Sequence[Wire],
    *,
    alt: str,
    caller: Station | None = None,
    findings: Sequence[str] = (),
    badge: str = "measured here",
) -> LabFigure:
    """The files at the left, the graph of the models at the right, and below them what a pre-flight says.

    Args:
        leaves: the lines of the tree; a narrow panel leaves them out.
        stations: the steps of the ensemble, in order.
        wires: between them, and from and to ``client``.
        caller: a model that calls the steps itself, drawn beside them.
        findings: one line each, marked ✗; an empty string is drawn as ✓ nothing found.

    Raises:
        ParameterError: no stations, or a wire to one that is not there.
    """
    known = {"client", *(station.name for station in stations)}
    lost = [name for wire in wires for name in (wire.source, wire.target) if name not in known]
    if not stations or lost:
        raise ParameterError(
            f"a wire to {lost[0]!r}" if lost else "a graph without stations",
            why="each wire ends at a station that is drawn",
            fix="name the client or one of the stations",
        )

    def draw(theme: Theme) -> Figure:
        narrow = theme.width < NARROW
        width = theme.width - 0.1
        said = [line for one in findings for line in _finding(one, width)]
        row = 0.76 if narrow else 0.92
        tall = max(row * (len(stations) + 1) + _BOX, 0.0 if narrow else _LINE * len(leaves)) + 0.1
        height = tall + (0.1 + 0.16 * len(said) if said else 0)
        figure, axes = theme.figure(height=height + 0.12)
        if not narrow:
            _tree(axes, theme, leaves)
        _graph(axes, theme, 0.0 if narrow else _TREE, width, row, stations, wires, caller)
        for place, (sign, line) in enumerate(said):
            top = tall + 0.12 + 0.16 * place
            axes.text(0.02, top, sign, va="center", fontweight="bold", color=theme.legible(_sign_color(sign)))
            axes.text(0.2, top, line, va="center", fontsize=8)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def placeholder_strips(models: Mapping[str, Sequence[Outcome]], *, alt: str, badge: str = "measured here") -> LabFigure:
    """A row of boxes for each model, one for each placeholder, by what happens if it is left.

    Args:
        models: the outcomes of each model's placeholders, in the order in which the boxes are drawn.

    Raises:
        ParameterError: no models, or an outcome that is none.
    """
    if not models or any(one not in OUTCOMES for outcomes in models.values() for one in outcomes):
        raise ParameterError(
            "no models, or an unknown outcome", why="a box is drawn by its outcome", fix=f"one of {', '.join(OUTCOMES)}"
        )

    def draw(theme: Theme) -> Figure:
        from matplotlib.patches import Rectangle

        width, left = theme.width - 0.1, 1.25
        longest = max(map(len, models.values()))
        step = min(0.2, (width - left - 0.35) / longest)
        figure, axes = theme.figure(height=0.35 * len(models) + 0.45)
        for row, (name, outcomes) in enumerate(models.items()):
            top = 0.35 * row + 0.05
            axes.text(left - 0.1, top + 0.11, name, ha="right", va="center", fontsize=8)
            for place, outcome in enumerate(outcomes):
                sign, role, _ = OUTCOMES[outcome]
                at = left + place * step
                axes.add_patch(Rectangle((at, top), 0.82 * step, 0.22, **{**theme.fill(role), "hatch": None}))
                axes.text(at + 0.41 * step, top + 0.11, sign, ha="center", va="center", fontsize=7, color="#000000")
            axes.text(left + len(outcomes) * step + 0.04, top + 0.11, str(len(outcomes)), va="center", fontsize=8)
        at, low = 0.1, 0.35 * len(models) + 0.12
        for sign, role, words in OUTCOMES.values():
            axes.add_patch(Rectangle((at, low), 0.13, 0.16, **{**theme.fill(role), "hatch": None}))
            axes.text(at + 0.065, low + 0.08, sign, ha="center", va="center", fontsize=7, color="#000000")
            axes.text(at + 0.19, low + 0.085, words, va="center", fontsize=8)
            at += 0.45 + 0.068 * len(words)
        axes.set_xlim(0, width)
        axes.set_ylim(low + 0.24, 0)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _finding(text: str, width: float) -> list[tuple[str, str]]:
    if not text:
        return [("✓", "nothing found")]
    lines = textwrap.wrap(text, int((width - 0.25) * 15.5))
    return [("✗" if row == 0 else "", line) for row, line in enumerate(lines)]


def _sign_color(sign: str) -> str:
    return ROLES["kept" if sign == "✓" else "chosen"]


def _tree(axes: Axes, theme: Theme, leaves: Sequence[Leaf]) -> None:
    for row, leaf in enumerate(leaves):
        y = 0.14 + _LINE * row
        x = 0.14 * leaf.depth
        if leaf.depth:
            above = max(at for at in range(row) if leaves[at].depth <= leaf.depth)  # its elder sibling, or its folder
            axes.plot([x - 0.08] * 2, [0.19 + _LINE * above - 0.05 * (leaves[above].depth == leaf.depth), y],
                      color=theme.grid, linewidth=1)  # fmt: skip
            axes.plot([x - 0.08, x - 0.01], [y, y], color=theme.grid, linewidth=1)
        words = f"{leaf.name} ◀ ✗" if leaf.wrong else leaf.name
        weight = "bold" if leaf.wrong or leaf.depth == 1 else "normal"
        color = theme.legible(ROLES["chosen"]) if leaf.wrong else theme.ink
        text = axes.text(x + 0.02, y, words, va="center", fontsize=7.5, fontweight=weight, color=color)
        if leaf.note:
            axes.annotate(
                leaf.note, (1, 0.5), xycoords=text, xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=7, color=theme.muted, annotation_clip=False,
            )  # fmt: skip


def _graph(
    axes: Axes,
    theme: Theme,
    left: float,
    right: float,
    step: float,
    stations: Sequence[Station],
    wires: Sequence[Wire],
    caller: Station | None,
) -> None:
    size = 1.16
    middle = left + 0.96 + size / 2
    rows = {station.name: row for row, station in enumerate(stations, start=1)}
    levels = {name: 0.1 + _BOX / 2 + step * row for name, row in rows.items()}
    top, low = 0.1 + _BOX / 2 - 0.06, 0.1 + _BOX / 2 + step * (len(stations) + 1) + 0.06
    for y, words in ((top, "client asks"), (low, "client reads")):
        axes.text(middle, y, words, ha="center", va="center", fontsize=8.5, bbox=_round(theme))
    for station in stations:
        _box(axes, theme, middle, levels[station.name], size, station)
    for wire in wires:
        begin = top if wire.source == "client" else levels[wire.source]
        end = low if wire.target == "client" else levels[wire.target]
        _wire(axes, theme, wire, (begin, end), (middle, size), step)
    if caller is not None:
        _caller(axes, theme, right - 0.42, list(levels.values()), middle + size / 2, caller)


def _caller(axes: Axes, theme: Theme, x: float, levels: Sequence[float], reach: float, caller: Station) -> None:
    """A tall box beside the steps, its name upright, with a call to each of them."""
    from matplotlib.patches import FancyBboxPatch

    low, high = levels[0] - _BOX / 2, levels[-1] + _BOX / 2
    style: dict[str, Any] = {"facecolor": theme.soft, "edgecolor": theme.muted, "linewidth": 1, "linestyle": "--"}
    axes.add_patch(FancyBboxPatch((x, low), 0.4, high - low, boxstyle="round,pad=0,rounding_size=0.06", **style))
    center = (low + high) / 2
    axes.text(x + 0.12, center, caller.name, ha="center", va="center", fontsize=8, fontweight="bold", rotation=90)
    axes.text(x + 0.28, center, caller.note, ha="center", va="center", fontsize=7, rotation=90)
    for level in levels:
        call = {"arrowstyle": "<|-|>", "linestyle": "--", "color": theme.muted, "linewidth": 0.9}
        axes.annotate("", xy=(reach, level), xytext=(x, level), arrowprops={**call, "shrinkA": 0, "shrinkB": 0})


def _wire(
    axes: Axes, theme: Theme, wire: Wire, ends: tuple[float, float], box: tuple[float, float], step: float
) -> None:
    (begin, end), (middle, size) = ends, box
    color = theme.legible(ROLES["chosen"]) if wire.wrong else theme.ink
    style: dict[str, Any] = {"arrowstyle": "-|>", "color": color, "linewidth": 1.2}
    if wire.wrong:
        style["linestyle"] = ":"
    words = _names(wire, 2 if step > 0.8 else 1)
    half = _BOX / 2
    if end - begin < 1.2 * step:
        shrink = {"shrinkA": 0, "shrinkB": 0}
        top, low = (
            (begin + (0.12 if wire.source == "client" else half)),
            end - (0.12 if wire.target == "client" else half),
        )
        axes.annotate("", (middle, low), (middle, top), arrowprops={**style, **shrink})
        axes.text(middle + 0.07, (begin + end) / 2, "\n".join(words), va="center", fontsize=7, color=color)
        return
    # past the boxes, in the lane at the left: down from the client, or down to it
    lane = middle - size / 2 - 0.14
    down = wire.source == "client"
    offset = -0.1 if down else 0.1
    start = (middle - 0.4, begin) if down else (middle - size / 2, begin + 0.1)
    stop = (middle - size / 2, end + offset) if down else (middle - 0.44, end)
    axes.plot([start[0], lane, lane], [start[1], start[1], stop[1]], color=color, linewidth=1.2, zorder=0)
    axes.annotate("", stop, (lane, stop[1]), arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
    axes.text(lane - 0.06, (start[1] + stop[1]) / 2, "\n".join(words), ha="right", va="center", fontsize=7, color=color)


def _names(wire: Wire, count: int) -> list[str]:
    if wire.wrong:
        return [*wire.wrong[:count], "leads nowhere ✗" if len(wire.wrong) == 1 else "and more lead nowhere ✗"]
    left = len(wire.names) - count
    return [*wire.names[:count], *([f"and {left} more"] if left > 0 else [])]


def _box(axes: Axes, theme: Theme, x: float, y: float, size: float, station: Station) -> None:
    from matplotlib.patches import FancyBboxPatch

    style: dict[str, Any] = {"facecolor": theme.soft, "edgecolor": theme.muted, "linewidth": 1}
    corner = (x - size / 2, y - _BOX / 2)
    axes.add_patch(FancyBboxPatch(corner, size, _BOX, boxstyle="round,pad=0,rounding_size=0.06", **style))
    axes.text(x, y - 0.09, station.name, ha="center", va="center", fontsize=8.5, fontweight="bold")
    axes.text(x, y + 0.1, station.note, ha="center", va="center", fontsize=7)


def _round(theme: Theme) -> dict[str, Any]:
    return {"boxstyle": "round,pad=0.35", "facecolor": theme.paper, "edgecolor": theme.muted, "linewidth": 1}
