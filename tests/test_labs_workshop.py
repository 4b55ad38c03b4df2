"""What a workshop needs beside the labs: notes, schedules, answer key, cheat-sheet, glossary, cover."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from handout_fixture import code, lab, markdown, write
from hypothesis import given, settings
from hypothesis import strategies as some
from nbformat.v4 import new_notebook

from labsupport.errors import NotebookError
from labsupport.labs.handout import render, write_workshop
from labsupport.labs.handout.answers import answer_key
from labsupport.labs.handout.pdf import print_pages, printer_row
from labsupport.labs.handout.reference import cheat_sheet, glossary, read_glossary
from labsupport.labs.handout.schedule import (
    BEGINNING,
    FULL_DAY,
    HALF_DAY,
    SECOND_DAY,
    SHORTEST,
    Course,
    blocks,
    courses,
    plan,
    schedules,
)
from labsupport.labs.handout.sheet import Sheet, write_sheet
from labsupport.labs.learner import without_solutions
from labsupport.labs.lint import lint
from labsupport.labs.notebook import find_labs, read

LABS = find_labs()
DAYS = {"half a day": [HALF_DAY], "one day": [FULL_DAY], "two days": [FULL_DAY, SECOND_DAY]}
some_courses = some.lists(some.integers(1, 400), max_size=20).map(
    lambda minutes: [Course(f"{at:02d}_lab", f"Lab {at:02d}", length) for at, length in enumerate(minutes)]
)


# The instructor's notes


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_notes_of_a_lab_reach_the_instructor_only(path, tmp_path):
    notebook = read(path)
    notes = [cell.source for cell in notebook.tagged("instructor")]
    copied = nbformat.writes(without_solutions(notebook))
    learner, instructor = (page.read_text(encoding="utf-8") for page in render(path, tmp_path))
    assert instructor.count('data-cell="lab' + notebook.number + "-i") == len(notes)
    assert "For the instructor" not in learner
    assert not re.search(r"lab\d\d-i\d\d", learner + copied)
    for note in notes:
        first = re.search(r"\*\*(.+?)\*\*", note)[1]
        assert f"<strong>{first}" in instructor.replace("&quot;", '"')
        assert json.dumps(note, ensure_ascii=False)[1:60] not in copied


@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_a_lab_s_first_note_divides_the_minutes_of_its_card(path):
    notebook = read(path)
    notes = notebook.tagged("instructor")
    if not notes:
        pytest.skip("no notes yet")
    assert len(notes) >= 3
    said = re.match(r"\*\*Timing, (\d+) minutes\.\*\*", notes[0].source)
    assert int(said[1]) == courses([notebook])[0].minutes


def with_note(tmp_path: Path, source: str, *, id: str = "lab00-i01", kind=markdown, tags=("instructor",)) -> list[str]:
    """What lint says of a lab's copy with one more note, as the first lines of its findings."""
    node = nbformat.read(LABS[0], as_version=4)
    node.cells = [cell for cell in node.cells if "instructor" not in cell.metadata.get("tags", [])]
    cell = kind(source, *tags)
    cell.id = id
    node.cells.insert(3, cell)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for path in LABS[1:]:
        (folder / path.name).write_bytes(path.read_bytes())  # the card links to the next lab
    (tmp_path / "data").symlink_to(LABS[0].parents[1] / "data")
    return [found.what for found in lint([write(node, folder / LABS[0].name)])]


def test_a_good_note_is_no_finding_however_long_the_lab_s_median(tmp_path):
    assert with_note(tmp_path, "**Timing.** " + "word " * 100) == []


@pytest.mark.parametrize(
    ("note", "complaint"),
    [
        ({"source": "x", "id": "lab00-99"}, "a note has the id 'lab00-99'"),
        ({"source": "## Timing"}, "a note holds a heading"),
        ({"source": "word " * 121}, "a note of 121 words"),
        ({"source": "1 + 1", "kind": code}, "a note is code"),
        ({"source": "x", "tags": ("instructor", "solution")}, "a note is markdown, tagged"),
        ({"source": "a colour"}, "'colour' is British"),
        ({"source": "[x](nowhere.ipynb)"}, "leads nowhere"),
    ],
)
def test_a_bad_note_is_a_finding(tmp_path, note, complaint):
    assert any(complaint in what for what in with_note(tmp_path, **note))


