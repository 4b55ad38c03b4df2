"""Bits against quality: what a recipe saves and what it costs, one mark a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKS = "osD^vP*X"


@dataclass(frozen=True)
class Spent:
    """One recipe.

    Args:
        name: what to call it.
        bits: of a weight, its share of the scales included.
        divergence: mean KL to the float model, nats a token, above 0.
        chosen: whether to point at it.
    """

    name: str
    bits: float
    divergence: float
    chosen: bool = False


def quality_against_bits(
    recipes: Sequence[Spent], *, alt: str, limit: float | None = None, title: str = "", badge: str = "measured here"
) -> LabFigure:
    """Each recipe at its bits and its divergence, lower left is better; a line joins those that nothing else beats.

    Args:
        recipes: in any order; names are written beside the marks.
        limit: a divergence that is to be kept, drawn as a level, or None.

    Raises:
        ParameterError: no recipes, or a divergence that is not above 0 (the axis is logarithmic).
    """
    if not recipes or any(one.divergence <= 0 or one.bits <= 0 for one in recipes):
        raise ParameterError(
            f"{len(recipes)} recipes, the least divergence {min((one.divergence for one in recipes), default=0)}",
            why="a logarithmic axis needs numbers above 0, and a recipe that changes nothing has none",
            fix="leave the float model itself out",
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=3.6)
        edge = best(recipes)
        axes.step([one.bits for one in edge], [one.divergence for one in edge], where="post", color=theme.grid)
        ordered = sorted(recipes, key=lambda one: one.divergence)
        widest = max(one.bits for one in recipes)
        heights = _apart([(one.bits > 0.75 * widest, one.divergence) for one in ordered])
        for index, (one, height) in enumerate(zip(ordered, heights, strict=True)):
            color = ROLES["chosen"] if one.chosen else ROLES["kept"] if one in edge else ROLES["removed"]
            left = one.bits > 0.75 * widest
            axes.plot(one.bits, one.divergence, _MARKS[index % len(_MARKS)], color=color, markersize=8)
            axes.annotate(
                one.name,
                (one.bits, height),
                xytext=(-9 if left else 9, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                fontweight="bold" if one.chosen else "normal",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": theme.paper, "edgecolor": "none"},  # over the line
            )
        if limit is not None:
            axes.axhline(limit, color=theme.muted, linestyle="--", linewidth=1)
            axes.annotate(
                f" at most {limit:g}", (0, limit), xycoords=("axes fraction", "data"), va="bottom", fontsize=8
            )
        axes.set_yscale("log")
        axes.set_xlim(0, 1.08 * max(one.bits for one in recipes))
        axes.margins(y=0.12)
        axes.set_xlabel("bits of a weight, scales included")
        axes.set_ylabel("mean KL to float (nats a token)")
        axes.grid(visible=True)
        axes.set_title(title)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def best(recipes: Sequence[Spent]) -> list[Spent]:
    """Those that no other recipe beats in both bits and divergence, by rising bits.

    Example:
        >>> [one.name for one in best([Spent("a", 4, 0.1), Spent("b", 4.5, 0.2), Spent("c", 8, 0.01)])]
        ['a', 'c']
    """
    found: list[Spent] = []
    for one in sorted(recipes, key=lambda one: (one.bits, one.divergence)):
        if not found or one.divergence < found[-1].divergence:
            found.append(one)
    return found


def _apart(labels: Sequence[tuple[bool, float]]) -> list[float]:
    """Heights for labels, by rising divergence: moved up where one would touch the one below it on its side."""
    logs = [log10(height) for _, height in labels]
    room = 0.055 * max(logs[-1] - logs[0], 1.0)
    found: list[float] = []
    last = {True: logs[0] - room, False: logs[0] - room}
    for (side, _), height in zip(labels, logs, strict=True):
        last[side] = max(height, last[side] + room)
        found.append(10 ** last[side])
    return found
