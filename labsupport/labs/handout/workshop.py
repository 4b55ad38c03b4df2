"""All that a workshop needs beside the labs: covers, schedules, cheat-sheet, glossary and answer key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labsupport.labs.handout.answers import answer_key
from labsupport.labs.handout.contents import write_contents
from labsupport.labs.handout.edition import Edition
from labsupport.labs.handout.page import EDITIONS, claim
from labsupport.labs.handout.reference import cheat_sheet, glossary, read_glossary
from labsupport.labs.handout.schedule import courses, schedules
from labsupport.labs.handout.sheet import SHEETS, Kind, Sheet, write_sheet
from labsupport.labs.notebook import Notebook, read


def write_workshop(labs: Sequence[Path], folder: Path) -> list[Path]:
    """Write the sheets that go with ``labs`` (notebooks, executed or not), and bring the front page up to date.

    Returns:
        the pages.

    Raises:
        NotebookError: a notebook cannot be read, a card has no minutes, or a page would not stand alone.
    """
    read_labs = [read(path) for path in labs]
    numbers = {lab.number: lab.path.stem for lab in read_labs}
    texts: dict[Kind, str] = {
        "schedules": schedules(courses(read_labs)),
        "cheat-sheet": cheat_sheet(),
        "glossary": glossary(read_glossary(), numbers),
        "answer-key": answer_key(read_labs),
    }
    sheets = [Sheet("cover", f"cover.{edition}.html", cover(read_labs, edition), edition) for edition in EDITIONS]
    for kind, text in texts.items():
        sheets.append(Sheet(kind, SHEETS[kind][0], text, "instructor" if kind == "answer-key" else "learner"))
    folder.mkdir(parents=True, exist_ok=True)
    made = [write_sheet(sheet, folder) for sheet in sheets]
    write_contents(folder)
    return made


def cover(labs: Sequence[Notebook], edition: Edition) -> str:
    """The cover of an edition as markdown: the title, the labs with their minutes and claims, and the sheets."""
    minutes = {course.lab: course.minutes for course in courses(labs)}
    rows = [f"| [{lab.title}]({lab.path.name})<br>{_shown(lab)} | {minutes[lab.path.stem]} |" for lab in labs]
    beside = [f"- [{line}]({file})" for kind, (file, line) in SHEETS.items() if _holds(edition, kind)]
    words = "learn" if edition == "learner" else "teach"
    return "\n".join(
        [
            "# LLM Serving Labs",
            "",
            "From logits to a validated, benchmarked, streaming server",
            "",
            f"**{edition.capitalize()} edition** · {len(labs)} labs, {sum(minutes.values())} minutes to {words}",
            "",
            "## Contents",
            "",
            "| lab: you will have shown | minutes |",
            "|---|---|",
            *rows,
            "",
            "## Beside the labs",
            "",
            *beside,
        ]
    )


def _shown(lab: Notebook) -> str:
    """The claim without the words that open each of them."""
    return claim(lab).removeprefix("By the end you will have shown ")


def _holds(edition: Edition, kind: Kind) -> bool:
    return edition == "instructor" or kind != "answer-key"
