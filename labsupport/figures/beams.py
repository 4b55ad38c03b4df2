"""Beam search as a tree, and why it adds logarithms: the product of probabilities underflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

State = Literal["kept", "pruned", "finished"]
NARROW = 1.1  # inches a step; below it a node's number stands under its token


@dataclass(frozen=True)
class Candidate:
    """One continuation that a beam search looked at.

    Args:
        token: its text.
        logprob: cumulative ln p from the prompt on.
        parent: index of the candidate that it continues, None for the prompt.
        state: ``kept`` in the beam, ``pruned`` from it, or ``finished`` with an end token.
    """

    token: str
    logprob: float
    parent: int | None
    state: State


def beam_tree(
    candidates: Sequence[Candidate],
    *,
    alt: str,
    root: str = "prompt",
    best: int | None = None,
    badge: str = "measured here",
) -> LabFigure:
    """The tree of candidates, one column a step: kept solid, pruned dashed and gray, finished with a double frame.

    A line is as wide as the probability of its token given what stands before; the number is cumulative ln p.

    Args:
        candidates: each after its parent.
        root: what stands in front of the first step.
        best: index of the winning hypothesis; its path is drawn in the color of what was chosen.

    Raises:
        ParameterError: no candidates, or one that stands before its parent.
    """
    for index, candidate in enumerate(candidates):
        if candidate.parent is not None and not 0 <= candidate.parent < index:
            raise ParameterError(
                f"candidate {index} names {candidate.parent} as its parent",
                why="a tree is read from its root on, so each parent stands before its children",
                fix="order the candidates by step, and give parent=None in the first step",
            )
    if not candidates:
        raise ParameterError("a beam tree without candidates", why="there is nothing to draw", fix="run one step")
    depths = _depths(candidates)
    heights = _heights(candidates)
    path = _path(candidates, best)
    last = max(depths)

    def draw(theme: Theme) -> Figure:
        narrow = theme.width < NARROW * last
        figure, axes = theme.figure(height=0.7 + (0.36 if narrow else 0.24) * (max(heights) + 1))
        middle = (min(heights) + max(heights)) / 2
        axes.text(0, middle, visible(root), ha="center", va="center", bbox=_box(theme, ROLES["prompt"]))
        for index, (candidate, depth, height) in enumerate(zip(candidates, depths, heights, strict=True)):
            parent = candidate.parent
            start = (0.0, middle) if parent is None else (depths[parent], heights[parent])
            before = 0.0 if parent is None else candidates[parent].logprob
            width = 0.6 + 4.0 * float(np.exp(min(candidate.logprob - before, 0.0)))
            _branch(axes, start, (depth, height), candidate.state, index in path, width)
            _node(axes, theme, (depth, height), candidate, index in path, "\n" if narrow else "  ")
        for step in range(1, last + 1):
            axes.text(step, -1.1, f"step {step}", ha="center", color=theme.muted)
        axes.set_xlim(-0.4, last + 0.5)
        axes.set_ylim(max(heights) + 0.7, -1.4)
        axes.axis("off")
        figure.supxlabel("solid: kept    dashed: pruned    double frame: finished", fontsize=8, color=theme.muted)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def underflow_curve(
    products: Mapping[str, ArrayLike], logprobs: ArrayLike, *, alt: str, badge: str = "measured here"
) -> LabFigure:
    """The probability of a growing sequence as a product in several formats, over the same as a sum of ln p.

    Args:
        products: format name -> [n], the product after 1, 2, ... n tokens in that format; 0 where it underflowed.
        logprobs: [n], the sum of ln p after 1, 2, ... n tokens.
    """
    total = np.asarray(logprobs, dtype=np.float64)
    steps = np.arange(1, len(total) + 1)

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=3.0)
        axes.plot(steps, total, color=ROLES["kept"], linewidth=2.4)
        axes.annotate(
            f"sum of ln p: {total[-1]:.0f}, and on it goes".replace("-", "−"),
            xy=(steps[-1], total[-1]),
            xytext=(-18, -2),
            textcoords="offset points",
            ha="right",
            va="center",
        )
        for name, values in products.items():
            product = np.asarray(values, dtype=np.float64)
            alive = product > 0
            end = int(alive.sum())
            if end == 0:
                continue
            known = np.log(product[alive])
            axes.plot(steps[:end], known, "--", color=theme.ink, linewidth=1.2)
            if end == len(product):
                axes.annotate(name, (steps[end - 1], known[-1]), xytext=(4, 4), textcoords="offset points")
                continue
            axes.plot(end, known[-1], "X", color=ROLES["chosen"], markersize=9, markeredgecolor=theme.ink)
            axes.annotate(
                f"{name}: 0 from token {end + 1}",
                (end, known[-1]),
                xytext=(8, 6),
                textcoords="offset points",
                color=theme.ink,
            )
        axes.grid(axis="y")
        axes.set_xlim(0, steps[-1] * 1.02)
        axes.set_xlabel("tokens")
        axes.set_ylabel("ln of the sequence's probability")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _depths(candidates: Sequence[Candidate]) -> list[int]:
    depths: list[int] = []
    for candidate in candidates:
        depths.append(1 if candidate.parent is None else depths[candidate.parent] + 1)
    return depths


def _heights(candidates: Sequence[Candidate]) -> list[float]:
    """Leaves on rows of their own, best first among siblings; a parent halfway between its first and last child."""
    children: dict[int | None, list[int]] = {}
    for index, candidate in enumerate(candidates):
        children.setdefault(candidate.parent, []).append(index)
    heights = [0.0] * len(candidates)
    rows = 0

    def place(index: int) -> float:
        nonlocal rows
        below = sorted(children.get(index, []), key=lambda child: -candidates[child].logprob)
        if below:
            placed = [place(child) for child in below]
            heights[index] = (placed[0] + placed[-1]) / 2
        else:
            heights[index] = float(rows)
            rows += 1
        return heights[index]

    for index in sorted(children[None], key=lambda child: -candidates[child].logprob):
        place(index)
    return heights


def _path(candidates: Sequence[Candidate], best: int | None) -> set[int]:
    path: set[int] = set()
    while best is not None:
        path.add(best)
        best = candidates[best].parent
    return path


def _color(state: State, chosen: bool) -> str:
    return ROLES["chosen"] if chosen else ROLES["removed"] if state == "pruned" else ROLES["kept"]


def _branch(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], state: State, chosen: bool, width: float
) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    bend = (start[0] + end[0]) / 2
    curve = Path([start, (bend, start[1]), (bend, end[1]), end], [Path.MOVETO, *[Path.CURVE4] * 3])
    pruned = state == "pruned"
    axes.add_patch(
        PathPatch(
            curve,
            fill=False,
            linestyle="--" if pruned else "-",
            edgecolor=_color(state, chosen),
            linewidth=min(width, 1.2) if pruned else width,
            zorder=1.2 if chosen else 1.0 if pruned else 1.1,
        )
    )


def _box(theme: Theme, color: str, state: State = "kept") -> dict[str, object]:
    style = "--" if state == "pruned" else "-"
    return {
        "boxstyle": "round,pad=0.22,rounding_size=0.3",
        "facecolor": theme.paper,
        "edgecolor": color,
        "linestyle": style,
    }


def _node(
    axes: Axes, theme: Theme, place: tuple[float, float], candidate: Candidate, chosen: bool, between: str
) -> None:
    color = _color(candidate.state, chosen)
    ink = theme.muted if candidate.state == "pruned" else theme.ink
    text = visible(candidate.token) + between + f"{candidate.logprob:.2f}".replace("-", "−")
    weight = "bold" if chosen else "normal"
    if candidate.state == "finished":
        outer = {**_box(theme, color), "boxstyle": "round,pad=0.42,rounding_size=0.45"}
        axes.text(
            *place, text, ha="center", va="center", fontsize=8, color=ink, bbox=outer, zorder=2, fontweight=weight
        )
    box = _box(theme, color, candidate.state)
    axes.text(*place, text, ha="center", va="center", fontsize=8, color=ink, bbox=box, zorder=3, fontweight=weight)
