"""The three families side by side: who may look at whom in an encoder, a decoder and an encoder-decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import Theme, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Mask = NDArray[np.bool_]


def family_masks(source: int, target: int) -> dict[str, Mask]:
    """The attention masks of the three families of ``source`` + ``target`` tokens: [n, n], True where row sees column.

    Example:
        >>> family_masks(1, 2)["decoder"].astype(int).tolist()
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    """
    count = source + target
    causal = np.tril(np.ones((count, count), dtype=bool))
    both = causal.copy()
    both[:source, :source] = True  # the encoder reads the whole source; the decoder then reads all of it
    return {"encoder": np.ones((count, count), dtype=bool), "decoder": causal, "encoder-decoder": both}


def families(
    source: Sequence[str], target: Sequence[str], *, alt: str, examples: Sequence[str] = ("BERT", "SmolLM2", "T5")
) -> LabFigure:
    """The masks of the three families over the same sentence; filled cells are seen, empty ones are not.

    Args:
        source: the tokens that are given.
        target: the tokens that are generated.
        examples: one model of each family, in the order encoder, decoder, encoder-decoder.

    Raises:
        ParameterError: no source, no target, or not three examples.
    """
    if not source or not target or len(examples) != 3:
        raise ParameterError(
            f"{len(source)} source tokens, {len(target)} target tokens, {len(examples)} examples",
            why="the masks differ in how given and generated tokens see each other",
            fix="at least one token of each, and one example for each of the three families",
        )
    masks = family_masks(len(source), len(target))
    uses = ("to understand: embed, classify", "to continue: chat, write", "to transform: translate")

    def draw(theme: Theme) -> Figure:
        figure, grid = theme.figure(height=3.3, columns=3)
        for axes, (name, mask), example, use in zip(grid, masks.items(), examples, uses, strict=True):
            _mask(axes, theme, mask, len(source))
            names = [visible(token) for token in (*source, *target)]
            axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90)
            axes.set_yticks(np.arange(len(names)) + 0.5, names if name == "encoder" else [""] * len(names))
            axes.set_title(f"{name}\n{example}", loc="center")
            axes.set_xlabel(use, fontsize=8)
        figure.supxlabel("row looks at column   ■ given   ▨ generated   □ not seen", fontsize=8, color=theme.muted)
        return figure

    return LabFigure(draw, alt=alt, badge="diagram")


def _mask(axes: Axes, theme: Theme, mask: Mask, source: int) -> None:
    from matplotlib.patches import Rectangle

    for row, column in np.ndindex(*mask.shape):
        place = (column + 0.06, row + 0.06)
        if mask[row, column]:
            given = theme.fill("prompt" if column < source else "generated")
            style = {**given, "hatch": None if column < source else "////", "edgecolor": theme.paper}
        else:
            style = {"facecolor": "none", "edgecolor": theme.grid, "linewidth": 0.8}
        axes.add_patch(Rectangle(place, 0.88, 0.88, **style))
    axes.set_xlim(0, len(mask))
    axes.set_ylim(len(mask), 0)
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
