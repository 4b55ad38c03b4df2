"""Pages on paper: Chromium prints a handout as a tagged PDF with an outline and numbered pages.

A page is loaded once and printed on each paper, always in its light form. What is folded on the screen because it is
housekeeping stands open on paper, but a clean-up without a word is left out. Answers that a learner has folded stay
folded. A figure that would leave its page's end empty for want of little room is made smaller (``fit.js``).
"""

from __future__ import annotations

import html
import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labsupport.doctor.machine import CHROMIUM, find_program
from labsupport.doctor.rows import Row, chromium_row
from labsupport.errors import NotebookError, ParameterError
from labsupport.labs.handout.audit import PDF_BYTES, require_size
from labsupport.workspace import atomic_bytes

PAPERS = {"a4": ("A4", 180.0, 263.0), "letter": ("Letter", 185.9, 245.4)}
"""The name in a file's ending; Chromium's name of the paper, and the width and height inside the margins, mm."""

_LOADED_TIMEOUT = 60_000  # milliseconds, for a page and for its print
_SMALLEST = 0.72  # of a figure's size; below it, small letters are hard to read
_OPEN = "document.querySelectorAll('details.cell').forEach(folded => { folded.open = true })"
_FOOT = """<div style="width:100%;margin:0 15mm;font:7.5pt sans-serif;color:#57606a;display:flex">
<span style="flex:1">{title}</span>
<span><span class="pageNumber"></span> / <span class="totalPages"></span></span></div>"""


def printer_row() -> Row:
    """The doctor's row on Chromium, and on the package that drives it: ``ok`` where PDF can be made."""
    place = find_program(*CHROMIUM)
    if place and importlib.util.find_spec("playwright") is None:
        mend = "rm -f .venv/.ready && make setup"
        return Row("playwright", "note", "missing", "PDF handouts, browser tests", mend)
    return chromium_row(str(place) if place else None)


def print_pages(pages: Sequence[Path], papers: Sequence[str] = tuple(PAPERS)) -> Iterator[Path]:
    """Print HTML pages; each ``NAME.html`` becomes ``NAME.a4.pdf`` and ``NAME.letter.pdf`` beside it.

    Yields:
        each PDF as soon as it stands there, whole.

    Raises:
        ParameterError: there is no such paper.
        NotebookError: Chromium is missing, or cannot print a page, or a print is too large.
    """
    for paper in papers:
        if paper not in PAPERS:
            raise ParameterError(f"no paper {paper!r}", why="handouts are printed on two", fix=" or ".join(PAPERS))
    if (row := printer_row()).state != "ok":
        raise NotebookError(f"{row.name}: {row.found}", why="it prints the PDF handouts", fix=row.mend)
    return _print(pages, papers)


def _print(pages: Sequence[Path], papers: Sequence[str]) -> Iterator[Path]:
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=str(find_program(*CHROMIUM)), args=["--no-sandbox", "--disable-background-networking"]
        )
        sheet = chromium.new_page(
            color_scheme="light", offline=True
        )  # offline: a page that asks for more is no handout
        sheet.set_default_timeout(_LOADED_TIMEOUT)
        for page in pages:
            try:
                sheet.goto(page.resolve().as_uri())
                sheet.evaluate(_OPEN)
                sheet.emulate_media(media="print")
                for paper in papers:
                    target = page.with_suffix(f".{paper}.pdf")
                    content = _printed(sheet, paper, page)
                    require_size(target.name, len(content), PDF_BYTES)
                    atomic_bytes(target, content)
                    yield target
            except Error as problem:
                raise NotebookError(
                    f"{page.name} could not be printed",
                    why=str(problem).splitlines()[0],
                    fix="open the HTML in a browser and look, or build it again: labs handout",
                ) from problem
        chromium.close()


def _printed(sheet: Any, paper: str, page: Path) -> bytes:
    title = re.search(r"<title>(.*?)</title>", page.read_text(encoding="utf-8")[:4000], re.DOTALL)
    foot = _FOOT.format(title=title[1] if title else html.escape(page.stem))
    size, width, height = PAPERS[paper]
    sheet.evaluate("document.querySelectorAll('figure img').forEach(image => { image.style.width = '' })")
    sheet.evaluate((Path(__file__).parent / "fit.js").read_text(encoding="utf-8"), [width, height, _SMALLEST])
    printed: bytes = sheet.pdf(
        format=size,
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=foot,
        tagged=True,
        outline=True,
    )
    return printed
