"""An engine's build as pictures: the clock of its phases, and a memory budget, step by step, against a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import level_bars
from labsupport.figures.style import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROW = 4.0  # inches: a panel of small multiples


@dataclass(frozen=True)
class Span:
    """One phase.

    Args:
        name: at the left of its bar.
        began, seconds: after the start, and how long.
        role: its color; a plain box where it is empty.
    """

    name: str
    began: float
    seconds: float
    role: str = ""


@dataclass(frozen=True)
class Step:
    """One item of a budget.

    Args:
        name: at the left of its bar.
        size: GB (10^9 bytes).
        role: its color; a plain box where it is empty.
    """

    name: str
    size: float
    role: str = ""


def timeline(spans: Sequence[Span], *, alt: str, title: str = "", badge: str = "measured here") -> LabFigure:
    """A bar for each phase on one clock; bars above each other ran at the same time.

    Args:
        spans: top to bottom.

    Raises:
        ParameterError: no spans, or one that began before the start or took negative time.
    """
    if not spans or any(min(span.began, span.seconds) < 0 for span in spans):
        raise ParameterError(
            "no spans, or a negative time", why="a clock runs from 0 on", fix="give at least one span, in seconds"
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.7 + 0.25 * len(spans))
        level_bars(axes, [span.name for span in spans], theme)
        end = max(span.began + span.seconds for span in spans)
        for row, span in enumerate(spans):
            axes.barh(row, max(span.seconds, 0.002 * end), left=span.began, height=0.62, **_style(theme, span.role))
            at = (span.began + span.seconds, row)
            axes.annotate(
                f"{span.seconds:.1f} s", at, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8,
                bbox={"facecolor": theme.paper, "edgecolor": "none", "pad": 1},
            )  # fmt: skip
        axes.set_xlim(0, 1.12 * end)
        axes.xaxis.set_major_locator(_ticks())
        axes.set_xlabel("seconds after the start", fontsize=8)
        axes.grid(axis="x")
        axes.set_title(title)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def budget(
    steps: Sequence[Step], *, capacity: float, device: str, alt: str, title: str = "", badge: str = "simulated"
) -> LabFigure:
    """Bars that begin where the one before ends, and the line that the last must not cross.

    Args:
        steps: top to bottom.
        capacity: the device's memory in GB.
        device: its name, under the axis.

    Raises:
        ParameterError: no steps, or a negative size.
    """
    if not steps or any(step.size < 0 for step in steps):
        raise ParameterError(
            "no steps, or a negative size", why="a size in memory is 0 or more", fix="give each item its size"
        )
    total = sum(step.size for step in steps)

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.95 + 0.27 * len(steps))
        level_bars(axes, [f"{step.name} {_amount(step.size)}" for step in steps], theme)
        axes.tick_params(axis="y", labelsize=8)
        reach, left = 1.3 * capacity, 0.0
        for row, step in enumerate(steps):
            shown = min(left, reach)
            axes.barh(row, min(step.size, reach - shown), left=shown, height=0.62, **_style(theme, step.role))
            left += step.size
            if left > reach:
                axes.annotate("→", (reach, row), xytext=(1, 0), textcoords="offset points", va="center")
        axes.axvline(capacity, color=theme.ink, linewidth=1.4, linestyle="--")
        axes.set_xlim(0, reach)
        axes.xaxis.set_major_locator(_ticks(4 if theme.width < NARROW else 8))
        axes.set_xlabel(f"GB; dashed: {device}", fontsize=8)
        verdict = f"{total:.1f} GB {'✓ fits' if total <= capacity else '✗ too big'}"
        axes.set_title(f"{title}: {verdict}" if title else verdict, fontsize=9)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _style(theme: Theme, role: str) -> dict[str, Any]:
    return theme.fill(role) if role else {"facecolor": theme.soft, "edgecolor": theme.muted, "linewidth": 0.6}


def _amount(size: float) -> str:
    return f"{size:.2f}" if size < 0.995 else f"{size:.1f}"


def _ticks(most: int = 8) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, integer=True)