# Schedules


@settings(deadline=None)
@given(some_courses, some.sampled_from(sorted(DAYS)))
def test_a_schedule_keeps_its_breaks_and_its_end_and_gives_each_lab_its_minutes(labs, name):
    days = DAYS[name]
    made = plan(labs, days)
    placed = labs[: len(labs) - len(made.left)]
    assert list(made.left) == labs[len(placed) :]
    for number, day in enumerate(days, start=1):
        rows = [entry for entry in made.entries if entry.day == number]
        assert (rows[0].start, rows[-1].end) == (day[0].start, day[-1].end)
        assert all(one.end == two.start and one.start < one.end for one, two in pairwise(rows))
        fixed = {(one.start, one.end) for one in day if one.name}
        assert fixed <= {(one.start, one.end) for one in rows if not one.lab}
    for course in placed:
        pieces = [entry.end - entry.start for entry in made.entries if entry.lab == course.lab]
        assert sum(pieces) == course.minutes
        assert len(pieces) == 1 or min(pieces) >= SHORTEST
        assert pieces[0] >= min(BEGINNING, course.minutes)
    told = [entry.lab for entry in made.entries if entry.lab]
    assert told == sorted(told)


@settings(deadline=None)
@given(some_courses)
def test_every_lab_that_fits_half_a_day_stands_in_one_half_day(labs):
    room = sum(one.end - one.start for one in HALF_DAY if not one.name)
    told = {entry.lab for made in blocks(labs, HALF_DAY) for entry in made.entries if entry.lab}
    assert {course.lab for course in labs if course.minutes <= room - 2 * SHORTEST} <= told


def test_the_longest_stretch_without_a_break_is_90_minutes():
    for day in (HALF_DAY, FULL_DAY):
        assert max(one.end - one.start for one in day if not one.name) <= 90


def test_schedules_are_made_from_the_cards():
    labs = [read(path) for path in LABS]
    text = schedules(courses(labs))
    for lab_read in labs:
        assert f"[{lab_read.title}]({lab_read.path.name})" in text
    assert f"{sum(course.minutes for course in courses(labs))} minutes in all" in text
    assert {"## One day", "## Two days", "## Half a day, choice 1"} <= set(re.findall(r"^## .+$", text, re.MULTILINE))


@pytest.mark.parametrize("card", ["| Minutes | about an hour |", "| Minutes | 0 |", "| Level | easy |"])
def test_a_card_without_minutes_is_named(tmp_path, card):
    path = write(
        new_notebook(cells=[markdown("# Lab 09 · Small"), markdown(f"| | |\n|---|---|\n{card}")]),
        tmp_path / "09_a.ipynb",
    )
    with pytest.raises(NotebookError, match="the card says Minutes"):
        courses([read(path)])


# Answer key


def test_the_key_holds_each_solution_and_the_answers_of_quiz_and_envelope():
    labs = [read(path) for path in LABS]
    key = answer_key(labs)
    for lab_read in labs:
        for cell in lab_read.tagged("solution"):
            assert cell.source in key
    assert key.count("### Quiz") == key.count("### Back of the envelope") == len(labs)
    assert "<details>" not in key
    assert "<summary>" not in key


def test_the_key_of_a_lab_without_exercises_is_empty(tmp_path):
    path = write(lab(), tmp_path / "02_sampling.ipynb")
    assert "the_secret_of_the_solution" in answer_key([read(path)])
    bare = write(new_notebook(cells=[markdown("# Lab 09 · Small")]), tmp_path / "09_a.ipynb")
    assert "###" not in answer_key([read(bare)])


# Cheat-sheet and glossary


