"""Validation: where answers part, how long equal texts last, whether draws fit, which check sees which fault."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def divergence(
    words: Sequence[str], margins: ArrayLike, behind: ArrayLike, tolerance: float, *, alt: str,
    badge: str = "measured here",
) -> LabFigure:  # fmt: skip
    """One answer, token by token: how clear the reference's choice was, and how far behind it the token that came.

    Args:
        words: [n], the tokens of the answer.
        margins: [n], the reference's largest logit less its second largest.
        behind: [n], the reference's largest logit less that of the token that came; 0 where it is the same token.
        tolerance: behind by more is a fault.

    Raises:
        ParameterError: unequal lengths, or nothing.
    """
    clear, far = np.asarray(margins, float), np.asarray(behind, float)
    if not len(words) == clear.size == far.size or not clear.size:
        raise ParameterError(
            f"{len(words)} tokens, {clear.size} margins, {far.size} distances",
            why="each token has one of each", fix="give three lists of one length",
        )  # fmt: skip
    places = np.arange(1, clear.size + 1)
    near, fault = (far > 0) & (far <= tolerance), far > tolerance

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(2.9)
        axes.plot(places, np.maximum(clear, 1e-3), color=ROLES["prompt"], marker=".", linewidth=1)
        axes.axhline(tolerance, color=theme.ink, linestyle="--", linewidth=1)
        axes.text(places[-1] + 0.4, tolerance, f"tolerance {tolerance:.2g}", ha="right", va="bottom", fontsize=8)
        for chosen, role, mark, name in ((near, "kept", "o", "near-tie"), (fault, "chosen", "X", "fault")):
            axes.scatter(places[chosen], np.maximum(far[chosen], 1e-3), s=55, marker=mark, color=ROLES[role], zorder=3,
                         edgecolor=theme.ink, linewidth=0.6)  # fmt: skip
            for place in places[chosen][:3]:
                axes.annotate(f"{name}: {visible(words[place - 1])}", (place, max(far[place - 1], 1e-3)),
                              xytext=(5, 6), textcoords="offset points", fontsize=8)  # fmt: skip
        axes.set(xlabel="token", ylabel="logits", yscale="log", xlim=(0.3, clear.size + 0.7))
        axes.set_title("blue: lead of the first over the second; marks: how far behind the token that came", fontsize=9)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def survival(same: ArrayLike, rate: float, *, alt: str, badge: str = "measured here") -> LabFigure:
    """The share of answers that are still equal after so many tokens, and what a rate of flips predicts.

    Args:
        same: [n answers], the tokens up to the first difference; the longest is the length of all.
        rate: flips a token.

    Raises:
        ParameterError: no answers.
    """
    lasted = np.asarray(same, float)
    if not lasted.size:
        raise ParameterError("no answers", why="there is nothing to count", fix="give the equal tokens of each")
    tokens = np.arange(0, int(lasted.max()) + 1)

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(2.5)
        share = [(lasted >= token).mean() for token in tokens]
        axes.step(tokens, share, where="post", color=ROLES["generated"], linewidth=2, label="measured")
        predicted = (1 - rate) ** tokens
        axes.plot(tokens, predicted, color=theme.ink, linestyle="--", linewidth=1.2, label=f"(1 - {rate:.3f}) ^ tokens")
        axes.set(xlabel="tokens", ylabel="share of equal answers", ylim=(0, 1.04), xlim=(0, tokens[-1]))
        axes.legend(frameon=False, loc="lower left")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def transforms(
    samples: Mapping[str, ArrayLike], *, alt: str, bins: int = 20, badge: str = "measured here"
) -> LabFigure:
    """Histograms of values that are uniform if a sampler is right, each beside the band of honest chance.

    Args:
        samples: name -> values in [0, 1].
        bins: of a histogram.

    Raises:
        ParameterError: no values.
    """
    rows = {name: np.asarray(values, float) for name, values in samples.items()}
    if not rows or not all(row.size for row in rows.values()):
        raise ParameterError("a histogram of nothing", why="no values were given", fix="give values between 0 and 1")

    def draw(theme: Theme) -> Figure:
        figure, grid = theme.figure(2.3, columns=len(rows), squeeze=False, sharey=True)
        for axes, (name, row) in zip(grid[0], rows.items(), strict=True):
            counts, edges = np.histogram(row, bins=bins, range=(0, 1))
            expected = row.size / bins
            band = 3 * np.sqrt(expected * (1 - 1 / bins)) / expected
            axes.bar(edges[:-1], counts / expected, width=1 / bins, align="edge", **theme.fill("generated"))
            axes.axhspan(1 - band, 1 + band, color=ROLES["cached"], alpha=0.35, zorder=0)
            axes.axhline(1, color=theme.ink, linewidth=1)
            axes.set(xlim=(0, 1), xlabel="transform")
            axes.set_title(f"{name}, n = {row.size:,}", fontsize=9)
        grid[0, 0].set_ylabel("count / expected")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


@dataclass(frozen=True)
class FaultRow:
    """A row of the detection matrix.

    Args:
        name: the fault.
        cells: what each column says: fail, pass, insufficient, or "" where it did not run.
        primary: the column that should name it.
        named: the column that is blamed; "" where nothing failed.
    """

    name: str
    cells: Sequence[str]
    primary: str
    named: str


def detection(columns: Sequence[str], rows: Sequence[FaultRow], split: int, *, alt: str, badge: str) -> LabFigure:
    """Faults against checks: a cross where a check rejects, a ring where the ladder puts the blame.

    Args:
        columns: levels, then baselines.
        rows: one a fault.
        split: columns before the line between levels and baselines.

    Raises:
        ParameterError: a row that is not as wide as the columns.
    """
    if not rows or any(len(row.cells) != len(columns) for row in rows):
        raise ParameterError(
            "a matrix with rows of another width", why="each check says something of each fault",
            fix=f"give {len(columns)} cells a row",
        )  # fmt: skip

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(0.9 + 0.155 * len(rows))
        for place, row in enumerate(rows):
            for column, cell in enumerate(row.cells):
                if cell == "fail":
                    role = "chosen" if column < split else "removed"
                    axes.scatter(column, place, s=34, marker="X", color=ROLES[role], linewidth=0)
                elif cell:
                    axes.scatter(column, place, s=6, marker="." if cell == "pass" else "d", color=theme.muted)
            if row.named in columns:
                color = theme.ink if row.named == row.primary else ROLES["prompt"]
                axes.scatter(columns.index(row.named), place, s=95, marker="o", facecolor="none", edgecolor=color)
        axes.axvline(split - 0.5, color=theme.ink, linewidth=0.8)
        axes.set(xlim=(-0.6, len(columns) - 0.4), ylim=(len(rows) - 0.4, -0.6))
        axes.set_xticks(range(len(columns)), columns, fontsize=7.5, rotation=40, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=7)
        axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
        axes.grid(visible=True, color=theme.grid, linewidth=0.4)
        axes.set_axisbelow(True)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


@dataclass(frozen=True)
class Check:
    """How good a check is: shares from 0 to 1, each with its interval."""

    name: str
    found: tuple[float, float, float]
    alarms: tuple[float, float, float]


def scoreboard(checks: Sequence[Check], *, alt: str, badge: str) -> LabFigure:
    """For each check the share of faults that it finds and the share of harmless servers that it rejects."""
    if not checks:
        raise ParameterError("no checks", why="there is nothing to draw", fix="give at least one")

    def draw(theme: Theme) -> Figure:
        figure, pair = theme.figure(0.75 + 0.27 * len(checks), columns=2, sharey=True)
        for axes, part, role, title in zip(
            pair, ("found", "alarms"), ("kept", "chosen"), ("faults found", "false alarms"), strict=True
        ):
            for place, check in enumerate(checks):
                value, low, high = getattr(check, part)
                axes.barh(place, value, height=0.62, **theme.fill(role))
                axes.plot([low, high], [place, place], color=theme.ink, linewidth=1.2)
                axes.text(1.03, place, f"{value:.0%}", va="center", ha="left", fontsize=8)
            axes.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "", "100 %"])
            axes.set_title(title, fontsize=9)
        pair[0].set_yticks(range(len(checks)), [check.name for check in checks])
        pair[0].invert_yaxis()
        return figure

    return LabFigure(draw, alt=alt, badge=badge)
