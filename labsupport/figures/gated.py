"""The gated feed-forward: which branch goes through the activation, and what each branch's values look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def gated_mlp(*, alt: str) -> LabFigure:
    """The three linear layers with both formats' names, the activation on the upper branch."""

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=1.75)
        _box(axes, theme, (0.0, 0.0), "x", "")
        _box(axes, theme, (1.25, 0.6), "fc", "HF: gate_proj", marked=True)
        _box(axes, theme, (1.25, -0.6), "gate", "HF: up_proj")
        _box(axes, theme, (2.5, 0.6), "act", "", marked=True)
        _box(axes, theme, (3.5, 0.0), "×", "")
        _box(axes, theme, (4.5, 0.0), "proj", "HF: down_proj")
        _box(axes, theme, (5.5, 0.0), "y", "")
        ends = [((0.2, 0.1), (0.86, 0.55)), ((0.2, -0.1), (0.86, -0.55)), ((1.63, 0.6), (2.17, 0.6))]
        ends += [
            ((2.83, 0.55), (3.32, 0.12)),
            ((1.63, -0.6), (3.32, -0.12)),
            ((3.68, 0), (4.1, 0)),
            ((4.9, 0), (5.3, 0)),
        ]
        for start, end in ends:
            arrow = {"arrowstyle": "-|>", "color": theme.muted, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=end, xytext=start, arrowprops=arrow)
        axes.set_xlim(-0.35, 5.85)
        axes.set_ylim(-1.2, 1.05)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge="diagram")


def gated_branches(activated: ArrayLike, plain: ArrayLike, *, alt: str, badge: str = "measured here") -> LabFigure:
    """Histograms of both branches on one scale: how many values are how large.

    Args:
        activated: act(fc(x)), any shape.
        plain: gate(x), the same shape.

    Raises:
        ParameterError: the two do not have the same shape.
    """
    upper, lower = np.asarray(activated, dtype=np.float64), np.asarray(plain, dtype=np.float64)
    if upper.shape != lower.shape or not upper.size:
        raise ParameterError(
            f"branches of shape {upper.shape} and {lower.shape}",
            why="they are multiplied, value by value",
            fix="give both branches of the same tokens",
        )
    span = float(np.quantile(np.abs(np.concatenate([upper.ravel(), lower.ravel()])), 0.999))
    edges = np.linspace(-span, span, 81)

    def draw(theme: Theme) -> Figure:
        figure, rows = theme.figure(height=2.9, rows=2, sharex=True)
        for axes, values, name in ((rows[0], upper, "act(fc(x))"), (rows[1], lower, "gate(x)")):
            role = "chosen" if name.startswith("act") else "free"
            color = ROLES[role]
            shares = np.histogram(values, edges)[0] / values.size
            axes.stairs(shares, edges, fill=True, facecolor=color, edgecolor=theme.ink, linewidth=0.4)
            axes.axvline(values.min(), color=theme.ink, linestyle="--", linewidth=1) if values.min() > -span else None
            axes.set_yscale("log")
            axes.set_ylim(0.5 / values.size, 1)
            axes.set_ylabel("share")
            words = f"{name}\nfrom {values.min():.2f} to {values.max():.2f}"
            axes.text(0.99, 0.93, words, transform=axes.transAxes, ha="right", va="top", linespacing=1.3)
        rows[1].set_xlabel("value of one of the inner channels")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _box(axes: Axes, theme: Theme, place: tuple[float, float], name: str, other: str, *, marked: bool = False) -> None:
    edge = ROLES["chosen"] if marked else theme.muted
    box = {"boxstyle": "round,pad=0.45", "facecolor": theme.soft, "edgecolor": edge, "linewidth": 2 if marked else 1}
    axes.text(*place, name, ha="center", va="center", bbox=box, fontweight="bold" if marked else "normal")
    axes.text(place[0], place[1] - 0.34, other, ha="center", va="top", fontsize=8, color=theme.muted)
