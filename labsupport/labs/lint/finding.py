"""What a rule reports, and two readings of a notebook that several rules share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from labsupport.labs.notebook import Cell, Notebook


@dataclass(frozen=True)
class Finding:
    """One broken rule.

    Args:
        lab: the lab's file name without the ending.
        cell: the cell's id; "" where the whole lab is meant.
        what: what breaks the rule, with the offending value.
        mend: what to do about it.
    """

    lab: str
    cell: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.lab} {self.cell or '(whole lab)'}: {self.what}\n    mend: {self.mend}"


@dataclass(frozen=True)
class Section:
    """A stretch of a notebook under one heading: the heading's text, and its cells, heading cell first."""

    heading: str
    cells: tuple[Cell, ...]

    @property
    def text(self) -> str:
        """The markdown of the section."""
        return "\n\n".join(cell.source for cell in self.cells if cell.kind == "markdown")


def finding(notebook: Notebook, cell: Cell | None, what: str, mend: str) -> Finding:
    """A finding in ``cell``, or about the whole lab where ``cell`` is None."""
    return Finding(notebook.path.stem, cell.label if cell else "", what, mend)


def sections(cells: list[Cell], level: int = 2) -> list[Section]:
    """Cut cells at the headings of ``level``; what comes before the first heading is left out."""
    found: list[tuple[str, list[Cell]]] = []
    for cell in cells:
        headings = headings_of(cell, level)
        if headings:
            found.append((headings[0], []))
        if found:
            found[-1][1].append(cell)
        found += [(heading, [cell]) for heading in headings[1:]]
    return [Section(heading, tuple(of)) for heading, of in found]


def headings_of(cell: Cell, level: int) -> list[str]:
    """The headings of ``level`` in a markdown cell, without the hashes."""
    if cell.kind != "markdown":
        return []
    return [found.strip() for found in re.findall(rf"^{'#' * level} (.+)$", without_fences(cell.source), re.MULTILINE)]


def without_fences(markdown: str) -> str:
    """Markdown without its fenced code."""
    return re.sub(r"^(```|~~~).*?^\1[ \t]*$", "", markdown, flags=re.MULTILINE | re.DOTALL)


def words(markdown: str) -> int:
    """The number of words that a reader reads: no fenced code, no tags, no tables, no link targets."""
    text = re.sub(r"<[^>]+>|\]\([^)]*\)|^\s*\|.*$", " ", without_fences(markdown), flags=re.MULTILINE)
    return sum(1 for word in text.split() if re.search(r"\w", word))


def lines(cell: Cell) -> int:
    """The number of lines of a cell that are not blank."""
    return sum(1 for line in cell.source.splitlines() if line.strip())


def tagged_once(notebook: Notebook, tag: str) -> Iterator[Finding]:
    """A finding unless exactly one code cell carries ``tag``."""
    count = sum(cell.kind == "code" for cell in notebook.tagged(tag))
    if count != 1:
        yield finding(notebook, None, f"{count} code cells are tagged {tag!r}", f"tag exactly one code cell {tag!r}")
