"""What takes the memory of a device: one stacked bar a case, against the line that it must not cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import Theme, lettering

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MemoryBar:
    """One case; all sizes in GB (10^9 bytes).

    Args:
        label: what it is, at the left of the bar.
        weights: the model.
        cache: keys and values of all sequences.
        reserve: activations, context, workspaces.
    """

    label: str
    weights: float
    cache: float
    reserve: float

    @property
    def total(self) -> float:
        """The whole bar."""
        return self.weights + self.cache + self.reserve


def _styles(theme: Theme) -> dict[str, dict[str, Any]]:
    plain = {"facecolor": theme.soft, "edgecolor": theme.muted, "linewidth": 0.6}
    return {"weights": theme.fill("kept"), "cache": theme.fill("cached"), "reserve": plain}


def memory_bars(
    bars: Sequence[MemoryBar], *, capacity: float, device: str, alt: str, title: str = "", badge: str = "simulated"
) -> LabFigure:
    """Stacked bars of weights, KV cache and reserve; a line stands at the device's memory, a verdict at each bar's end.

    Args:
        capacity: the device's memory in GB.
        device: its name, written at the line.
        badge: ``simulated`` for sizes from a formula, which is the usual case.

    Raises:
        ParameterError: no bars, or a negative size.
    """
    if not bars or any(min(bar.weights, bar.cache, bar.reserve) < 0 for bar in bars):
        raise ParameterError(
            "no bars, or a negative size", why="a size in memory is 0 or more", fix="give each case its three sizes"
        )

    from matplotlib.patches import Patch

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=1.3 + 0.55 * len(bars))
        styles = _styles(theme)
        widest = max(capacity, *(bar.total for bar in bars))
        readable = 0.3 * widest / theme.width  # a number needs about 0.3 inches
        for row, bar in enumerate(bars):
            left = 0.0
            for part, style in styles.items():
                size = getattr(bar, part)
                axes.barh(row, size, left=left, height=0.5, **style)
                if size > 1.6 * readable:
                    box = {"boxstyle": "round,pad=0.15", "facecolor": style["facecolor"], "edgecolor": "none"}
                    ink = lettering(style["facecolor"])
                    axes.text(left + size / 2, row, f"{size:.1f}", ha="center", va="center", color=ink, bbox=box)
                left += size
            fits = left <= capacity
            words = f"{bar.label}: {left:.1f} GB {'✓ fits' if fits else '✗ too big'}"
            plain = {"boxstyle": "square,pad=0.1", "facecolor": theme.paper, "edgecolor": "none"}  # the line stops here
            axes.text(0, row - 0.3, words, va="bottom", fontweight="normal" if fits else "bold", bbox=plain)
        axes.axvline(capacity, color=theme.ink, linewidth=1.6, linestyle="--")
        axes.text(capacity - 0.2 * readable, len(bars) - 0.4, device, ha="right", fontsize=8, color=theme.muted)
        axes.set_yticks([])
        axes.set_ylim(len(bars) - 0.3, -0.75)
        axes.set_xlim(0, 1.06 * widest)
        axes.set_xlabel("GB")
        axes.set_title(title)
        patches = [Patch(**style) for style in styles.values()]
        figure.legend(patches, list(styles), ncols=3, frameon=False, fontsize=8, loc="outside lower left")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)
