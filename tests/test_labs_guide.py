"""A learner's way through an exercise: wrong, a hint, one more, the solution, passed; and the page that shows it."""

from __future__ import annotations

import re

import pytest

from labsupport import check, hint, solution
from labsupport.errors import ParameterError
from labsupport.labs.guide import hints_in
from labsupport.labs.launcher import PAGE, Shelved, describe, page, read_shelf, shelve
from labsupport.labs.learner import reset, write_copies
from labsupport.labs.lint.exercises import exercises
from labsupport.labs.notebook import find_labs, read
from labsupport.labs.progress import Progress, load

LAB = find_labs()[0]  # lab 00: exercise 00.1 has one hint, 00.2 has two
RIGHT = dict(enumerate(("b", lambda layers, heads, size, each: 2 * layers * heads * size * each), start=1))


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """A folder with the learner copy of lab 00, in which the notebook runs."""
    write_copies([LAB], tmp_path)
    shelve([LAB], tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys):
    return capsys.readouterr().out


def wrong(*_):
    return 1


def test_wrong_attempts_lead_from_hint_to_hint_to_the_solution(copies, capsys):
    check("00.2", wrong)
    assert 'hint("00.2") shows hint 1 of 2' in said(capsys)
    hint("00.2")
    assert said(capsys).startswith("**Hint 1 of 2, exercise 00.2.** Each layer keeps one key")
    check("00.2", wrong)
    assert 'hint("00.2") shows hint 2 of 2' in said(capsys)
    hint("00.2")
    assert "Hint 2 of 2" in said(capsys)
    check("00.2", wrong)
    assert 'solution("00.2") shows one way' in said(capsys)
    solution("00.2")
    assert "return 2 * layers * kv_heads * head_size * bytes_each" in said(capsys)
    state = load(copies)["00.2"]
    assert (state.wrong, state.hints, state.passed) == (3, 2, "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", state.solution)


def test_after_the_last_hint_all_are_shown_again(copies, capsys):
    for _ in range(3):
        said(capsys)
        hint("00.2")
    text = said(capsys)
    assert re.findall(r"Hint \d of \d", text) == ["Hint 1 of 2", "Hint 2 of 2"]
    assert 'last hint; `solution("00.2")`' in text
    assert load(copies)["00.2"].hints == 2


def test_passing_says_what_is_next_and_counts_once(copies, capsys):
    check("00.1", RIGHT[1])
    first = load(copies)["00.1"].passed
    assert "1 of 4 passed in this lab; next: 00.2." in said(capsys)
    check("00.1", "a")
    check("00.1", RIGHT[1])
    assert load(copies)["00.1"].passed == first


def test_a_stub_is_no_attempt(copies, capsys):
    check("00.1", None)
    assert said(capsys) == "○ Exercise 00.1: not yet attempted.\n"
    assert load(copies) == {}


def test_outside_of_learner_copies_nothing_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check("00.1", "a")
    hint("00.2")
    solution("00.2")
    text = said(capsys)
    assert "Stuck?" not in text
    assert text.count("**Hint ") == 2
    assert list(tmp_path.iterdir()) == []


def test_a_check_never_fails_because_progress_cannot_be_kept(copies, capsys):
    (copies / ".progress.json").mkdir()
    assert check("00.1", RIGHT[1]) == RIGHT[1]
    assert "✓ Exercise 00.1: passed.\n  Your progress could not be kept: " in said(capsys)
    hint("00.1")
    assert "Hint 1 of 1" in said(capsys)


@pytest.mark.parametrize("ask", [hint, solution])
@pytest.mark.parametrize("id", ["00.9", "77.1", "nonsense"])
def test_an_unknown_exercise_is_said_so(ask, id):
    with pytest.raises(ParameterError, match=f"no exercise '{id}'"):
        ask(id)


@pytest.mark.parametrize("ask", [hint, solution, lambda id: check(id, None)])
@pytest.mark.parametrize("id", [2.3, "2.3"])
def test_an_id_without_its_quotes_or_digits_is_told_its_form(ask, id):
    with pytest.raises(ParameterError, match="two digits of a lab, a dot and a number"):
        ask(id)


