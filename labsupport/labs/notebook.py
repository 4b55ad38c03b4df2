"""Notebooks as data: find the labs, read one, and look into its cells.

A lab is ``notebooks/NN_name.ipynb``. Its cells are told apart by tags: ``parameters``, ``setup``, ``signature``,
``exercise``, ``solution``, ``check``, ``cleanup`` and ``instructor``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from labsupport.errors import NotebookError, ParameterError
from labsupport.workspace import repository_root

LAB_FILE = re.compile(r"(?P<number>\d\d)_(?P<name>[a-z0-9_]+)\.ipynb")

WITHHELD = frozenset({"solution", "instructor"})
"""Tags of cells that no learner gets: neither in a copy nor in a handout, in its source too."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Args:
        index: its place in the notebook, from 0.
        id: the id that the file gives it, "" where the file gives none.
        kind: "code", "markdown" or "raw".
        source: its text.
        tags: its tags.
        node: the cell as nbformat reads it, outputs included.
    """

    index: int
    id: str
    kind: str
    source: str
    tags: frozenset[str]
    node: Any

    @property
    def label(self) -> str:
        """How a message names the cell."""
        return self.id or f"cell {self.index}"


@dataclass(frozen=True)
class Notebook:
    """A notebook that was read and holds at least one cell.

    Args:
        path: where it was read.
        node: the notebook as nbformat reads it.
    """

    path: Path
    node: Any

    @cached_property
    def cells(self) -> list[Cell]:
        """All cells, in the order of the file."""
        return [
            Cell(
                index,
                node.get("id", ""),
                node.cell_type,
                node.source,
                frozenset(node.metadata.get("tags", [])),
                node,
            )
            for index, node in enumerate(self.node.cells)
        ]

    @property
    def code(self) -> list[Cell]:
        """The code cells."""
        return [cell for cell in self.cells if cell.kind == "code"]

    @property
    def markdown(self) -> list[Cell]:
        """The markdown cells."""
        return [cell for cell in self.cells if cell.kind == "markdown"]

    def tagged(self, tag: str) -> list[Cell]:
        """The cells that carry ``tag``."""
        return [cell for cell in self.cells if tag in cell.tags]

    @property
    def number(self) -> str:
        """The lab's number, "02"; "" where the file name has none."""
        named = LAB_FILE.fullmatch(self.path.name)
        return named["number"] if named else ""

    @property
    def title(self) -> str:
        """The text of the first heading, else the file's name."""
        found = re.search(r"^# (.+)$", "\n".join(cell.source for cell in self.markdown), re.MULTILINE)
        return found[1].strip() if found else self.path.stem

    @property
    def card(self) -> dict[str, str]:
        """The rows of the first two-column table that has a row "Minutes": ``{"Minutes": "45", "Level": ...}``."""
        for cell in self.markdown:
            rows = dict(_table_rows(cell.source))
            if "Minutes" in rows:
                return rows
        return {}

    @property
    def parameters(self) -> dict[str, object]:
        """The names and defaults in the cell tagged ``parameters``.

        Raises:
            NotebookError: that cell holds something else than ``NAME = literal``.
        """
        return {name: value for cell in self.tagged("parameters") for name, value in literals(cell).items()}


def literals(cell: Cell) -> dict[str, object]:
    """The assignments in a cell that may hold nothing but ``NAME = literal``.

    Raises:
        NotebookError: a line is something else, or is no Python.
    """
    try:
        tree = ast.parse(cell.source)
    except SyntaxError as problem:
        raise _not_literal(cell, problem.lineno or 1) from None
    found: dict[str, object] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                try:
                    found[name] = ast.literal_eval(value)
                except ValueError:
                    raise _not_literal(cell, statement.lineno) from None
            case _:
                raise _not_literal(cell, statement.lineno)
    return found


def _not_literal(cell: Cell, line: int) -> NotebookError:
    return NotebookError(
        f"{cell.label}: line {line} of the parameters is not NAME = literal: {cell.source.splitlines()[line - 1]!r}",
        why="papermill replaces parameters by text, and a computed one cannot be checked before the run",
        fix="keep literals in this cell, and move what is computed into the cell after the set-up",
    )


def _table_rows(markdown: str) -> list[tuple[str, str]]:
    rows = (re.fullmatch(r"\|\s*([^|]+?)\s*\|\s*(.+?)\s*\|", line.strip()) for line in markdown.splitlines())
    return [(row[1].strip("* "), row[2]) for row in rows if row and not set(row[1]) <= set(":- ")]


def read(path: Path) -> Notebook:
    """Read and validate a notebook.

    Raises:
        NotebookError: no such file, no notebook, or one without cells.
    """
    import nbformat

    try:
        node = nbformat.read(path, as_version=4)
        nbformat.validate(node)
    except FileNotFoundError:
        raise NotebookError(
            f"no notebook {path}", why="the file does not exist", fix="look at the labs with `labs run --help`"
        ) from None
    except Exception as bad:  # nbformat raises whatever it stumbles over
        raise NotebookError(
            f"{path} is not a notebook",
            why=(str(bad).splitlines() or [type(bad).__name__])[0][:200],
            fix=f"restore it, best with `git checkout -- {path}`",
        ) from None
    if not node.cells:
        raise NotebookError(f"{path} has no cells", why="an empty notebook teaches nothing", fix="write the lab")
    return Notebook(path, node)


def notebooks_folder() -> Path:
    """Where the labs stand."""
    return repository_root() / "notebooks"


def find_labs(folder: Path | None = None) -> list[Path]:
    """The labs in ``folder`` (default: ``notebooks/``), in the order of their numbers."""
    return sorted(path for path in (folder or notebooks_folder()).glob("*.ipynb") if LAB_FILE.fullmatch(path.name))


def select(names: Sequence[str], folder: Path | None = None) -> list[Path]:
    """The labs that a person named: numbers ("2", "02"), file names, paths, or "all"; none named means all.

    Raises:
        ParameterError: there is no such lab.
    """
    labs = find_labs(folder)
    chosen: list[Path] = []
    for name in names or ["all"]:
        found = labs if name == "all" else [lab for lab in labs if _is_named(lab, name)]
        if not found and Path(name).is_file():
            found = [Path(name)]
        if not found:
            known = ", ".join(lab.stem for lab in labs) or f"none in {folder or notebooks_folder()}"
            raise ParameterError(f"no lab {name!r}", why=f"the labs are: {known}", fix="name one of them, or all")
        chosen += [lab for lab in found if lab not in chosen]
    return chosen


def _is_named(lab: Path, name: str) -> bool:
    return name in (lab.name, lab.stem) or (name.isdecimal() and lab.name.startswith(f"{int(name):02d}_"))
