"""The forward pass on one page: the shapes that a prompt takes on its way, and one answer on three scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labsupport.errors import ParameterError
from labsupport.figures.distributions import Words
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import level_bars
from labsupport.figures.style import Theme, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shape:
    """A station of the ribbon.

    Args:
        name: what it holds, such as ``logits``.
        sizes: the array's axes, one to three numbers.
        step: what was done to get here from the station before.
    """

    name: str
    sizes: tuple[int, ...]
    step: str = ""


def shape_ribbon(shapes: Sequence[Shape], *, alt: str, badge: str = "measured here") -> LabFigure:
    """The arrays of a computation in order: a block for each, as wide as its last axis (by logarithm), with its sizes.

    Args:
        shapes: in the order in which they are made.

    Raises:
        ParameterError: no shapes, or one with an axis below 1.
    """
    if not shapes or any(not shape.sizes or min(shape.sizes) < 1 for shape in shapes):
        raise ParameterError(
            f"{len(shapes)} shapes, or one without sizes",
            why="each station holds an array with at least one entry",
            fix='Shape("logits", tuple(logits.shape))',
        )

    def draw(theme: Theme) -> Figure:
        from matplotlib.patches import Rectangle

        figure, axes = theme.figure(height=0.25 + 0.36 * len(shapes))
        widest = max(np.log2(2 * shape.sizes[-1]) for shape in shapes)
        for row, shape in enumerate(shapes):
            width = 3.0 * np.log2(2 * shape.sizes[-1]) / widest
            style = {**theme.fill("prompt"), "alpha": 0.85}
            axes.add_patch(Rectangle((1.45, row + 0.14), width, 0.72, **style))
            axes.text(1.35, row + 0.5, shape.name, ha="right", va="center", fontweight="bold")
            sizes = " × ".join(f"{size:,}" for size in shape.sizes)
            axes.text(1.55 + width, row + 0.5, sizes, va="center")
            if shape.step:
                axes.text(5.65, row + 0.5, shape.step, va="center", color=theme.muted, fontsize=8)
        axes.set_xlim(0, 8.2)
        axes.set_ylim(len(shapes), 0)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def three_scales(logits: ArrayLike, words: Words, *, alt: str, top: int = 8, badge: str = "measured here") -> LabFigure:
    """The leading tokens as logits, as log-probabilities and as probabilities, row by row.

    Args:
        logits: [V], of one position.
        words: token id -> text.
        top: the number of rows.

    Raises:
        ParameterError: not one row of finite logits.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 1 or not np.isfinite(z).all():
        raise ParameterError(
            f"logits of shape {z.shape}", why="the scales show one position", fix="give model(...).logits[0, -1]"
        )
    log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
    ids = [int(token) for token in np.argsort(-z, kind="stable")[:top]]
    columns = (("logit z", z, "{:.1f}"), ("ln p = z − ln Σ exp(z)", log_p, "{:.1f}"), ("p", np.exp(log_p), "{:.3f}"))

    def draw(theme: Theme) -> Figure:
        figure, grid = theme.figure(0.6 + 0.24 * len(ids), columns=3, sharey=True)
        for axes, (title, values, form) in zip(grid, columns, strict=True):
            shown = values[ids]
            axes.barh(range(len(ids)), shown, height=0.72, **theme.fill("kept"))
            span = np.abs(shown).max()
            for row, value in enumerate(shown):
                side = "right" if value < 0 else "left"
                axes.text(value + np.copysign(0.03 * span, value), row, form.format(value), va="center", ha=side)
            axes.set_xlim(*((-1.35 * span, 0) if shown.max() <= 0 else (0, 1.35 * span)))
            axes.set_title(title, fontsize=9)
            level_bars(axes, [visible(words(token)) for token in ids], theme)
            if shown.max() <= 0:  # these bars hang from the right
                axes.spines["left"].set_visible(False)
                axes.spines["right"].set(visible=True, color=theme.muted)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)