@pytest.mark.parametrize("lab", find_labs(), ids=lambda lab: lab.stem)
def test_every_exercise_of_every_lab_has_hints_that_are_found(lab):
    shelved = describe(lab)
    assert shelved.minutes
    assert shelved.level
    assert shelved.claim.startswith("By the end")
    for one in exercises(read(lab)):
        texts = hints_in(one)
        assert len(texts) == one.text.count("<summary>Hint")
        assert len(texts) == shelved.hints[one.heading.split()[1]] > 0
        assert all(len(text) > 20 and "details>" not in text for text in texts)


def test_the_page_follows_the_work(copies):
    text = (copies / PAGE).read_text()
    assert "**Begin with [Lab 00 · Start here](00_start_here.ipynb).** By the end" in text
    assert "| [00 · Start here](00_start_here.ipynb) | 35 | ●○○○○ | □□□□ 0 of 4 |" in text
    check("00.1", RIGHT[1])
    check("00.2", wrong)
    solution("00.3")
    text = (copies / PAGE).read_text()
    assert "**Go on with [Lab 00 · Start here](00_start_here.ipynb), exercise 00.2.**" in text
    assert "| ■◧◧□ 1 of 4, solution seen: 00.3 |" in text


def a_shelf(*numbers):
    return [Shelved(f"{number}_lab.ipynb", f"Lab {number} · T", "", "5", "●", {f"{number}.1": 1}) for number in numbers]


@pytest.mark.parametrize(
    ("progress", "first"),
    [
        ({}, "**Begin with [Lab 00 · T](00_lab.ipynb).** "),
        ({"01.1": Progress(wrong=1)}, "**Go on with [Lab 01 · T](01_lab.ipynb), exercise 01.1.** "),
        ({"00.1": Progress(passed="now")}, "**Go on with [Lab 01 · T](01_lab.ipynb).** "),
        ({"00.1": Progress(passed="now"), "01.1": Progress(passed="now")}, "All exercises are passed."),
    ],
)
def test_the_page_knows_where_to_go_on(progress, first):
    assert page(a_shelf("00", "01"), progress).splitlines()[2] == first


def test_a_newer_edition_beside_an_edited_copy_is_linked():
    text = page(a_shelf("00"), {}, frozenset({"00_lab.new.ipynb"}))
    assert "[00 · T](00_lab.ipynb) ([newer edition](00_lab.new.ipynb))" in text


def test_a_lab_begun_again_loses_neither_the_old_work_nor_the_other_labs(tmp_path, monkeypatch):
    labs = find_labs()[:2]
    write_copies(labs, tmp_path)
    shelve(labs, tmp_path)
    monkeypatch.chdir(tmp_path)
    fresh = (tmp_path / labs[0].name).read_text()
    (tmp_path / labs[0].name).write_text(fresh.replace("too_big = None", "too_big = 'mine'"))
    (tmp_path / labs[1].name).write_text(other := (tmp_path / labs[1].name).read_text().replace("None", "'mine'"))
    check("00.1", RIGHT[1])
    check("01.1", "a")
    kept, again = reset(labs[:1], tmp_path)
    assert (kept.state, again.state) == ("your work, kept", "written")
    assert "too_big = 'mine'" in kept.path.read_text()
    assert (tmp_path / labs[0].name).read_text() == fresh
    assert (tmp_path / labs[1].name).read_text() == other
    assert load(tmp_path).keys() == {"01.1"}


def test_two_resets_in_one_second_keep_two_backups(copies):
    first, _ = reset([LAB], copies)
    second, _ = reset([LAB], copies)
    assert first.path != second.path
    assert len(list((copies / "backups").iterdir())) == 2


def test_a_damaged_shelf_is_written_anew(copies):
    (copies / ".labs-shelf.json").write_text("half")
    assert read_shelf(copies) == []
    shelve([LAB], copies)
    assert [lab.number for lab in read_shelf(copies)] == ["00"]
