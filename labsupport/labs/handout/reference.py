"""Glossary and cheat-sheet: their words are data (``data/glossary.json``, ``data/cheat_sheet.md``)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from labsupport.errors import NotebookError
from labsupport.workspace import data_folder


@dataclass(frozen=True)
class Term:
    """A word of the field: what it means, and the number of the lab that explains it ("02")."""

    term: str
    means: str
    lab: str


def read_glossary(path: Path | None = None) -> list[Term]:
    """The terms of ``path`` (default: ``data/glossary.json``), in the order of the alphabet.

    Raises:
        NotebookError: the file is no list of ``{"term", "means", "lab"}``, or has a term twice.
    """
    path = path or data_folder() / "glossary.json"
    try:
        terms = [Term(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as problem:
        raise NotebookError(
            f"{path.name} is no glossary", why=str(problem), fix='write a list of {"term", "means", "lab"}'
        ) from None
    names = sorted((one.term for one in terms), key=str.casefold)
    for name, same in groupby(names, key=str.casefold):
        if len(list(same)) > 1:
            raise NotebookError(
                f"{path.name} has {name!r} twice", why="a word has one meaning here", fix="join the two"
            )
    return sorted(terms, key=lambda one: one.term.casefold())


def glossary(terms: Sequence[Term], labs: dict[str, str]) -> str:
    """The glossary as markdown.

    Args:
        terms: in the order of the page.
        labs: number -> file name without ending, of the labs that are there to be linked.
    """
    rows = [f"| **{one.term}** | {one.means} | {_link(one.lab, labs)} |" for one in terms]
    intro = f"{len(rows)} terms, each as these labs use it; the last column is the lab that explains it."
    return "\n".join(["# Glossary", "", intro, "", "| term | means | lab |", "|---|---|---|", *rows])


def _link(number: str, labs: dict[str, str]) -> str:
    return f"[{number}]({labs[number]}.ipynb)" if number in labs else number


def cheat_sheet() -> str:
    """The cheat-sheet as markdown; its style sheet sets it on two pages."""
    return (data_folder() / "cheat_sheet.md").read_text(encoding="utf-8")
