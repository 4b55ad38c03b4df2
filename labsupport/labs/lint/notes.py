"""The instructor's notes: cells tagged ``instructor``, which only the instructor's edition shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import copy

from labsupport.labs.lint.finding import Finding, finding, words
from labsupport.labs.notebook import Notebook

TAG = "instructor"
NOTE_WORDS = 120


def taught(notebook: Notebook) -> Notebook:
    """The notebook without its notes: what the rules of a lab are about."""
    return _only(notebook, notes=False)


def noted(notebook: Notebook) -> Notebook:
    """The notebook's notes alone."""
    return _only(notebook, notes=True)


def _only(notebook: Notebook, *, notes: bool) -> Notebook:
    node = copy(notebook.node)
    node.cells = [cell.node for cell in notebook.cells if (TAG in cell.tags) == notes]
    return Notebook(notebook.path, node)


def notes(notebook: Notebook) -> Iterator[Finding]:
    """A note is a short markdown cell with an id of its own kind, no heading in it, and no other tag."""
    for cell in noted(notebook).cells:
        if cell.kind != "markdown" or cell.tags != {TAG}:
            yield finding(
                notebook, cell, f"a note is {cell.kind}, tagged {sorted(cell.tags)}", "make it plain markdown"
            )
        if not re.fullmatch(rf"lab{notebook.number}-i\d\d", cell.id):
            mend = f'give it the id "lab{notebook.number}-i01", "-i02" and so on'
            yield finding(notebook, cell, f"a note has the id {cell.id!r}", mend)
        if re.search(r"^#", cell.source, re.MULTILINE):
            yield finding(notebook, cell, "a note holds a heading", "begin with **bold** words: headings are the lab's")
        if not 0 < words(cell.source) <= NOTE_WORDS:
            yield finding(notebook, cell, f"a note of {words(cell.source)} words", f"say it in {NOTE_WORDS} at most")


NOTE_RULES = (notes,)
