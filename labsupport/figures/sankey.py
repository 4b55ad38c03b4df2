"""Bytes on their way: a Sankey from the names of one format to the names of another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import spread
from labsupport.figures.style import ROLES, Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP, _THINNEST = 0.018, 0.003  # of the height: between two boxes, and of a box too small to be seen
_LEFT, _RIGHT = 0.0, 1.0  # where the flow begins and ends


@dataclass(frozen=True)
class Flow:
    """Bytes that go from one name to another.

    Args:
        source, target: the names.
        bytes: more than none.
    """

    source: str
    target: str
    bytes: int


@dataclass(frozen=True)
class _Box:
    top: float
    height: float


def sankey(
    flows: Sequence[Flow],
    *,
    alt: str,
    left: str,
    right: str,
    emphasis: Collection[str] = (),
    badge: str = "measured here",
) -> LabFigure:
    """Bands as thick as their bytes, from the sources on the left to the targets on the right; each box says its MB.

    A target stands level with its sources, so that bands cross only where they must.

    Args:
        flows: in reading order; several from one source, or into one target, stack up.
        left, right: what the two sides are called.
        emphasis: the sources whose bands are marked.

    Raises:
        ParameterError: no flows, or a flow of no bytes.
    """
    if not flows or any(flow.bytes <= 0 for flow in flows):
        raise ParameterError(
            f"{len(flows)} flows, of which one carries no bytes" if flows else "no flows",
            why="a band is as thick as its bytes",
            fix="give at least one flow, and only those that carry something",
        )
    sources = list(dict.fromkeys(flow.source for flow in flows))
    targets = sorted(dict.fromkeys(flow.target for flow in flows), key=lambda name: _level(name, flows, sources))
    outgoing = {name: sum(flow.bytes for flow in flows if flow.source == name) for name in sources}
    incoming = {name: sum(flow.bytes for flow in flows if flow.target == name) for name in targets}

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.75 + 0.31 * max(len(sources), len(targets)))
        starts, ends = _stack(outgoing), _stack(incoming)
        _bands(axes, theme, flows, starts, ends, emphasis)
        for boxes, sizes, x, side in ((starts, outgoing, _LEFT, "right"), (ends, incoming, _RIGHT, "left")):
            _boxes(axes, theme, boxes, sizes, x, side)
        for x, title, sizes, side in ((-0.03, left, outgoing, "right"), (1.03, right, incoming, "left")):
            words = f"{title}\n{_amount(sum(sizes.values()))}"
            axes.text(x, -0.02, words, ha=side, va="bottom", fontweight="bold", linespacing=1.3)
        axes.set_xlim(-0.84, 1.84)
        axes.set_ylim(1.02, -0.13)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _level(target: str, flows: Sequence[Flow], sources: Sequence[str]) -> float:
    places = [sources.index(flow.source) for flow in flows if flow.target == target]
    return sum(places) / len(places)


def _stack(sizes: Mapping[str, int]) -> dict[str, _Box]:
    """Boxes from top to bottom that fill the height together, each as tall as its bytes, the smallest a hairline."""
    room = 1 - _GAP * (len(sizes) - 1)
    thin = {name for name, size in sizes.items() if size * room < _THINNEST * sum(sizes.values())}
    scale = (room - _THINNEST * len(thin)) / sum(size for name, size in sizes.items() if name not in thin)
    boxes, top = {}, 0.0
    for name, size in sizes.items():
        height = _THINNEST if name in thin else size * scale
        boxes[name] = _Box(top, height)
        top += height + _GAP
    return boxes


def _bands(
    axes: Axes,
    theme: Theme,
    flows: Sequence[Flow],
    starts: Mapping[str, _Box],
    ends: Mapping[str, _Box],
    emphasis: Collection[str],
) -> None:
    out = {name: sum(flow.bytes for flow in flows if flow.source == name) for name in starts}
    into = {name: sum(flow.bytes for flow in flows if flow.target == name) for name in ends}
    left = {name: box.top for name, box in starts.items()}
    right = {name: box.top for name, box in ends.items()}
    for flow in flows:
        begin = starts[flow.source].height * flow.bytes / out[flow.source]
        end = ends[flow.target].height * flow.bytes / into[flow.target]
        marked = flow.source in emphasis
        style = {"facecolor": ROLES["chosen"] if marked else theme.muted, "alpha": 0.75 if marked else 0.38}
        _band(axes, (left[flow.source], begin), (right[flow.target], end), style | {"linewidth": 0})
        left[flow.source] += begin
        right[flow.target] += end


def _band(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: dict[str, object]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    (a, thick), (b, thin) = start, end
    x0, x1 = _LEFT + 0.025, _RIGHT - 0.025
    middle = (x0 + x1) / 2
    corners = [(x0, a), (middle, a), (middle, b), (x1, b), (x1, b + thin), (middle, b + thin), (middle, a + thick)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    axes.add_patch(PathPatch(Path([*corners, (x0, a + thick), (x0, a)], codes), **style))


def _boxes(axes: Axes, theme: Theme, boxes: Mapping[str, _Box], sizes: Mapping[str, int], x: float, side: str) -> None:
    """The boxes of one side, and their names, moved apart where boxes are thin; ``side`` is how the names align."""
    from matplotlib.patches import Rectangle

    outward = -1 if side == "right" else 1
    middles = [box.top + box.height / 2 for box in boxes.values()]
    places = spread(middles, gap=1.03 / max(len(boxes), 14))
    for (name, box), middle, place in zip(boxes.items(), middles, places, strict=True):
        corner = (x if outward < 0 else x - 0.02, box.top)
        axes.add_patch(Rectangle(corner, 0.02, box.height, facecolor=theme.ink, linewidth=0))
        axes.plot([x + outward * 0.005, x + outward * 0.04], [middle, place], color=theme.muted, linewidth=0.5)
        words = f"{name}  {_amount(sizes[name])}" if outward > 0 else f"{_amount(sizes[name])}  {name}"
        axes.text(x + outward * 0.055, place, words, ha=side, va="center", fontsize=8)


def _amount(count: int) -> str:
    unit, size = next((u, s) for u, s in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3), ("B", 1)) if count >= s)
    return f"{count / size:.1f} {unit}" if size > 1 else f"{count} B"