def test_tensor_names_on_the_cheat_sheet_are_those_of_the_conversion():
    from labsupport.checkpoint.layout import TABLES

    rows = {row.name.rpartition("*.")[2].removeprefix("transformer."): row for row in TABLES["llama"]}
    text = cheat_sheet()
    for name, row in rows.items():
        assert name in text, name
        assert row.source.rpartition("*.")[2] in text, row.source
    assert re.search(r"`mlp.gate_proj` \| `mlp.fc`", text)


def test_the_cheat_sheet_names_the_pinned_version():
    from labsupport.compatibility import load_compatibility

    pinned = load_compatibility().container()
    assert f"TensorRT-LLM {pinned.tensorrt_llm.rpartition('.')[0]}, container {pinned.tag}" in cheat_sheet()


def test_the_glossary_is_in_order_and_leads_to_labs_that_are_there():
    terms = read_glossary()
    assert [one.term.casefold() for one in terms] == sorted(one.term.casefold() for one in terms)
    assert all(re.fullmatch(r"0\d|1[0-5]", one.lab) and one.means.endswith(".") for one in terms)
    text = glossary(terms, {"02": "02_sampling"})
    assert "| **top-k** | Keeping the k likeliest tokens. | [02](02_sampling.ipynb) |" in text
    assert "| **LoRA** |" in text
    assert "[14]" not in text


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("{", "is no glossary"),
        ('[{"term": "a"}]', "is no glossary"),
        ('[{"term": "a", "means": "x.", "lab": "00"}, {"term": "A", "means": "y.", "lab": "01"}]', "has .a. twice"),
    ],
)
def test_a_glossary_that_is_none_is_named(tmp_path, rows, complaint):
    path = tmp_path / "glossary.json"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(NotebookError, match=complaint):
        read_glossary(path)


# The pages


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    return {path.name: path for path in write_workshop(LABS, tmp_path_factory.mktemp("workshop"))}


def test_all_sheets_are_written_and_the_front_page_names_them(pages):
    assert set(pages) == {
        "cover.learner.html", "cover.instructor.html", "schedules.html",
        "cheat_sheet.html", "glossary.html", "answer_key.html",
    }  # fmt: skip
    front = (pages["glossary.html"].parent / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}"' in front for name in pages)
    for path in pages.values():
        assert "$" not in re.sub(
            r"<style>.*?</style>|<code>.*?</code>|<pre.*?</pre>", "", path.read_text("utf-8"), flags=re.DOTALL
        )


def test_the_cover_lists_the_labs_of_its_edition_and_keeps_the_key_from_learners(pages):
    learner, instructor = (pages[f"cover.{edition}.html"].read_text("utf-8") for edition in ("learner", "instructor"))
    for path in LABS:
        assert f'href="{path.stem}.learner.html"' in learner
        assert f'href="{path.stem}.instructor.html"' in instructor
    assert "answer_key.html" in instructor
    assert "answer_key.html" not in learner


def test_a_sheet_that_would_fetch_something_is_refused(tmp_path):
    with pytest.raises(NotebookError, match="would be fetched"):
        write_sheet(Sheet("glossary", "a.html", "# A\n\n![a map](https://example.org/map.png)"), tmp_path)
    assert not list(tmp_path.glob("*.html"))


@pytest.mark.browser
@pytest.mark.skipif(printer_row().state != "ok", reason="Chromium is not installed")
def test_the_cheat_sheet_is_two_pages_on_each_paper(pages):
    for printed in print_pages([pages["cheat_sheet.html"]]):
        assert len(re.findall(rb"/Type\s*/Page\b(?!s)", printed.read_bytes())) == 2


@pytest.mark.browser
@pytest.mark.skipif(printer_row().state != "ok", reason="Chromium is not installed")
@pytest.mark.parametrize("width", [360, 1000])
def test_the_sheets_are_accessible_and_fit_a_phone(pages, width):
    from browsers import chromium, serious_findings

    with chromium() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900})
        for sheet in [*pages.values(), pages["glossary.html"].parent / "index.html"]:
            page.goto(sheet.as_uri())
            assert serious_findings(page) == [], sheet.name
            assert page.evaluate("document.documentElement.scrollWidth") <= width, sheet.name
