"""How one tensor of a model is cut over ranks: the source, with each rank's share, and what each rank keeps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import spread
from labsupport.figures.style import ROLES, Theme, lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Color = tuple[float, float, float, float]
_HATCHES = ("", "////", "....", "\\\\\\\\")  # tells neighbors apart where gray is all there is
_WIDEST, _NARROWEST = 1.0, 0.5  # of a source, in heights of the stack
_END = 2.62  # where the last rank ends at most, in the same unit
_NAMED = 4  # more ranks than these are not named one by one


@dataclass(frozen=True)
class Share:
    """A box of a source that a rank keeps.

    Args:
        source: its name.
        rows, columns: (start, stop) in it.
    """

    source: str
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class Kept:
    """One rank's tensor: its shares from top to bottom, then rows of zeros."""

    shares: tuple[Share, ...]
    zero_rows: int = 0

    @property
    def rows(self) -> int:
        """Its height."""
        return sum(share.rows[1] - share.rows[0] for share in self.shares) + self.zero_rows

    @property
    def columns(self) -> int:
        """Its width."""
        return self.shares[0].columns[1] - self.shares[0].columns[0]


def shards(
    sources: Mapping[str, tuple[int, int]],
    ranks: Sequence[Kept],
    *,
    alt: str,
    refused: str = "",
    badge: str = "measured here",
) -> LabFigure:
    """On the left the sources as they are stacked, each box shaded and numbered by the ranks that keep it; on the right
    the ranks' tensors, in the same scale.

    Args:
        sources: name -> (rows, columns), from top to bottom, all of one width.
        ranks: what each keeps; none where the cut is refused.
        refused: why there are no ranks.

    Raises:
        ParameterError: neither ranks nor a reason, or both.
    """
    if bool(ranks) == bool(refused):
        raise ParameterError(
            f"{len(ranks)} ranks, refused because {refused!r}",
            why="a tensor is either cut, or there is a reason why not",
            fix="give ranks or refused",
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=2.25 if theme.width < 5 else 3.4)
        height, width = sum(rows for rows, _ in sources.values()), next(iter(sources.values()))[1]
        scale = min(max(width / height, _NARROWEST), _WIDEST)
        tops = _source(axes, theme, sources, height, scale)
        colors = _colors(len(ranks))
        for share, owners in _owners(ranks):
            _owned(axes, theme, share, owners, tops, (height, width, scale), colors)
        left = scale + 0.3
        if refused:
            words = textwrap.fill(refused, int((theme.width - 1.5) * 8))
            axes.text(left, 0.12, "refused", color=theme.legible(ROLES["chosen"]), fontweight="bold", va="top")
            axes.text(left, 0.26, words, va="top", fontsize=8, linespacing=1.3)
        for rank, kept in enumerate(ranks):
            left = _kept(axes, theme, rank, kept, left, (height, width, scale), colors, len(ranks))
        if len(ranks) > _NAMED:
            words = f"ranks 0 to {len(ranks) - 1}, each {ranks[0].rows:,} × {ranks[0].columns:,}"
            axes.text(scale + 0.3, -0.04, words, va="bottom", fontsize=7)
        axes.set_xlim(-0.4, _END)
        axes.set_ylim(1.2, -0.16)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _colors(count: int) -> list[Color]:
    from matplotlib import colormaps

    return [colormaps["cividis"](0.15 + 0.8 * rank / max(count - 1, 1)) for rank in range(count)]


def _source(
    axes: Axes, theme: Theme, sources: Mapping[str, tuple[int, int]], height: int, scale: float
) -> dict[str, int]:
    """Outlines and names of the sources; the first row of each in the stack."""
    from matplotlib.patches import Rectangle

    tops, top = {}, 0
    outline: dict[str, Any] = {"facecolor": theme.soft, "edgecolor": theme.ink, "linewidth": 0.8}
    for name, (rows, _) in sources.items():
        tops[name] = top
        axes.add_patch(Rectangle((0, top / height), scale, rows / height, **outline))
        top += rows
    middles = [(tops[name] + rows / 2) / height for name, (rows, _) in sources.items()]
    for (name, (rows, _)), place in zip(sources.items(), spread(middles, gap=0.09), strict=True):
        words = f"{name} {rows:,}" if len(sources) > 1 else name.replace("_", "_\n") + f"\n{rows:,}"
        axes.text(-0.03, place, words, ha="right", va="center", fontsize=7)
    columns = next(iter(sources.values()))[1]
    axes.text(scale / 2, 1.03, f"{columns:,} columns", ha="center", va="top", fontsize=7, color=theme.muted)
    return tops


