"""What the probability of a text tells: how sure each token was, and which answers a threshold lets through."""

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


def token_probabilities(texts: Mapping[str, ArrayLike], *, alt: str, badge: str = "measured here") -> LabFigure:
    """One row of bars a text: the probability of each of its tokens, with the geometric mean as a rule.

    Args:
        texts: name -> [n], the probability of each token given what stands before it, above 0.

    Raises:
        ParameterError: no texts, or a number that is no probability.
    """
    rows = {name: np.asarray(values, dtype=np.float64) for name, values in texts.items()}
    if not rows or any(row.size == 0 or row.min() <= 0 or row.max() > 1 for row in rows.values()):
        raise ParameterError(
            "a text without tokens, or a token with no probability in (0, 1]",
            why="each bar is the probability of one token that was written",
            fix="give at least one text; numpy.exp(token_logprobs) of what was written is never 0",
        )
    longest = max(row.size for row in rows.values())

    def draw(theme: Theme) -> Figure:
        figure, grid = theme.figure(0.45 + 0.85 * len(rows), rows=len(rows), sharex=True, squeeze=False)
        for axes, (name, row) in zip(grid[:, 0], rows.items(), strict=True):
            places = np.arange(1, row.size + 1)
            mean = float(np.exp(np.log(row).mean()))
            axes.bar(places, row, width=0.8, **theme.fill("generated"))
            axes.axhline(mean, color=theme.ink, linewidth=1.2, linestyle="--")
            axes.set(xlim=(0.3, longest + 0.7), ylim=(0, 1), yticks=[0, 1])
            axes.set_title(f"{name}   (dashed: geometric mean {mean:.2f})", fontsize=9)
        grid[-1, 0].set_xlabel("token")
        figure.supylabel("probability", fontsize=9)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def separation(
    names: Sequence[str],
    scores: ArrayLike,
    suspects: Sequence[bool],
    *,
    alt: str,
    threshold: float | None = None,
    score_name: str = "score",
    classes: tuple[str, str] = ("to pass", "to catch"),
    badge: str = "measured here",
) -> LabFigure:
    """Cases on one axis, lowest score first, with a threshold that catches what lies below; beside it the ROC curve.

    Args:
        names: [n], one a case.
        scores: [n], low for a case to catch.
        suspects: [n], whether a case should be caught.
        threshold: what lies below it is caught.
        score_name: the label of the axis.
        classes: what to call the cases to pass (dots) and those to catch (crosses).

    Raises:
        ParameterError: unequal lengths, or only one class.
    """
    values, wanted = np.asarray(scores, dtype=np.float64), np.asarray(suspects, dtype=bool)
    if not len(names) == values.size == wanted.size or wanted.all() or not wanted.any():
        raise ParameterError(
            f"{len(names)} names, {values.size} scores, {int(wanted.sum())} of {wanted.size} to catch",
            why="a separation is drawn for cases of both classes, each with a name and a score",
            fix="give one name, score and flag a case, and at least one case of each class",
        )
    order = np.argsort(values, kind="stable")

    def draw(theme: Theme) -> Figure:
        figure, (strip, curve) = theme.figure(0.8 + 0.19 * values.size, columns=2, width_ratios=[1.25, 1])
        for row, index in enumerate(order):
            color, marker = (ROLES["chosen"], "X") if wanted[index] else (ROLES["kept"], "o")
            strip.plot(values[index], row, marker, color=color, markersize=7, markeredgecolor=theme.ink)
        strip.set_yticks(range(values.size), [_shortened(names[index]) for index in order], fontsize=8)
        strip.set_ylim(values.size - 0.4, -0.6)
        strip.tick_params(axis="y", length=0)
        strip.grid(axis="both")
        strip.set_xlabel(score_name)
        strip.set_title(f"● {classes[0]}   ✖ {classes[1]}", fontsize=9)
        if threshold is not None:
            strip.axvline(threshold, color=theme.ink, linewidth=1.2, linestyle="--")
            label = f" {threshold:.2f}".replace("-", "−")
            strip.text(threshold, values.size - 0.5, label, va="bottom", fontsize=8)
        _roc(curve, theme, values, wanted, threshold)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _roc(
    axes: Axes, theme: Theme, values: NDArray[np.float64], wanted: NDArray[np.bool_], threshold: float | None
) -> None:
    cuts = [-np.inf, *np.sort(values), np.inf]
    caught = [float((values[wanted] < cut).mean()) for cut in cuts]
    bothered = [float((values[~wanted] < cut).mean()) for cut in cuts]
    area = float(np.mean([(p > s) + 0.5 * (p == s) for p in values[~wanted] for s in values[wanted]]))
    axes.plot([0, 1], [0, 1], ":", color=theme.muted, linewidth=1)
    axes.plot(bothered, caught, "-", color=theme.ink)
    axes.text(0.97, 0.05, f"area {area:.2f}\n(0.5 is chance)", ha="right", fontsize=8, color=theme.ink)
    if threshold is not None:
        point = float((values[~wanted] < threshold).mean()), float((values[wanted] < threshold).mean())
        axes.plot(*point, "D", color=theme.paper, markersize=8, markeredgecolor=theme.ink, clip_on=False, zorder=3)
        axes.annotate("the cut", point, xytext=(10, -12), textcoords="offset points", fontsize=8, color=theme.ink)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal", anchor="N", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes.set_xlabel("share of ● below")
    axes.set_ylabel("share of ✖ below")
    axes.set_title("every threshold (ROC)", fontsize=9)


def _shortened(name: str, most: int = 34) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
