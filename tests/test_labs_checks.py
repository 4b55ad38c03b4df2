"""Every exercise of every lab: its check passes what is right, and fails the stub and the typical mistakes."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest
from labs_slices import checked, run_cell

import labsupport.labs.checks as home
from labsupport.labs.checks import exercises_of, find, judge
from labsupport.labs.lint.exercises import exercises
from labsupport.labs.notebook import find_labs, read

CHECKS = sorted(Path(home.__file__).parent.glob("lab[0-9][0-9].py"))
IDS = [id for path in CHECKS for id in re.findall(r"^@exercise\(\s*\"([^\"]+)\"", path.read_text(), re.MULTILINE)]
LABS = [lab for lab in find_labs() if (CHECKS and lab.name[:2] in {path.stem[-2:] for path in CHECKS})]
CASES = [(lab, id) for lab in LABS for id in IDS if id.startswith(lab.name[:2])]
exercise_ids = pytest.mark.parametrize("id", IDS)
notebook_exercises = pytest.mark.parametrize(("lab", "id"), CASES, ids=[id for _, id in CASES])


def mistakes(id):
    return import_module(f"mistakes.lab{id[:2]}").MISTAKES[id]


def stub_like(reference):
    """What stands in the exercise cell before anybody worked on it."""
    if not callable(reference):
        return None

    def stub(*_, **__):
        raise NotImplementedError

    return stub


@exercise_ids
def test_the_reference_passes(id):
    verdict = judge(find(id), find(id).reference)
    assert verdict.state == "passed", verdict


@exercise_ids
def test_a_stub_is_not_yet_attempted(id):
    assert judge(find(id), stub_like(find(id).reference)).state == "not yet attempted"


@exercise_ids
def test_typical_mistakes_are_told_why(id):
    assert len(mistakes(id)) >= 2
    for mistake in mistakes(id):
        verdict = judge(find(id), mistake)
        assert verdict.state == "not right yet", f"{getattr(mistake, '__name__', mistake)!r}: {verdict}"
        assert verdict.reason.strip()


@notebook_exercises
def test_the_solution_in_the_notebook_agrees_with_the_reference(lab, id):
    notebook = read(lab)
    (section,) = [one for one in exercises(notebook) if one.heading.startswith(f"Exercise {id} ")]
    solution = [cell for cell in section.cells if cell.kind == "code" and "solution" in cell.tags][-1]
    verdict = judge(find(id), handed_in(notebook, section, solution, id))
    assert verdict.state == "passed", verdict


@notebook_exercises
def test_the_stub_in_the_notebook_is_not_yet_attempted(lab, id):
    notebook = read(lab)
    (section,) = [one for one in exercises(notebook) if one.heading.startswith(f"Exercise {id} ")]
    (stub,) = [cell for cell in section.cells if "exercise" in cell.tags]
    assert judge(find(id), handed_in(notebook, section, stub, id)).state == "not yet attempted"


def handed_in(notebook, section, cell, id):
    """What the check of exercise ``id`` gets after ``cell`` ran."""
    (check,) = [one for one in section.cells if "check" in one.tags]
    expression = ast.Expression(checked(check)[id])
    return eval(compile(expression, id, "eval"), run_cell(notebook, cell))


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_each_registered_exercise_is_found_by_these_tests(path):
    registered = set(exercises_of(path.stem[-2:]))
    assert registered
    assert registered == {id for id in IDS if id.startswith(path.stem[-2:])}


@pytest.mark.parametrize("lab", find_labs(), ids=lambda lab: lab.stem)
def test_notebook_and_checks_have_the_same_exercises(lab):
    shown = {one.heading.split()[1] for one in exercises(read(lab))}
    assert shown
    assert shown == set(exercises_of(lab.name[:2]))
