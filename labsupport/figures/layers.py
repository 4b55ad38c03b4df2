"""Inside one forward pass: what each layer would answer, how large its vectors are, and who looks at whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import STROKES, label_ends
from labsupport.figures.style import ROLES, Theme, lettering, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def logit_lens(
    words: Sequence[Sequence[str]],
    probabilities: ArrayLike,
    *,
    tokens: Sequence[str],
    layers: Sequence[str],
    alt: str,
    badge: str = "measured here",
) -> LabFigure:
    """Layer by position: the token that each layer would pick, on a shade for how sure it is.

    Args:
        words: [L][P], the top token's text at each layer and position, the input's row first.
        probabilities: [L, P], its probability.
        tokens: [P], the prompt.
        layers: [L], the name of each row.

    Raises:
        ParameterError: the four do not have the same L and P.
    """
    shade = np.asarray(probabilities, dtype=np.float64)
    expected = (len(layers), len(tokens))
    if shade.shape != expected or [len(row) for row in words] != [len(tokens)] * len(layers):
        raise ParameterError(
            f"probabilities of shape {shade.shape} for {expected[0]} layers and {expected[1]} tokens",
            why="each cell of the lens is one layer at one position",
            fix="words [L][P], probabilities [L, P], layers [L], tokens [P]",
        )

    def draw(theme: Theme) -> Figure:
        from matplotlib import colormaps

        colors = colormaps["cividis"]  # even in lightness, and the same for color-blind eyes
        figure, axes = theme.figure(height=0.8 + 0.21 * len(layers))
        mesh = axes.pcolormesh(shade, cmap=colors, vmin=0, vmax=1, edgecolors=theme.paper, linewidth=0.8)
        room = int(theme.width * 11 / len(tokens))
        for row, line in enumerate(words):
            for column, word in enumerate(line):
                ink = lettering(colors(shade[row, column]))
                text = _fit(visible(word), room)
                axes.text(column + 0.5, row + 0.48, text, ha="center", va="center", fontsize=8, color=ink)
        axes.set_xticks(np.arange(len(tokens)) + 0.5, [visible(token) for token in tokens])
        axes.set_yticks(np.arange(len(layers)) + 0.5, layers)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("what the model has read so far, token by token")
        bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=40)
        bar.set_label("probability of the token shown")
        bar.outline.set_visible(False)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def layer_norms(
    norms: Mapping[str, ArrayLike], *, alt: str, ylabel: str = "length of the vector", badge: str = "measured here"
) -> LabFigure:
    """A length for each layer, as one line a position or a part, named at its end; logarithmic.

    Args:
        norms: name -> [L], positive.
        ylabel: what is measured, with its unit.
    """
    lines = {name: np.asarray(values, dtype=np.float64) for name, values in norms.items()}

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=2.7)
        colors = [ROLES["chosen"] if rank == 0 else theme.ink for rank in range(len(lines))]
        for rank, (values, color) in enumerate(zip(lines.values(), colors, strict=True)):
            style, marker = STROKES[rank % len(STROKES)]
            every = max(1, len(values) // 8)
            axes.plot(values, style, marker=marker, markersize=4, markevery=every, color=color, linewidth=1.5)
        last = max(len(values) for values in lines.values()) - 1
        axes.set_xlim(0, last)
        axes.set_yscale("log")
        axes.grid(axis="y")
        axes.set_xlabel("layer (0: the embedding)")
        axes.set_ylabel(ylabel)
        label_ends(
            axes, theme, [(len(v) - 1, v[-1]) for v in lines.values()], [visible(name) for name in lines], colors
        )
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def attention_triangle(
    weights: ArrayLike,
    tokens: Sequence[str],
    *,
    alt: str,
    new_row: bool = False,
    badge: str = "measured here",
) -> LabFigure:
    """Who looks at whom: row i is the attention of token i over the tokens up to itself; the future stays empty.

    Args:
        weights: [T, T], lower triangular, each row summing to 1.
        tokens: [T].
        new_row: frame the last row as the only one that a decode step computes; the rows above come from the cache.

    Raises:
        ParameterError: the shape is not [T, T], or a token looks into the future.
    """
    grid = np.asarray(weights, dtype=np.float64)
    count = len(tokens)
    if grid.shape != (count, count) or np.triu(np.abs(grid), 1).max(initial=0.0) > 1e-6:
        raise ParameterError(
            f"attention of shape {grid.shape} for {count} tokens is no triangle",
            why="a decoder's token sees itself and what stands before it, nothing later",
            fix="one head's weights [T, T] after the causal mask and the softmax",
        )

    def draw(theme: Theme) -> Figure:
        from matplotlib.patches import Rectangle

        side = min(theme.width * 0.62, 0.36 * count + 1.0)
        figure, axes = theme.figure(height=side + 0.3)
        for row, column in zip(*np.tril_indices(count), strict=True):
            weight = float(grid[row, column])
            old = new_row and row < count - 1
            color = ROLES["cached"] if old else ROLES["generated"] if new_row else ROLES["prompt"]
            size = 0.9 * np.sqrt(min(weight, 1.0))  # the area is the weight
            axes.add_patch(Rectangle((column + 0.03, row + 0.03), 0.94, 0.94, facecolor=theme.soft, linewidth=0))
            corner = (column + 0.5 - size / 2, row + 0.5 - size / 2)
            axes.add_patch(Rectangle(corner, size, size, facecolor=color, edgecolor=theme.ink, linewidth=0.4))
        if new_row:
            axes.add_patch(Rectangle((0, count - 1), count, 1, fill=False, edgecolor=ROLES["chosen"], linewidth=2))
            axes.text(count + 0.15, count - 0.5, "the one new row", va="center", color=theme.ink)
            axes.text(
                count + 0.15, (count - 1) / 2, "computed before:\ntheir keys and values\nare in the cache", va="center"
            )
        names = [visible(token) for token in tokens]
        axes.set_yticks(np.arange(count) + 0.5, names)
        axes.set_xticks(np.arange(count) + 0.5, names, rotation=45, ha="right")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlim(0, count)
        axes.set_ylim(count, 0)
        axes.set_aspect("equal")
        axes.set_ylabel("this token ...")
        axes.set_xlabel("... looks at this one (area: attention weight)")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _fit(text: str, room: int) -> str:
    return text if len(text) <= max(room, 2) else text[: max(room, 2) - 1] + "…"
