"""Durations: medians with their ranges, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import level_bars
from labsupport.figures.style import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def durations(
    samples: Mapping[str, ArrayLike],
    *,
    alt: str,
    reference: str | None = None,
    title: str = "",
    badge: str = "measured here",
) -> LabFigure:
    """A bar from the fastest to the slowest run of each case, a mark at the median, and the median in words.

    A bar here is a range, not a length from zero: a logarithmic axis has no zero.

    Args:
        samples: case -> seconds of each run, positive.
        reference: the case that the others are compared with, as "2.1 x".

    Raises:
        ParameterError: no runs, a run that took no time, or a reference that is not among the cases.
    """
    runs = {name: np.sort(np.asarray(values, dtype=np.float64).ravel()) for name, values in samples.items()}
    if not runs or any(values.size == 0 or values[0] <= 0 for values in runs.values()):
        raise ParameterError(
            "a case without runs, or a run that took no time",
            why="medians need runs, and a logarithmic axis needs positive numbers",
            fix="repeat what is timed until one run takes at least a microsecond",
        )
    if reference is not None and reference not in runs:
        raise ParameterError(
            f"no case {reference!r} to compare with", why="it was not measured", fix="one of " + ", ".join(runs)
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.9 + 0.38 * len(runs))
        low = min(values[0] for values in runs.values())
        high = max(values[-1] for values in runs.values())
        for row, (name, values) in enumerate(runs.items()):
            middle = float(np.median(values))
            axes.barh(row, values[-1] - values[0], left=values[0], height=0.36, color=theme.muted)
            axes.plot([middle, middle], [row - 0.3, row + 0.3], color=theme.ink, linewidth=2.5)
            factor = (
                ""
                if reference is None
                else "  (reference)"
                if name == reference
                else f"  ({_times(middle / float(np.median(runs[reference])))})"
            )
            place = (values[-1], row)
            text = spoken(middle) + factor
            axes.annotate(text, place, xytext=(6, 0), textcoords="offset points", va="center")
        level_bars(axes, list(runs), theme)
        axes.set_xscale("log")
        ticks = [10.0**power for power in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)]
        axes.set_xticks(ticks, [spoken(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(min(low / 1.5, ticks[0]), high * max(4.0, (high / low) ** 0.45))
        axes.grid(axis="x")
        axes.set_xlabel("bar: fastest to slowest run, mark: median", color=theme.muted, fontsize=8)
        axes.set_title(title)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _times(factor: float) -> str:
    return f"{factor:,.0f} x" if factor >= 10 else f"{factor:.2g} x"


def spoken(seconds: float) -> str:
    """A duration with three digits and a unit.

    Example:
        >>> [spoken(t) for t in (2e-9, 0.0000125, 0.25, 90.0)]
        ['2 ns', '12.5 µs', '250 ms', '90 s']
    """
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"
