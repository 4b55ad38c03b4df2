"""Learner copies: the labs without their solutions, which still run from top to bottom.

Solution cells and the instructor's notes go; what stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION``
becomes a stub. A copy that the learner has edited is never overwritten: a newer original lands beside it as
``NN_name.new.ipynb``.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from labsupport.errors import NotebookError
from labsupport.labs.notebook import WITHHELD, Cell, Notebook, read
from labsupport.labs.progress import FILE, forget
from labsupport.workspace import atomic_text

RECORD = ".labs-learner.json"
BACKUPS = "backups"
HOUSE_IMPORT = re.compile(r"^from labsupport import (?P<names>[\w, ]+)$", re.MULTILINE)
MARK = re.compile(r"^(?P<pad>[ \t]*)(?:#+|<!--) *(?P<edge>BEGIN|END) SOLUTION\b")

State = Literal["written", "up to date", "updated", "yours", "yours, newer one beside it", "your work, kept"]


@dataclass(frozen=True)
class Copied:
    """What became of one copy: the learner's file, and what was done."""

    path: Path
    state: State


def without_solutions(notebook: Notebook) -> Any:
    """The notebook as a learner gets it: no solutions, no instructor's notes, no outputs, no widget state.

    Returns:
        An nbformat notebook; the one that was given stays as it is.

    Raises:
        NotebookError: a solution region is opened and not closed, or closed and not opened.
    """
    node = copy.deepcopy(notebook.node)
    node.cells = [_bare(cell) for cell in notebook.cells if not cell.tags & WITHHELD]
    node.metadata = {name: node.metadata[name] for name in ("kernelspec", "language_info") if name in node.metadata}
    return node


def _bare(cell: Cell) -> Any:
    node = copy.deepcopy(cell.node)
    node.source = "\n".join(_stubbed(cell))
    if cell.kind == "code":
        node.outputs, node.execution_count = [], None
    if "setup" in cell.tags:
        node.source = HOUSE_IMPORT.sub(_with_helpers, node.source)
    return node


def _with_helpers(line: re.Match[str]) -> str:
    names = {*line["names"].split(", "), "hint", "solution"}
    return f"from labsupport import {', '.join(sorted(names))}"


def _stubbed(cell: Cell) -> Iterator[str]:
    """The lines of a cell, each solution region replaced by a stub (in prose: by nothing)."""
    hidden = False
    for line in cell.source.splitlines():
        mark = MARK.match(line)
        if mark and (mark["edge"] == "END") != hidden:
            raise _unpaired(cell, line)
        if mark and not hidden and cell.kind == "code":
            yield f"{mark['pad']}# Your code here."
            yield f"{mark['pad']}raise NotImplementedError"
        if mark:
            hidden = not hidden
        elif not hidden:
            yield line
    if hidden:
        raise _unpaired(cell, "BEGIN SOLUTION")


def _unpaired(cell: Cell, mark: str) -> NotebookError:
    return NotebookError(
        f"{cell.label}: {mark.strip()!r} without its partner",
        why="a learner copy would show the solution, or lose more than it",
        fix="put `### BEGIN SOLUTION` before the solution and `### END SOLUTION` after it, each on its own line",
    )


def write_copies(labs: Sequence[Path], folder: Path) -> list[Copied]:
    """Write learner copies of ``labs`` into ``folder`` and keep what the learner has edited there.

    ``folder/.labs-learner.json`` remembers what was written. Running a copy is no edit: only the cells' text counts.

    Raises:
        NotebookError: a lab cannot be read, or a solution region is not closed; then no copy is written.
    """
    fresh = {lab.name: without_solutions(read(lab)) for lab in labs}
    record = _read_record(folder)
    done = [_write_copy(folder / name, node, record) for name, node in fresh.items()]
    atomic_text(folder / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return done


def reset(labs: Sequence[Path], folder: Path) -> list[Copied]:
    """Write fresh copies of ``labs`` and drop their progress; what stood there goes to ``folder/backups``.

    Returns:
        The fresh copies, and before each the backups that were made for it.

    Raises:
        NotebookError: a lab cannot be read, or a solution region is not closed; then nothing is touched.
    """
    fresh = {lab.name: without_solutions(read(lab)) for lab in labs}
    record = _read_record(folder)
    done = []
    for name, node in fresh.items():
        target = folder / name
        for old in (target, target.with_name(f"{target.stem}.new.ipynb")):
            if old.exists():
                done.append(Copied(_back_up(old), "your work, kept"))
                old.unlink()
            record.pop(old.name, None)
        if (folder / FILE).exists():
            forget(folder, name[:2])
        done.append(_write_copy(target, node, record))
        atomic_text(folder / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")
    return done


def _back_up(path: Path) -> Path:
    stamp = datetime.now().strftime("%Y-%m-%d_%H%M%S")
    names = [path.parent / BACKUPS / f"{path.stem}.{stamp}{more}.ipynb" for more in ("", *range(1, 1000))]
    kept = next(name for name in names if not name.exists())
    kept.parent.mkdir(exist_ok=True)
    shutil.copy2(path, kept)
    return kept


def _write_copy(target: Path, node: Any, record: dict[str, str]) -> Copied:
    """Write one copy where no edit of the learner stands, else beside it; ``record`` is brought up to date."""
    newest = fingerprint(node)
    there = _fingerprint_of(target)
    if there in (None, newest):
        if there is None:
            _write(target, node)
        record[target.name] = newest
        return Copied(target, "written" if there is None else "up to date")
    if there == record.get(target.name):
        _write(target, node)
        record[target.name] = newest
        return Copied(target, "updated")
    if record.get(target.name) == newest:
        return Copied(target, "yours")
    beside = target.with_name(f"{target.stem}.new.ipynb")
    if _fingerprint_of(beside) in (None, record.get(beside.name)):
        _write(beside, node)
        record[beside.name] = newest
    return Copied(target, "yours, newer one beside it")


def fingerprint(node: Any) -> str:
    """A hash of what a learner edits: the kind and the text of each cell, and neither outputs nor metadata."""
    text = json.dumps([(cell["cell_type"], cell["source"]) for cell in node["cells"]])
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint_of(path: Path) -> str | None:
    """The fingerprint of a file, None where there is none; what cannot be read as a notebook is somebody's work too."""
    if not path.exists():
        return None
    try:
        return fingerprint(read(path).node)
    except NotebookError:
        return "unreadable"


def _write(path: Path, node: Any) -> None:
    import nbformat

    atomic_text(path, nbformat.writes(node) + "\n")


def _read_record(folder: Path) -> dict[str, str]:
    try:
        record: dict[str, str] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # then every copy that differs counts as edited
    return record
