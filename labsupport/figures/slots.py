"""A batch over time: the slot grid, the life of each request, and what each iteration took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import level_bars
from labsupport.figures.style import Theme, lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

NARROW = 4.0  # inches; below it titles are cut in two
READABLE = 0.12  # inches that a letter takes; a shorter stay bears none
WORK = {"context": "prompt", "generation": "generated", "waiting": "removed"}  # what a slot does -> its role


@dataclass(frozen=True)
class Cell:
    """What one slot did in one iteration.

    Args:
        iteration, slot: from 0.
        owner: the request's name, one or two characters.
        work: ``context``, ``generation`` or ``waiting``.
    """

    iteration: int
    slot: int
    owner: str
    work: str


@dataclass(frozen=True)
class Life:
    """When a request came, had its first token and its last; seconds."""

    name: str
    arrived: float
    first: float
    last: float


def slot_grids(
    grids: Mapping[str, Sequence[Cell]], *, slots: int, alt: str, unit: str = "iteration", badge: str = "measured here"
) -> LabFigure:
    """Slots against iterations, a panel for each way of batching, all on one axis.

    Blue reads a prompt, orange generates, hatched gray holds its slot and waits, an outline is idle.

    Args:
        grids: name -> the cells that were not idle.
        slots: rows of each grid.
        unit: what one column is.

    Raises:
        ParameterError: no cells, or a slot that is not there.
    """
    if not grids or not all(grids.values()) or any(cell.slot >= slots for cells in grids.values() for cell in cells):
        raise ParameterError(
            f"{len(grids)} grids of {slots} slots, one empty or with a cell outside",
            why="each panel shows at least one cell, and slots are counted from 0",
            fix="give the cells of a run, and the slots that it had",
        )
    longest = max(cell.iteration for cells in grids.values() for cell in cells) + 1

    def draw(theme: Theme) -> Figure:
        height = 0.25 + len(grids) * (0.5 + 0.24 * slots)
        figure, column = theme.figure(height, rows=len(grids), sharex=True, squeeze=False)
        for axes, (name, cells) in zip(column[:, 0], grids.items(), strict=True):
            _grid(axes, theme, cells, slots, longest)
            axes.set_title(_summary(name, cells, slots, narrow=theme.width < NARROW), fontsize=9)
        column[-1, 0].set_xlabel(unit)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def busy_share(cells: Sequence[Cell], slots: int) -> float:
    """Share of the grid, up to its last iteration, in which a slot read or wrote."""
    iterations = max(cell.iteration for cell in cells) + 1
    return sum(cell.work != "waiting" for cell in cells) / (slots * iterations)


def lifelines(groups: Mapping[str, Sequence[Life]], *, alt: str, badge: str = "measured here") -> LabFigure:
    """A line for each request: an outline until its first token (TTFT), then filled until its last.

    Args:
        groups: name -> lives; a panel each, all on one axis.

    Raises:
        ParameterError: a panel without lives.
    """
    if not groups or not all(groups.values()):
        raise ParameterError("no lives to draw", why="each panel shows at least one request", fix="give their times")

    def draw(theme: Theme) -> Figure:
        rows = max(map(len, groups.values()))
        figure, row = theme.figure(0.75 + 0.19 * rows, columns=len(groups), sharex=True, squeeze=False)
        for axes, (name, lives) in zip(row[0], groups.items(), strict=True):
            for at, life in enumerate(lives):
                axes.barh(at, life.first - life.arrived, left=life.arrived, height=0.62, **theme.fill("free"))
                axes.barh(at, life.last - life.first, left=life.first, height=0.62, **theme.fill("generated"))
            waits = [life.first - life.arrived for life in lives]
            level_bars(axes, [life.name for life in lives], theme)
            axes.set_title(f"{name}: mean TTFT {sum(waits) / len(waits):.2f} s", fontsize=9)
            axes.xaxis.set_major_locator(_locator())
            axes.set_xlabel("seconds")
            axes.grid(axis="x")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def step_bars(
    panels: Mapping[str, Sequence[tuple[float, str]]], *, alt: str, badge: str = "measured here"
) -> LabFigure:
    """What each iteration took: a bar in milliseconds, blue where a prompt was read, orange where all generated.

    Args:
        panels: name -> (milliseconds, ``context`` or ``generation``) of each iteration, in order.

    Raises:
        ParameterError: a panel without iterations.
    """
    if not panels or not all(panels.values()):
        raise ParameterError("no iterations to draw", why="each panel shows at least one", fix="run a step")

    def draw(theme: Theme) -> Figure:
        figure, row = theme.figure(2.3, columns=len(panels), sharey=True, squeeze=False)
        for axes, (name, steps) in zip(row[0], panels.items(), strict=True):
            for at, (milliseconds, work) in enumerate(steps):
                axes.bar(at, milliseconds, width=0.8, **theme.fill(WORK[work]))
            worst = max(range(len(steps)), key=lambda at: steps[at][0])
            place = (worst, steps[worst][0])
            axes.annotate(
                f"{steps[worst][0]:,.0f} ms", place, (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("iteration")
            axes.margins(y=0.15)
            axes.xaxis.set_major_locator(_locator())
        row[0][0].set_ylabel("ms")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _grid(axes: Axes, theme: Theme, cells: Sequence[Cell], slots: int, longest: int) -> None:
    end = max(cell.iteration for cell in cells) + 1
    inches = (theme.width - 0.5) / longest  # of one iteration
    thin = 0.6 if inches > 0.12 else 0.25 if inches > READABLE / 3 else 0.0
    for slot in range(slots):
        rows = (slot + 0.08, 0.84)
        axes.broken_barh([(0, end)], rows, **{**theme.fill("free"), "linewidth": 0.5})
        for work, role in WORK.items():  # one collection for all cells of a kind: a patch for each would be slow
            spans = [(cell.iteration, 1) for cell in cells if (cell.slot, cell.work) == (slot, work)]
            if spans:
                axes.broken_barh(spans, rows, **{**theme.fill(role), "linewidth": thin})
    for slot, first, cells_of_run in _runs(cells):
        if inches * len(cells_of_run) < READABLE:
            continue
        middle = cells_of_run[len(cells_of_run) // 2]
        color = lettering(theme.fill(WORK[middle.work])["facecolor"])
        axes.text(
            first + len(cells_of_run) / 2, slot + 0.52, middle.owner, ha="center", va="center", fontsize=7, color=color
        )
    axes.set_xlim(-0.15, longest + 0.15)
    axes.set_ylim(slots, 0)
    axes.set_yticks([slot + 0.5 for slot in range(slots)], [f"{slot}" for slot in range(slots)], fontsize=7)
    axes.set_ylabel("slot", fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(_locator())


def _runs(cells: Sequence[Cell]) -> list[tuple[int, int, list[Cell]]]:
    """(slot, first iteration, cells) of each unbroken stay of a request in a slot."""
    ordered = sorted(cells, key=lambda cell: (cell.slot, cell.iteration))
    runs = []
    for (slot, _owner, _shift), run in groupby(
        enumerate(ordered), key=lambda pair: (pair[1].slot, pair[1].owner, pair[1].iteration - pair[0])
    ):
        stay = [cell for _, cell in run]
        runs.append((slot, stay[0].iteration, stay))
    return runs


def _summary(name: str, cells: Sequence[Cell], slots: int, *, narrow: bool) -> str:
    end = max(cell.iteration for cell in cells) + 1
    return f"{name}:{chr(10) if narrow else ' '}{end} iterations, {busy_share(cells, slots):.0%} of the slots at work"


def _locator() -> MaxNLocator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=8, integer=True)
