"""A sheet: a handout page that is written in markdown and belongs to the whole set, not to one lab."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labsupport.labs.handout.audit import audit
from labsupport.labs.handout.edition import Edition
from labsupport.labs.handout.prose import Prose
from labsupport.workspace import atomic_text

Kind = Literal["cover", "schedules", "cheat-sheet", "glossary", "answer-key"]

SHEETS: dict[Kind, tuple[str, str]] = {
    "schedules": ("schedules.html", "Workshop schedules: half a day, one day, two days"),
    "cheat-sheet": ("cheat_sheet.html", "Cheat-sheet: symbols, formulas, flags, tensor names"),
    "glossary": ("glossary.html", "Glossary"),
    "answer-key": ("answer_key.html", "Answer key"),
}
"""kind -> file, and its line in the contents. The cover comes once an edition; the key is for instructors."""

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sheet:
    """One page beside the labs.

    Args:
        kind: what it is; the style sheet and errors name it so.
        file: its file name.
        markdown: its text, which begins with a ``#`` heading; formulas and links between labs as in a lab.
        edition: to which edition of a lab its links lead.
    """

    kind: Kind
    file: str
    markdown: str
    edition: Edition = "learner"


def write_sheet(sheet: Sheet, folder: Path) -> Path:
    """Write a sheet as a self-contained page into ``folder``.

    Raises:
        NotebookError: a formula cannot be drawn, or the page would fetch something.
    """
    from jinja2 import Environment, FileSystemLoader

    prose = Prose(suffix=f".{sheet.edition}", folder=str(folder.resolve()))
    body = prose.html(sheet.markdown, cell=sheet.file)
    template = Environment(loader=FileSystemLoader(_HERE), autoescape=True).get_template("sheet.html.j2")
    page = template.render(
        title=html.unescape(re.sub(r"<[^>]+>", "", prose.headings[0].text)),
        kind=sheet.kind,
        body=body.replace("<details>", "<details open>") if sheet.edition == "instructor" else body,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
    )
    audit(page)
    target = folder / sheet.file
    atomic_text(target, page)
    return target
