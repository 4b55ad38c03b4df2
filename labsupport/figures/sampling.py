"""Sampling as pictures: the interval that a uniform number picks, the waterfall with its draws, and named curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labsupport.errors import ParameterError
from labsupport.figures.distributions import Stage, Words
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import STROKES, label_ends, level_bars
from labsupport.figures.style import ROLES, Theme, lettering, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW = 4.0  # inches; below it a waterfall shows its first and its last stage only


def rulers(
    stages: Sequence[Stage],
    words: Words,
    *,
    alt: str,
    marks: Sequence[float] = (),
    shared: float | None = None,
    cut: float | None = None,
    names: int = 6,
    badge: str = "measured here",
) -> LabFigure:
    """Distributions as rulers from 0 to 1: each token owns an interval, and a number u picks the one it falls into.

    Args:
        stages: one ruler each; the tokens of a ruler lie likeliest first.
        words: token id -> text.
        marks: numbers u in (0, 1], drawn as arrows on the last ruler with the tokens that they pick.
        shared: one number u, drawn through all rulers; the token that it picks on each is marked.
        cut: a probability mass to mark with a rule through the first ruler, such as top-p.
        names: the number of tokens with an interval of their own; all others of a ruler share one.

    Raises:
        ParameterError: no stages, stages over vocabularies of different sizes, or a number u outside (0, 1].
    """
    masses = _masses(stages)
    through = [] if shared is None else [shared]
    if any(not 0 < u <= 1 for u in [*marks, *through]):
        raise ParameterError(
            f"the numbers {[*marks, *through]}", why="a ruler reaches from 0 to 1", fix="give uniform numbers in (0, 1]"
        )

    def draw(theme: Theme) -> Figure:
        space = 0.45 * bool(marks) + 0.25 * (cut is not None or shared is not None)
        figure, axes = theme.figure(height=0.45 + 0.62 * len(stages) + space)
        last = len(stages) - 1
        for row, mass in enumerate(masses):
            _ruler(axes, theme, row, mass, words, names, [*through, *(marks if row == last else [])])
        for u in marks:
            label = f"u = {u:.2f}\n{visible(words(_picked(masses[last], u)))}"
            arrow = {"arrowstyle": "-|>", "color": theme.ink}
            place: dict[str, Any] = {"xytext": (u, last + 0.75), "ha": "center", "va": "top", "fontsize": 8}
            axes.annotate(label, (u, last + 0.31), arrowprops=arrow, **place)
        for name, place_of_rule, end in (("p", cut, 0.38), ("u", shared, last + 0.4)):
            if place_of_rule is not None:
                axes.plot([place_of_rule] * 2, [-0.5, end], color=theme.ink, linestyle="--", linewidth=1.8, zorder=4)
                axes.text(place_of_rule, -0.56, f"{name} = {place_of_rule:.3g}", ha="center", va="bottom")
        if shared is not None:
            for row, mass in enumerate(masses):
                axes.text(1.01, row, f"▸ {visible(words(_picked(mass, shared)))}", va="center", clip_on=False)
        axes.set_yticks(range(len(stages)), [stage.name for stage in stages])
        axes.set_ylim(len(stages) - 0.45 + 0.75 * bool(marks), -0.5 - 0.35 * (cut is not None or shared is not None))
        axes.set_xlim(0, 1)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def sampling_waterfall(
    stages: Sequence[Stage],
    counts: ArrayLike,
    words: Words,
    *,
    alt: str,
    chosen: int | None = None,
    top: int = 10,
    badge: str = "measured here",
) -> LabFigure:
    """The sampling waterfall, and on its last stage how often each token was really drawn.

    A column is a step; a removed token keeps its row, gray and hatched, at the length that it had. On the last column
    a diamond is the share of draws, over the bar that says what it should be. A narrow page shows the first and the
    last column only.

    Args:
        stages: the steps in order, [V] each; the first fixes the order of the rows.
        counts: [V], draws of each token from the last stage.
        words: token id -> text.
        chosen: the token of the first draw.
        top: the number of rows.

    Raises:
        ParameterError: no stages, stages or counts over vocabularies of different sizes, or no draws.
    """
    masses = _masses(stages)
    seen = np.asarray(counts, dtype=np.float64)
    if seen.shape != masses[0].shape or seen.sum() <= 0:
        raise ParameterError(
            f"counts of shape {seen.shape} with {seen.sum():g} draws, for {len(masses[0])} tokens",
            why="each token needs its count, and at least one draw was made",
            fix="numpy.bincount(draws, minlength=len(probabilities))",
        )
    ids = [int(token) for token in np.argsort(-masses[0], kind="stable")[:top]]
    share = seen / seen.sum()

    def draw(theme: Theme) -> Figure:
        shown = list(range(len(stages))) if theme.width >= NARROW else sorted({0, len(stages) - 1})
        figure, grid = theme.figure(0.75 + 0.22 * len(ids), columns=len(shown), sharey=True, squeeze=False)
        for axes, index in zip(grid[0], shown, strict=True):
            final = index == len(stages) - 1
            before = masses[max(index - 1, 0)] if theme.width >= NARROW else masses[0]
            for row, token in enumerate(ids):
                reach = share[token] if final else 0.0
                _step_bar(axes, theme, row, masses[index][token], before[token], reach, final and token == chosen)
            if final:
                drawn = [(row, share[token]) for row, token in enumerate(ids) if masses[index][token] > 0]
                shape: dict[str, Any] = {"markeredgecolor": theme.ink, "markeredgewidth": 0.8, "markersize": 5}
                axes.plot(
                    [x for _, x in drawn],
                    [row for row, _ in drawn],
                    "D",
                    color=ROLES["generated"],
                    clip_on=False,
                    **shape,
                )
            axes.set_xlim(0, 1.6)
            axes.set_title(stages[index].name, fontsize=9)
            level_bars(axes, [visible(words(token)) for token in ids], theme)
            kept = int((masses[index] > 0).sum())
            axes.set_xlabel(f"{kept:,} kept", color=theme.muted, loc="left", fontsize=8)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def curves(
    x: ArrayLike,
    series: Mapping[str, ArrayLike],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    mark: tuple[float, str] | None = None,
    level: tuple[float, str] | None = None,
    highlight: str | None = None,
    badge: str = "measured here",
) -> LabFigure:
    """Named lines over one x axis, each with its own stroke, marker, and name at its end.

    Args:
        x: [n], rising.
        series: name -> [n].
        log_x, log_y: logarithmic axes.
        mark: an x value and its name, as a vertical rule.
        level: a y value and its name, as a horizontal rule.
        highlight: the series drawn in the color that says "look here".
    """
    places = np.asarray(x, dtype=np.float64)
    lines = {name: np.asarray(values, dtype=np.float64) for name, values in series.items()}
    if not lines or any(values.shape != places.shape for values in lines.values()):
        raise ParameterError(
            f"{len(places)} places, and series of {[values.size for values in lines.values()]} values",
            why="each line needs one value a place",
            fix="give at least one series, each as long as x",
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=2.7)
        axes.set(
            xlabel=x_label, ylabel=y_label, xscale="log" if log_x else "linear", yscale="log" if log_y else "linear"
        )
        colors = [ROLES["chosen"] if name == highlight else theme.ink for name in lines]
        every = max(1, len(places) // 10)
        for rank, (values, color) in enumerate(zip(lines.values(), colors, strict=True)):
            style, marker = STROKES[rank % len(STROKES)]
            axes.plot(places, values, style, marker=marker, markevery=every, markersize=4, color=color)
        axes.set_xlim(places[0], places[-1])
        axes.grid(axis="y")
        if mark is not None:
            axes.axvline(mark[0], color=theme.muted, linewidth=0.8)
            axes.text(mark[0], 1.01, f" {mark[1]}", color=theme.muted, transform=axes.get_xaxis_transform())
        if level is not None:
            axes.axhline(level[0], color=theme.muted, linewidth=0.8, linestyle="--")
            axes.text(0.01, level[0], level[1], color=theme.muted, va="bottom", transform=axes.get_yaxis_transform())
        axes.set_ylim(axes.get_ylim())  # the labels below need the final limits
        ends = [(float(places[-1]), float(values[-1])) for values in lines.values()]
        label_ends(axes, theme, ends, list(lines), colors)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _masses(stages: Sequence[Stage]) -> list[NDArray[np.float64]]:
    masses = [np.asarray(stage.probabilities, dtype=np.float64) for stage in stages]
    if len({mass.shape for mass in masses}) != 1 or masses[0].ndim != 1:
        raise ParameterError(
            f"stages of shapes {[mass.shape for mass in masses]}",
            why="one token is compared through all stages, so each stage holds the full vocabulary [V]",
            fix="give at least one stage; removed tokens have probability 0",
        )
    return masses


def _picked(mass: NDArray[np.float64], u: float) -> int:
    order = np.argsort(-mass, kind="stable")
    return int(order[np.searchsorted(np.cumsum(mass[order]), u * mass.sum())])


def _ruler(
    axes: Axes, theme: Theme, row: int, mass: NDArray[np.float64], words: Words, names: int, numbers: Sequence[float]
) -> None:
    ids = [int(token) for token in np.argsort(-mass, kind="stable")[:names]]
    own = [float(mass[token]) for token in ids]
    widths = [*own, max(float(mass.sum()) - sum(own), 0.0)]
    labels = [*(visible(words(token)) for token in ids), "all others"]
    ends = np.cumsum(widths)
    hit = {int(np.searchsorted(ends, u * ends[-1])) for u in numbers}
    for index, (end, width, label) in enumerate(zip(ends, widths, labels, strict=True)):
        role = "chosen" if index in hit else "free" if index == len(ids) else "kept"
        axes.barh(row, width, left=end - width, height=0.62, **theme.fill(role))
        if width * theme.width > 0.1 * len(label) + 0.12:
            color = theme.ink if role == "free" else lettering(ROLES[role])
            box = {"facecolor": ROLES[role], "edgecolor": "none", "pad": 1} if role == "chosen" else None
            axes.text(end - width / 2, row, label, ha="center", va="center", color=color, fontsize=8, bbox=box)


def _step_bar(axes: Axes, theme: Theme, row: int, mass: float, before: float, reach: float, chosen: bool) -> None:
    gone = mass == 0
    role = "removed" if gone else "chosen" if chosen else "kept"
    length = before if gone else mass
    axes.barh(row, length, height=0.72, **theme.fill(role))
    text = "out" if gone else f"{mass:.2f}" if mass >= 0.0095 else f"{mass:.3f}" if mass >= 0.0005 else "<0.001"
    axes.text(
        max(length, reach) + (0.05 if reach == 0 and gone else 0.09),
        row,
        text,
        va="center",
        fontsize=8,
        color=theme.muted if gone else theme.ink,
    )
