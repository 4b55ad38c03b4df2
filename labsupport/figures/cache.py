"""The KV cache as a picture: what a step computes, what it reads, how full it is, and who shares a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import Theme, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NARROW = 4.0  # inches; below it the rows carry no names


@dataclass(frozen=True)
class Gauge:
    """A bar beside the triangle.

    Args:
        name: written under it.
        value, most: how far it is filled, and where its frame ends; any unit.
        text: the value in words, over it.
        role: its color.
    """

    name: str
    value: float
    most: float
    text: str
    role: str


def step_triangle(
    tokens: Sequence[str],
    so_far: int,
    *,
    prompt: int,
    cached: bool,
    alt: str,
    gauges: Sequence[Gauge] = (),
    badge: str = "diagram",
) -> LabFigure:
    """One step of generation: the rows of the triangle that it computes, and the keys that it reads or makes.

    Orange is computed in this step, a blue key is read from the cache, gray cells were computed before, white is not
    there yet. The first step reads the whole prompt; a step without a cache computes everything again.

    Args:
        tokens: [T], prompt and answer.
        so_far: tokens that the step knows; its last row is the newest token, 1 to T.
        prompt: how many of them the first step reads at once.
        cached: whether keys and values are kept.
        gauges: bars at the right, such as the bytes that are kept.

    Raises:
        ParameterError: more tokens so far than tokens, none, or a prompt of none.
    """
    if not 1 <= so_far <= len(tokens) or prompt < 1:
        raise ParameterError(
            f"{so_far} tokens so far of {len(tokens)}, {prompt} in the prompt",
            why="a step knows at least one token, and no more than there are",
            fix="1 <= so_far <= len(tokens), prompt >= 1",
        )
    reading = so_far <= prompt or not cached  # the step reads all tokens, not only the newest
    first = 0 if reading else so_far - 1

    def draw(theme: Theme) -> Figure:
        bars = len(gauges)
        figure, grid = theme.figure(
            min(3.4, 0.72 * theme.width),
            columns=1 + bars,
            width_ratios=[3.4 if theme.width < NARROW else 2.6, *[0.8] * bars],
            squeeze=False,
        )
        _triangle(grid[0][0], theme, tokens, so_far, first)
        for axes, gauge in zip(grid[0][1:], gauges, strict=True):
            _gauge(axes, theme, gauge)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def shared_heads(kinds: Mapping[str, tuple[int, int]], *, alt: str, badge: str = "diagram") -> LabFigure:
    """Query heads over the key/value heads that they share, one panel a kind of attention.

    Args:
        kinds: name -> (query heads, KV heads).

    Raises:
        ParameterError: nothing to draw, or query heads that do not divide among the KV heads.
    """
    odd = [name for name, (heads, keys) in kinds.items() if keys < 1 or heads % keys]
    if odd or not kinds:
        raise ParameterError(
            f"no equal shares: {', '.join(odd) or 'no kinds'}",
            why="each KV head serves the same number of query heads",
            fix="(9, 9), (9, 3) or (9, 1)",
        )

    def draw(theme: Theme) -> Figure:
        from matplotlib.patches import Rectangle

        figure, grid = theme.figure(1.75, columns=len(kinds), squeeze=False)
        for axes, (name, (heads, keys)) in zip(grid[0], kinds.items(), strict=True):
            shared = heads // keys
            for head in range(heads):
                center = (head // shared + 0.5) * shared
                axes.plot([head + 0.5, center], [1.35, 0.75], color=theme.muted, linewidth=0.9, zorder=0)
                axes.add_patch(Rectangle((head + 0.12, 1.35), 0.76, 0.5, **theme.fill("generated")))
            for key in range(keys):
                axes.add_patch(Rectangle(((key + 0.5) * shared - 0.38, 0.25), 0.76, 0.5, **theme.fill("cached")))
            axes.set_title(name, fontsize=9)
            axes.text(heads / 2, -0.25, f"{keys} of {heads} in the cache", ha="center", fontsize=8)
            axes.set_xlim(0, heads)
            axes.set_ylim(-0.5, 2)
            axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _triangle(axes: Axes, theme: Theme, tokens: Sequence[str], so_far: int, first: int) -> None:
    from matplotlib.patches import Rectangle

    count = len(tokens)
    old = {"facecolor": theme.soft, "edgecolor": theme.paper, "linewidth": 0.6}
    for row in range(so_far):
        for column in range(row + 1):
            style = theme.fill("generated") if row >= first else old
            axes.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, **style))
    for column in range(count):  # keys and values
        role = "free" if column >= so_far else "generated" if column >= first else "cached"
        axes.add_patch(Rectangle((column + 0.04, -1.75), 0.92, 1.0, **theme.fill(role)))
    kept = f"keys, values: {first} cached, {so_far - first} made"
    words = f"{so_far - first} of {so_far} rows\ncomputed now"
    for text in (
        axes.text(0, -1.95, kept, va="bottom", fontsize=8),
        axes.text(count, 0, words, ha="right", va="top", fontsize=8),
    ):
        text.set_in_layout(False)  # the panels of small multiples must not move with the words
    if count <= 16 and theme.width > NARROW:
        axes.set_yticks([row + 0.5 for row in range(count)], [visible(token) for token in tokens])
    else:
        axes.set_yticks([])
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlim(0, count)
    axes.set_ylim(count, -2.8)
    axes.set_aspect("equal")


def _gauge(axes: Axes, theme: Theme, gauge: Gauge) -> None:
    axes.bar(0, gauge.most, width=0.8, **theme.fill("free"))
    axes.bar(0, gauge.value, width=0.8, **theme.fill(gauge.role))
    axes.text(0, gauge.most * 1.03, gauge.text, ha="center", va="bottom", fontsize=8)
    axes.set_xlabel(gauge.name, fontsize=8 if theme.width > NARROW else 7)
    axes.set_xlim(-0.9, 0.9)
    axes.set_ylim(0, gauge.most * 1.15)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
