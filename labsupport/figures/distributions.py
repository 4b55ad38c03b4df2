"""Next-token distributions: bars, the token ribbon, the sampling waterfall, draws against theory, temperature."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import STROKES, label_ends, level_bars
from labsupport.figures.style import ROLES, Theme, lettering, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Words = Callable[[int], str]
"""Token id -> its text, as ``tokenizer.decode`` or ``list.__getitem__`` gives it."""


@dataclass(frozen=True)
class Stage:
    """The distribution after one step of a sampler.

    Args:
        name: the step, as ``top-k = 3``.
        probabilities: [V], 0 where a step has removed the token.
    """

    name: str
    probabilities: ArrayLike


def next_token(
    probabilities: ArrayLike,
    words: Words,
    *,
    alt: str,
    top: int = 10,
    chosen: int | None = None,
    removed: Collection[int] = (),
    full: float | None = None,
    title: str = "",
    badge: str = "measured here",
) -> LabFigure:
    """Horizontal bars of the most probable next tokens, white space visible, and the mass of all others in a line.

    Args:
        probabilities: [V], summing to 1.
        words: token id -> text.
        top: the number of bars.
        chosen: the id that was picked, if any.
        removed: ids that a step took out; their bars stay, hatched.
        full: the probability of a bar of full length, the same in panels to be compared; the longest bar when None.
    """
    mass = _mass(probabilities)
    ids = _leaders(mass, top)

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.55 + 0.23 * len(ids))
        _bars(axes, theme, mass, ids, words, chosen, removed, full)
        axes.set_title(title)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def token_ribbon(
    tokens: Sequence[str],
    ids: Sequence[int],
    probabilities: ArrayLike,
    words: Words,
    *,
    alt: str,
    top: int = 10,
    chosen: int | None = None,
    read: int | None = None,
    badge: str = "measured here",
) -> LabFigure:
    """The prompt as a ribbon of tokens with their ids, over the bars of what may come next.

    Args:
        tokens, ids: the prompt, in order: text and id of each token.
        probabilities: [V], for the position after the last token that was read.
        words: token id -> text.
        top: the number of bars.
        chosen: the id that was picked, if any.
        read: how many tokens the model has read; those after it are outlines. All of them when None.
    """
    mass = _mass(probabilities)
    leaders = _leaders(mass, top)

    def draw(theme: Theme) -> Figure:
        rows = _ribbon_rows([visible(token) for token in tokens], theme.width)
        heights = [0.5 * len(rows), 0.5 + 0.23 * len(leaders)]
        figure, (ribbon, axes) = theme.figure(sum(heights), rows=2, height_ratios=heights)
        _ribbon(ribbon, theme, rows, ids, len(tokens) if read is None else read)
        _bars(axes, theme, mass, leaders, words, chosen)
        axes.set_title("the next token")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def waterfall(
    stages: Sequence[Stage],
    words: Words,
    *,
    alt: str,
    top: int = 10,
    chosen: int | None = None,
    badge: str = "measured here",
) -> LabFigure:
    """A sampler at work, one column a step: removed tokens stay in their row, gray and hatched, as they were before.

    Args:
        stages: in the order of the sampler; the first fixes the order of the rows.
        words: token id -> text.
        top: the number of rows.
        chosen: the id that was drawn in the end, if any.

    Raises:
        ParameterError: no stages, or stages over vocabularies of different sizes.
    """
    masses = [_mass(stage.probabilities) for stage in stages]
    if len({len(mass) for mass in masses}) != 1:
        raise ParameterError(
            f"stages over vocabularies of {[len(mass) for mass in masses]} tokens",
            why="a row of the waterfall is one token through all stages",
            fix="give at least one stage, each with the full vocabulary; removed tokens have probability 0",
        )
    ids = _leaders(masses[0], top)

    def draw(theme: Theme) -> Figure:
        columns = len(stages)
        figure, grid = theme.figure(0.6 + 0.24 * len(ids), columns=columns, sharey=True, squeeze=False)
        before = masses[0]
        longest = max(float(mass[ids].max()) for mass in masses)
        for axes, stage, mass in zip(grid[0], stages, masses, strict=True):
            for row, token in enumerate(ids):
                gone = mass[token] == 0
                role = "removed" if gone else "chosen" if token == chosen and mass is masses[-1] else "kept"
                length = before[token] if gone else mass[token]
                axes.barh(row, length, height=0.72, **theme.fill(role))
                text = "out" if gone else _short(mass[token])
                if gone:
                    axes.axhspan(row - 0.5, row + 0.5, color=theme.soft, linewidth=0, zorder=0)
                axes.text(
                    length + 0.04 * longest,
                    row,
                    text,
                    va="center",
                    fontsize=8,
                    color=theme.muted if gone else theme.ink,
                )
            before = np.where(mass > 0, mass, before)
            axes.set_xlim(0, 1.6 * longest)
            axes.set_title(stage.name, fontsize=9)
            level_bars(axes, [visible(words(token)) for token in ids], theme)
        if chosen in ids:
            label = grid[0][0].get_yticklabels()[ids.index(chosen)]
            label.set_fontweight("bold")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def draws_against_theory(
    counts: ArrayLike,
    probabilities: ArrayLike,
    words: Words,
    *,
    alt: str,
    top: int = 10,
    badge: str = "measured here",
) -> LabFigure:
    """How often tokens were drawn, beside how often they should be: exact bars, observed dots, two standard errors.

    Args:
        counts: [V], draws of each token.
        probabilities: [V], the exact distribution.
        words: token id -> text.
        top: the number of rows.
    """
    mass, seen = _mass(probabilities), np.asarray(counts, dtype=np.float64)
    if seen.shape != mass.shape or seen.sum() <= 0:
        raise ParameterError(
            f"counts of shape {seen.shape} with {seen.sum():g} draws, for {len(mass)} tokens",
            why="each token needs its count, and at least one draw was made",
            fix="numpy.bincount(draws, minlength=len(probabilities))",
        )
    ids = _leaders(mass, top)

    def draw(theme: Theme) -> Figure:
        total = seen.sum()
        exact, rate = mass[ids], seen[ids] / total
        reach = 2 * np.sqrt(exact * (1 - exact) / total)
        figure, axes = theme.figure(height=0.75 + 0.23 * len(ids))
        rows = np.arange(len(ids))
        axes.barh(rows, exact, height=0.72, **theme.fill("kept"))
        axes.errorbar(exact, rows, xerr=reach, fmt="none", ecolor=theme.ink, elinewidth=1, capsize=2.5)
        axes.plot(
            rate, rows, "D", color=ROLES["generated"], markeredgecolor=theme.ink, markeredgewidth=0.8, markersize=6
        )
        for row, (p, f, r) in enumerate(zip(exact, rate, reach, strict=True)):
            place = max(p + r, f) + 0.02 * exact.max()
            axes.text(place, row, f"{_short(f)} of draws, exact {_short(p)}", va="center", fontsize=8)
        axes.set_xlim(0, 1.6 * max(exact.max(), rate.max()))
        level_bars(axes, [visible(words(token)) for token in ids], theme)
        axes.set_title(f"bar: exact, whisker: ± 2 standard errors, diamond: share of {total:,.0f} draws", fontsize=9)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def temperature_curves(
    temperatures: ArrayLike,
    probabilities: ArrayLike,
    words: Words,
    *,
    alt: str,
    top: int = 5,
    mark: float | None = 1.0,
    badge: str = "measured here",
) -> LabFigure:
    """Each token's probability as the temperature rises, its name at the end of its line.

    Args:
        temperatures: [n], rising.
        probabilities: [n, V], one distribution a temperature.
        words: token id -> text.
        top: the number of lines: the leaders at the lowest temperature.
        mark: a temperature to mark with a rule.
    """
    grid, mass = np.asarray(temperatures, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    ids = _leaders(mass.mean(axis=0), top)

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=2.9)
        colors = [ROLES["chosen"], *[theme.ink] * (len(ids) - 1)]
        for rank, (token, color) in enumerate(zip(ids, colors, strict=True)):
            style, marker = STROKES[rank % len(STROKES)]
            every = max(1, len(grid) // 8)
            axes.plot(grid, mass[:, token], style, marker=marker, markevery=every, markersize=4, color=color)
        if mark is not None:
            axes.axvline(mark, color=theme.muted, linewidth=0.8)
            axes.text(mark, 1.01, f" T = {mark:g}", color=theme.muted, transform=axes.get_xaxis_transform())
        axes.set_xlim(grid[0], grid[-1])
        axes.set_ylim(0, 1)
        axes.grid(axis="y")
        axes.set_xlabel("temperature T")
        axes.set_ylabel("probability")
        names = [visible(words(token)) for token in ids]
        label_ends(axes, theme, [(grid[-1], mass[-1, token]) for token in ids], names, colors)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _mass(probabilities: ArrayLike) -> NDArray[np.float64]:
    mass = np.asarray(probabilities, dtype=np.float64)
    if mass.ndim != 1 or mass.size == 0 or not np.isclose(mass.sum(), 1.0, atol=1e-3) or mass.min() < 0:
        raise ParameterError(
            f"an array of shape {mass.shape} with sum {mass.sum():g} is no distribution",
            why="a figure of probabilities takes one row [V] of numbers from 0 on that sum to 1",
            fix="apply softmax to the logits of one position first",
        )
    return mass


def _leaders(mass: NDArray[np.float64], top: int) -> list[int]:
    """Ids by falling probability; the lower id first where two are equal."""
    return [int(token) for token in np.argsort(-mass, kind="stable")[:top]]


def _short(p: float) -> str:
    return f"{p:.2f}" if p >= 0.0095 else f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}".replace("e-0", "e-")


def _bars(
    axes: Axes,
    theme: Theme,
    mass: NDArray[np.float64],
    ids: Sequence[int],
    words: Words,
    chosen: int | None,
    removed: Collection[int] = (),
    full: float | None = None,
) -> None:
    longest = full or float(mass[ids].max())
    for row, token in enumerate(ids):
        role = "chosen" if token == chosen else "removed" if token in removed else "kept"
        axes.barh(row, mass[token], height=0.72, **theme.fill(role))
        note = {"chosen": "  ◀ chosen", "removed": "  removed", "kept": ""}[role]
        axes.text(mass[token] + 0.01 * longest, row, _short(mass[token]) + note, va="center")
    level_bars(axes, [visible(words(token)) for token in ids], theme)
    axes.set_xlim(0, longest * (1 + 1.7 / theme.width))  # room for the words at the end of the longest bar
    others = len(mass) - len(ids)
    if others:
        rest = f"{others:,} other tokens share {_short(max(1 - float(mass[ids].sum()), 0.0))}"
        axes.set_xlabel(rest, color=theme.muted, loc="left")


def _ribbon_rows(tokens: Sequence[str], width: float) -> list[list[tuple[int, str, float]]]:
    """Break the ribbon into rows: (index, text, width in inches) of each token."""
    rows: list[list[tuple[int, str, float]]] = [[]]
    used = 0.0
    for index, text in enumerate(tokens):
        need = max(0.095 * len(text) + 0.2, 0.5)
        if rows[-1] and used + need > width - 0.2:
            rows.append([])
            used = 0.0
        rows[-1].append((index, text, need))
        used += need
    return rows


def _ribbon(axes: Axes, theme: Theme, rows: list[list[tuple[int, str, float]]], ids: Sequence[int], read: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    for line, row in enumerate(rows):
        left = 0.0
        for index, text, width in row:
            place, size = (left + 0.04, -line + 0.42), (width - 0.08, 0.5)
            shape = "round,pad=0,rounding_size=0.06"
            style = theme.fill("prompt" if index < read else "free")
            axes.add_patch(FancyBboxPatch(place, *size, boxstyle=shape, mutation_aspect=2, **style))
            middle = left + width / 2
            ink = lettering(ROLES["prompt"]) if index < read else theme.muted
            axes.text(middle, -line + 0.66, text, ha="center", va="center", color=ink)
            axes.text(middle, -line + 0.24, str(ids[index]), ha="center", va="center", fontsize=8, color=theme.muted)
            left += width
    axes.set_xlim(0, theme.width - 0.2)
    axes.set_ylim(1 - len(rows), 1)
    axes.axis("off")
