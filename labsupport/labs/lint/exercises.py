"""Exercises: heading, stub, hints, solution and check belong together and carry one id."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labsupport.labs.lint.finding import Finding, Section, finding, sections
from labsupport.labs.notebook import Cell, Notebook

TAGS = ("exercise", "solution", "check")
STUB = r"NotImplementedError|=\s*(None|\.\.\.)|BEGIN SOLUTION"
HEADING = re.compile(r"Exercise (?P<id>\d\d\.\d+) · \S.*")


def exercises(notebook: Notebook) -> list[Section]:
    """The parts of a lab under its ``### Exercise`` headings."""
    for section in sections(notebook.cells):
        if section.heading == "Exercises":
            return sections(list(section.cells), level=3)
    return []


def exercise_count(notebook: Notebook) -> Iterator[Finding]:
    """3 to 5 exercises, numbered from 1, and no tagged cell outside of them."""
    found = exercises(notebook)
    if not 3 <= len(found) <= 5:
        yield finding(notebook, None, f"{len(found)} exercises", "give 3 to 5: predict, implement, break and explain")
    for number, one in enumerate(found, start=1):
        named = HEADING.fullmatch(one.heading)
        expected = f"{notebook.number}.{number}"
        if named is None or named["id"] != expected:
            mend = f"call it `### Exercise {expected} · title`"
            yield finding(notebook, one.cells[0], f"exercise heading {one.heading!r}", mend)
    inside = {cell.index for one in found for cell in one.cells}
    for cell in notebook.cells:
        if cell.index not in inside and cell.tags & set(TAGS):
            mend = "move it under its `### Exercise` heading"
            yield finding(notebook, cell, f"a cell tagged {_tag(cell)!r} outside of the exercises", mend)


def exercise_parts(notebook: Notebook) -> Iterator[Finding]:
    """Each exercise has a difficulty, its minutes, hints, and the cells exercise, solution and check in that order."""
    for one in exercises(notebook):
        first, name = one.cells[0], one.heading.partition(" ·")[0]
        if not re.search(r"●+○*", one.text) or not re.search(r"\d+\s*min", one.text):
            yield finding(
                notebook, first, f"{name} has no difficulty or no minutes", "add them: ●●○○○ · 5 minutes · why"
            )
        if "<details>" not in one.text:
            yield finding(notebook, first, f"{name} has no hint", "add hints in <details>")
        code = [cell for cell in one.cells if cell.kind == "code" and cell.tags & set(TAGS)]
        order = [_tag(cell) for cell in code]
        if sorted(set(order)) != sorted(TAGS) or order != sorted(order, key=TAGS.index):
            mend = "give it code cells tagged exercise, solution and check, in that order"
            yield finding(notebook, first, f"{name} has the cells: {', '.join(order) or 'none'}", mend)
        for cell in code:
            yield from _right_check(notebook, name.removeprefix("Exercise "), cell)


def _right_check(notebook: Notebook, id: str, cell: Cell) -> Iterator[Finding]:
    checked = re.findall(r"\bcheck\(\s*[\"']([^\"']*)[\"']", cell.source)
    if "check" in cell.tags and checked != [id]:
        yield finding(
            notebook, cell, f"the check cell of {id} checks {', '.join(checked) or 'nothing'}", f'`check("{id}", ...)`'
        )
    if "check" not in cell.tags and checked:
        yield finding(notebook, cell, f"a cell tagged {_tag(cell)!r} calls check", "call it in the cell tagged check")
    if "exercise" in cell.tags and not re.search(STUB, cell.source):
        yield finding(notebook, cell, f"the stub of {id} is no stub", "`raise NotImplementedError`, or `answer = None`")


def _tag(cell: Cell) -> str:
    return next(tag for tag in TAGS if tag in cell.tags)


EXERCISE_RULES = (exercise_count, exercise_parts)
