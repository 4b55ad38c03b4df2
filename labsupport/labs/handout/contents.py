"""The front page of a folder of handouts."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from pathlib import Path

from labsupport.labs.handout.sheet import SHEETS
from labsupport.workspace import atomic_text

_HERE = Path(__file__).parent
_NAME = re.compile(r"(?P<lab>\d\d_.+)\.(?P<edition>learner|instructor)\.html")
_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)
_CLAIM = re.compile(r'<meta name="description" content="([^"]*)">')


@dataclass
class Entry:
    """One lab on the front page.

    Args:
        title, claim: as its pages say.
        pages: edition -> file name.
        prints: edition -> the PDF files that were printed of it.
    """

    title: str
    claim: str
    pages: dict[str, str] = field(default_factory=dict)
    prints: dict[str, list[str]] = field(default_factory=dict)


def write_contents(folder: Path) -> Path:
    """Write ``folder/index.html`` over all handouts that stand there now; labs may finish at the same time.

    Returns:
        the front page.
    """
    from filelock import FileLock
    from jinja2 import Environment, FileSystemLoader

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "index.html"
    template = Environment(loader=FileSystemLoader(_HERE), autoescape=True).get_template("contents.html.j2")
    with FileLock(folder / ".index.lock"):  # else the slower of two would write the folder as it saw it before
        style = (_HERE / "page.css").read_text(encoding="utf-8")
        atomic_text(
            target, template.render(entries=list(_entries(folder).values()), sheets=_sheets(folder), style=style)
        )
    return target


def _entries(folder: Path) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.html")):
        if named := _NAME.fullmatch(path.name):
            head = path.read_text(encoding="utf-8")[:4000]
            title, claim = (found[1] if (found := part.search(head)) else "" for part in (_TITLE, _CLAIM))
            entry = entries.setdefault(named["lab"], Entry(html.unescape(title), html.unescape(claim)))
            entry.pages[named["edition"]] = path.name
            entry.prints[named["edition"]] = _prints(path)
    return entries


def _sheets(folder: Path) -> list[tuple[str, str, list[str]]]:
    """The sheets that stand in the folder: file, line, PDF files."""
    covers = [
        (f"cover.{edition}.html", f"Cover and contents, {edition} edition") for edition in ("learner", "instructor")
    ]
    there = [(folder / file, line) for file, line in [*covers, *SHEETS.values()] if (folder / file).is_file()]
    return [(path.name, line, _prints(path)) for path, line in there]


def _prints(page: Path) -> list[str]:
    return sorted(printed.name for printed in page.parent.glob(f"{page.stem}.*.pdf"))
