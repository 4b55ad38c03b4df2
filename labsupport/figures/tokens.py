"""From text to tokens: one text as characters, bytes and tokens, and the merges that lead from bytes to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme, lettering, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def byte_lanes(text: str, tokens: Sequence[bytes], ids: Sequence[int], *, alt: str) -> LabFigure:
    """Three lanes over one ruler of bytes: the characters, their UTF-8 bytes in hexadecimal, and the tokens with ids.

    A token that begins or ends inside a character is hatched: alone it is no text.

    Args:
        text: what was tokenized; white space is made visible.
        tokens: the bytes of each token, together the UTF-8 bytes of ``text``.
        ids: the id of each token.

    Raises:
        ParameterError: the tokens do not spell the text, or ids and tokens differ in number.
    """
    raw = text.encode()
    if b"".join(tokens) != raw or len(tokens) != len(ids):
        raise ParameterError(
            f"{len(tokens)} tokens with {len(ids)} ids do not spell {text!r}",
            why="the lanes lie over the same bytes",
            fix="give the bytes of each token in order, and one id for each",
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=1.75)
        at = 0
        edges = {0}
        for character in text:
            size = len(character.encode())
            _box(axes, theme, at, 2, size, visible(character), theme.soft, fontsize=11)
            at += size
            edges.add(at)
        for place, value in enumerate(raw):
            _box(axes, theme, place, 1, 1, f"{value:02X}", theme.paper, fontsize=8)
        at = 0
        for token, id in zip(tokens, ids, strict=True):
            broken = not {at, at + len(token)} <= edges
            color = ROLES["removed"] if broken else ROLES["prompt"]
            _box(axes, theme, at, 0, len(token), str(id), color, hatch="////" if broken else None)
            at += len(token)
        axes.set_xlim(-0.02, max(len(raw), 1) + 0.02)
        axes.set_ylim(-0.08, 3.0)
        axes.set_yticks([2.42, 1.42, 0.42], ["characters", "UTF-8 bytes", "token ids"])
        axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure

    return LabFigure(draw, alt=alt)


def merge_ladder(rows: Sequence[Sequence[str]], *, alt: str, notes: Sequence[str] = ()) -> LabFigure:
    """Byte-pair encoding, a row a merge: what was just joined is marked, the rest waits.

    Args:
        rows: the pieces before the first merge, after it, and so on; each row joins two neighbors of the row above.
        notes: a line to the right of each row.

    Raises:
        ParameterError: no rows, rows that do not spell the same, or not one note for each row.
    """
    if not rows or len({"".join(row) for row in rows}) != 1 or (notes and len(notes) != len(rows)):
        raise ParameterError(
            f"{len(rows)} rows and {len(notes)} notes",
            why="each row cuts the same text into pieces",
            fix="give the pieces after each merge, and a note for each row or none",
        )
    total = sum(map(len, rows[0]))

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(height=0.3 + 0.36 * len(rows))
        before: set[tuple[int, int]] = set()
        for line, row in enumerate(rows):
            at, spans = 0, set()
            for piece in row:
                new = line > 0 and (at, len(piece)) not in before
                color = ROLES["generated"] if new else theme.soft
                _box(axes, theme, at, -line, len(piece), visible(piece), color)
                spans.add((at, len(piece)))
                at += len(piece)
            before = spans
            if notes:
                axes.text(total + 0.3, -line + 0.42, notes[line], va="center", color=theme.muted)
        axes.set_xlim(-0.02, total * (2.1 if notes else 1.0) + 0.02)
        axes.set_ylim(-len(rows) + 0.9, 1.0)
        axes.axis("off")
        return figure

    return LabFigure(draw, alt=alt)


def _box(
    axes: Axes,
    theme: Theme,
    left: float,
    bottom: float,
    width: float,
    text: str,
    color: str,
    *,
    fontsize: float = 9,
    hatch: str | None = None,
) -> None:
    from matplotlib.patches import Rectangle

    style: dict[str, Any] = {"facecolor": color, "edgecolor": theme.muted, "linewidth": 0.7}
    axes.add_patch(Rectangle((left + 0.03, bottom + 0.04), width - 0.06, 0.78, **style))
    if hatch:
        veil: dict[str, Any] = {"fill": False, "edgecolor": theme.paper, "hatch": hatch, "linewidth": 0}
        axes.add_patch(Rectangle((left + 0.03, bottom + 0.04), width - 0.06, 0.78, **veil))
    ink = theme.ink if color in (theme.soft, theme.paper) else lettering(color)
    plate = {"boxstyle": "round,pad=0.15", "facecolor": color, "linewidth": 0} if hatch else None
    axes.text(left + width / 2, bottom + 0.42, text, ha="center", va="center", fontsize=fontsize, color=ink, bbox=plate)