def _owners(ranks: Sequence[Kept]) -> list[tuple[Share, list[int]]]:
    """Each box of the sources once, with the ranks that keep it."""
    owners: dict[Share, list[int]] = {}
    for rank, kept in enumerate(ranks):
        for share in kept.shares:
            owners.setdefault(share, []).append(rank)
    return list(owners.items())


def _owned(
    axes: Axes,
    theme: Theme,
    share: Share,
    owners: Sequence[int],
    tops: Mapping[str, int],
    size: tuple[int, int, float],
    colors: Sequence[Color],
) -> None:
    """Shade a box of a source; one that several ranks keep is shaded in stripes, one for each."""
    height, width, scale = size
    x, wide = share.columns[0] / width * scale, (share.columns[1] - share.columns[0]) / width * scale
    y, tall = (tops[share.source] + share.rows[0]) / height, (share.rows[1] - share.rows[0]) / height
    part = wide / len(owners)
    for index, rank in enumerate(owners):
        _box(axes, theme, (x + index * part, y, part, tall), colors[rank], rank)
    if tall > 0.09 and wide > 0.06:
        words = f"{owners[0]}" if len(owners) == 1 else f"{owners[0]} and {owners[-1]}"
        words = words if len(owners) < 3 else f"{owners[0]} to {owners[-1]}"
        box = {"boxstyle": "round,pad=0.15", "facecolor": theme.paper, "edgecolor": "none"}
        axes.text(x + wide / 2, y + tall / 2, words, ha="center", va="center", fontsize=7, bbox=box)


def _kept(
    axes: Axes,
    theme: Theme,
    rank: int,
    kept: Kept,
    left: float,
    size: tuple[int, int, float],
    colors: Sequence[Color],
    count: int,
) -> float:
    """Draw one rank's tensor at ``left``; where the next one begins."""
    height, width, scale = size
    gap = 0.12 if count <= _NAMED else 0.025
    room = (_END - scale - 0.3) / count - gap
    wide, top = min(kept.columns / width * scale, room), 0.0
    for share in kept.shares:
        tall = (share.rows[1] - share.rows[0]) / height
        _box(axes, theme, (left, top, wide, tall), colors[rank], rank)
        top += tall
    below: dict[str, Any] = {"ha": "center", "va": "top", "fontsize": 7}
    if count <= _NAMED:
        axes.text(left + wide / 2, -0.03, f"rank {rank}", ha="center", va="bottom", fontsize=7)
        axes.text(
            left + wide / 2,
            top + 0.04,
            f"{kept.rows:,}\n× {kept.columns:,}",
            color=theme.muted,
            linespacing=1.3,
            **below,
        )
    if kept.zero_rows:
        axes.plot([left, left + wide], [top] * 2, color=ROLES["chosen"], linewidth=2)
        axes.text(
            left + wide / 2,
            top + 0.27,
            f"{kept.zero_rows:,} row{'s' * (kept.zero_rows > 1)} of zeros",
            color=theme.ink,
            **below,
        )
    return left + wide + gap


def _box(
    axes: Axes,
    theme: Theme,
    place: tuple[float, float, float, float],
    color: Color,
    rank: int,
) -> None:
    from matplotlib.patches import Rectangle

    x, y, wide, tall = place
    hatch = _HATCHES[rank % len(_HATCHES)]
    edge = lettering(color) if hatch else theme.ink  # type: ignore[arg-type]
    axes.add_patch(Rectangle((x, y), wide, tall, facecolor=color, edgecolor=edge, hatch=hatch, linewidth=0, alpha=0.9))
    axes.add_patch(Rectangle((x, y), wide, tall, fill=False, edgecolor=theme.paper, linewidth=0.8))
