"""The paged KV cache as a picture: tables over the pool, memory that holds nothing, and holes between texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.labels import level_bars
from labsupport.figures.style import Theme, lettering

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 16  # blocks in a row of the pool


@dataclass(frozen=True)
class Table:
    """The block table of one sequence.

    Args:
        name: one or two characters.
        blocks: their numbers, in the order of the text.
        tokens: how many of the sequence are in the cache.
    """

    name: str
    blocks: Sequence[int]
    tokens: int


def block_table(
    tables: Sequence[Table], *, pool: int, tokens_per_block: int, alt: str, badge: str = "measured here"
) -> LabFigure:
    """Above, each sequence's table: boxes in the order of its text, filled as far as there are tokens. Below, the pool.

    Dotted blue is held by more than one sequence, orange by one, an outline by nobody; hatched is block 0, scratch.

    Args:
        pool: blocks, scratch included.
        tokens_per_block: of the cache.

    Raises:
        ParameterError: no tables, or a block that the pool does not have.
    """
    if not tables or any(not 0 < block < pool for table in tables for block in table.blocks):
        raise ParameterError(
            f"{len(tables)} tables over a pool of {pool}",
            why="a table lists blocks 1 to pool - 1; block 0 is scratch",
            fix="give the tables of BlockManager.tables, and the size of its pool",
        )
    owners = {
        block: [table.name for table in tables if block in table.blocks] for table in tables for block in table.blocks
    }

    def draw(theme: Theme) -> Figure:
        lines = -(-pool // COLUMNS)
        figure, (above, below) = theme.figure(
            0.75 + 0.4 * (len(tables) + lines), rows=2, height_ratios=[len(tables), lines]
        )
        for row, table in enumerate(tables):
            for at, block in enumerate(table.blocks):
                filled = min(1.0, max(0.0, table.tokens / tokens_per_block - at))
                role = "cached" if len(owners[block]) > 1 else "generated"
                _box(above, theme, (at, row), f"{block}", role, filled)
        for block in range(pool):
            held = owners.get(block, [])
            role = "removed" if block == 0 else "free" if not held else "cached" if len(held) > 1 else "generated"
            _box(below, theme, (block % COLUMNS, block // COLUMNS), "".join(held), role)
        _frame(above, len(tables), [table.name for table in tables], "tables: which block holds each piece of the text")
        _frame(below, lines, [f"{line * COLUMNS}" for line in range(lines)], "pool: who holds each block")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def memory_bars(
    rows: Mapping[str, Sequence[tuple[str, float]]], *, alt: str, badge: str = "measured here"
) -> LabFigure:
    """What memory is for: a bar of 100 % a row, cut in parts; the first part's share is written at its end.

    Args:
        rows: name -> (role, amount) of each part, in any unit.

    Raises:
        ParameterError: no rows, or one of nothing.
    """
    if not rows or any(sum(amount for _, amount in parts) <= 0 for parts in rows.values()):
        raise ParameterError("a bar of nothing", why="shares need an amount above 0", fix="leave the row out")

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(0.5 + 0.27 * len(rows))
        for row, parts in enumerate(rows.values()):
            whole, left = sum(amount for _, amount in parts), 0.0
            for role, amount in parts:
                axes.barh(row, amount / whole, left=left, height=0.66, **theme.fill(role))
                left += amount / whole
            axes.text(1.015, row, f"{parts[0][1] / whole:.0%} used", va="center", fontsize=8)
        level_bars(axes, list(rows), theme)
        axes.set_xlim(0, 1.14)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def memory_strip(
    spans: Sequence[tuple[int, int]], size: int, *, wanted: int, alt: str, badge: str = "measured here"
) -> LabFigure:
    """One strip of memory with texts lying in it in one piece each, and below it the text that finds no hole.

    Args:
        spans: (start, length) of each text that is there.
        size: of the memory, in the same unit.
        wanted: length of the text that does not fit.
    """

    def draw(theme: Theme) -> Figure:
        from matplotlib.patches import Rectangle

        figure, axes = theme.figure(1.45)
        axes.add_patch(Rectangle((0, 1), size, 0.8, **theme.fill("free")))
        for start, length in spans:
            axes.add_patch(Rectangle((start, 1), length, 0.8, **theme.fill("generated")))
        axes.add_patch(Rectangle((0, -0.3), wanted, 0.8, **theme.fill("chosen")))
        free = size - sum(length for _, length in spans)
        axes.text(wanted + 0.01 * size, 0.1, f"wants {wanted:,} in one piece; {free:,} are free", va="center")
        axes.set_xlim(0, size)
        axes.set_ylim(-0.5, 2)
        axes.set_yticks([])
        axes.set_xlabel("tokens of KV cache")
        axes.spines[:].set_visible(False)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def _box(axes: Axes, theme: Theme, place: tuple[int, int], text: str, role: str, filled: float = 1.0) -> None:
    from matplotlib.patches import Rectangle

    x, y = place[0] + 0.05, place[1] + 0.1
    axes.add_patch(Rectangle((x, y), 0.9, 0.8, **theme.fill("free")))
    if filled:
        axes.add_patch(Rectangle((x, y), 0.9 * filled, 0.8, **theme.fill(role)))
    ground = theme.fill(role)["facecolor"] if filled > 0.6 else theme.paper
    color = theme.ink if ground == theme.paper else lettering(ground)
    label = {"boxstyle": "round,pad=0.15", "linewidth": 0, "facecolor": ground}
    if text:
        axes.text(x + 0.45, y + 0.4, text, ha="center", va="center", fontsize=8, color=color, bbox=label)


def _frame(axes: Axes, rows: int, names: Sequence[str], title: str) -> None:
    axes.set_xlim(0, COLUMNS)
    axes.set_ylim(rows, 0)
    axes.set_yticks([row + 0.5 for row in range(rows)], names, fontsize=8)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
