"""A roofline: how fast work can be, by the operations it does for each byte that it reads.

Williams, Waterman and Patterson 2009, "Roofline: An Insightful Visual Performance Model".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLE_MARKS = {"generated": "o", "prompt": "s", "chosen": "D", "kept": "^"}


@dataclass(frozen=True)
class Work:
    """One dot.

    Args:
        name: written beside it.
        intensity: operations for each byte of memory that is read, FLOP/B.
        rate: operations a second that were reached, GFLOP/s.
        role: its color and marker: ``generated`` for decode, ``prompt`` for prefill, ``chosen`` or ``kept``.
    """

    name: str
    intensity: float
    rate: float
    role: str = "prompt"


def roofline(
    works: Sequence[Work], *, bandwidth: float, peak: float, alt: str, badge: str = "measured here"
) -> LabFigure:
    """Dots under a roof: left of the ridge memory is the limit, right of it arithmetic.

    Args:
        works: what was run.
        bandwidth: of the memory, GB/s.
        peak: of the arithmetic, GFLOP/s.

    Raises:
        ParameterError: no dots, or a number that is not positive.
    """
    numbers = [bandwidth, peak, *(x for work in works for x in (work.intensity, work.rate))]
    if not works or min(numbers) <= 0:
        raise ParameterError(
            f"a roofline of {len(works)} dots over {numbers[:2]}",
            why="both axes are logarithmic, so each number is above 0",
            fix="measure bandwidth and peak first, and give at least one dot",
        )
    ridge = peak / bandwidth

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=3.2)
        low = min([ridge, *(work.intensity for work in works)]) / 2
        high = max([ridge, *(work.intensity for work in works)]) * 2.5
        axes.plot([low, ridge, high], [low * bandwidth, peak, peak], color=theme.ink, linewidth=1.8)
        axes.axvline(ridge, color=theme.muted, linewidth=0.8, linestyle="--")
        axes.set(xscale="log", yscale="log", xlim=(low, high))
        axes.set_xlabel("operations for each byte read, FLOP/B")
        axes.set_ylabel("GFLOP/s")
        bottom = min([low * bandwidth, *(work.rate for work in works)]) / 2
        axes.set_ylim(bottom, peak * 2)
        axes.text(ridge * 1.05, peak * 1.12, f"arithmetic: {peak:,.0f} GFLOP/s", fontsize=8)
        axes.text(ridge * 1.05, bottom * 1.2, f"ridge: {ridge:.1f} FLOP/B", fontsize=8, color=theme.muted)
        axes.annotate(
            f"memory: {bandwidth:,.0f} GB/s",
            (low * 1.3, low * 1.3 * bandwidth),
            xytext=(-2, 6),
            textcoords="offset points",
            rotation=45,
            rotation_mode="anchor",
            transform_rotates_text=True,
            fontsize=8,
        )
        for work in works:
            style = {"markersize": 6, "markeredgecolor": theme.ink, "markeredgewidth": 0.7, "linestyle": "none"}
            axes.plot(work.intensity, work.rate, ROLE_MARKS[work.role], color=ROLES[work.role], **style)
            axes.annotate(
                work.name, (work.intensity, work.rate), xytext=(5, -9), textcoords="offset points", fontsize=8
            )
        return figure

    return LabFigure(draw, alt=alt, badge=badge)
