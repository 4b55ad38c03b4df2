"""Learner copies: no solution is left in them, they still run, and what a learner wrote is never lost."""

from __future__ import annotations

import re

import nbformat
import pytest
from labs_notebooks import PARAMETERS, SAMPLE, write_notebook

from labsupport.errors import NotebookError
from labsupport.labs.learner import without_solutions, write_copies
from labsupport.labs.notebook import find_labs, read
from labsupport.labs.run import run_labs

STUB = "def twice(x):\n    raise NotImplementedError"
SOLUTION = "def twice(x):\n    return 2 * x  # the secret"


def edit(path, source):
    node = nbformat.read(path, as_version=4)
    node.cells[-1].source = source
    nbformat.write(node, path)


def a_lab(folder, last="print('first edition')"):
    return write_notebook(folder / "01_a.ipynb", PARAMETERS, (STUB, "exercise"), (SOLUTION, "solution"), last)


def source(path):
    return "\n".join(cell.source for cell in read(path).cells)


def state(lab, folder):
    (copied,) = write_copies([lab], folder)
    return copied.state


def test_solution_cells_and_regions_are_gone_and_the_stub_stands():
    copy = without_solutions(read(SAMPLE))
    text = "\n".join(cell.source for cell in copy.cells)
    assert "secret" in source(SAMPLE)
    assert "secret" not in text
    assert "SOLUTION" not in text
    assert 'below b < 0."""\n    # Your code here.\n    raise NotImplementedError' in text.replace("for b", "below b")


@pytest.mark.parametrize("lab", [SAMPLE, *find_labs()], ids=lambda lab: lab.stem)
def test_no_line_of_a_solution_is_left(lab):
    notebook = read(lab)
    kept = {line.strip() for cell in notebook.cells if "solution" not in cell.tags for line in cell.source.splitlines()}
    secret = {line.strip() for cell in notebook.tagged("solution") for line in cell.source.splitlines()} - kept
    learner = {line.strip() for cell in without_solutions(notebook).cells for line in cell.source.splitlines()}
    assert secret
    assert not [line for line in secret if len(line) > 8 and line in learner]


@pytest.mark.parametrize("lab", find_labs(), ids=lambda lab: lab.stem)
def test_the_set_up_brings_the_helpers_of_a_learner(lab):
    (setup,) = [cell for cell in without_solutions(read(lab)).cells if "setup" in cell.metadata.get("tags", [])]
    assert re.search(r"^from labsupport import check, (decoding, )?hint, solution, start$", setup.source, re.MULTILINE)


def test_copies_hold_no_outputs_and_no_widget_state(tmp_path):
    lab = a_lab(tmp_path)
    node = nbformat.read(lab, as_version=4)
    node.cells[-1].outputs = [nbformat.v4.new_output("stream", text="was run")]
    node.cells[-1].execution_count = 3
    node.metadata["widgets"] = {"state": {}}
    nbformat.write(node, lab)
    copy = without_solutions(read(lab))
    assert "widgets" not in copy.metadata
    assert copy.metadata.kernelspec.name == "python3"
    assert all(not cell.outputs and cell.execution_count is None for cell in copy.cells if cell.cell_type == "code")


@pytest.mark.parametrize(
    "text",
    [
        "### BEGIN SOLUTION\nx = 1",
        "x = 1\n### END SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
        "### BEGIN SOLUTION\n### END SOLUTION\n# END SOLUTION",
    ],
)
def test_an_open_solution_region_is_refused_and_nothing_is_written(tmp_path, text):
    good, bad = a_lab(tmp_path), write_notebook(tmp_path / "02_open.ipynb", PARAMETERS, text)
    with pytest.raises(NotebookError, match="without its partner"):
        write_copies([good, bad], tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_a_copy_is_written_once_and_then_up_to_date(tmp_path):
    lab = a_lab(tmp_path)
    assert [state(lab, tmp_path / "mine") for _ in range(3)] == ["written", "up to date", "up to date"]


def test_a_copy_that_nobody_edited_follows_the_original(tmp_path):
    lab, mine = a_lab(tmp_path), tmp_path / "mine"
    write_copies([lab], mine)
    a_lab(tmp_path, "print('second edition')")
    assert state(lab, mine) == "updated"
    assert "second edition" in source(mine / lab.name)


def test_a_copy_that_was_only_run_is_not_edited(tmp_path):
    lab, mine = a_lab(tmp_path), tmp_path / "mine"
    write_copies([lab], mine)
    node = nbformat.read(mine / lab.name, as_version=4)
    node.cells[-1].outputs = [nbformat.v4.new_output("stream", text="first edition")]
    nbformat.write(node, mine / lab.name)
    a_lab(tmp_path, "print('second edition')")
    assert state(lab, mine) == "updated"


def test_an_edited_copy_stays_and_a_newer_original_lands_beside_it(tmp_path):
    lab, mine = a_lab(tmp_path), tmp_path / "mine"
    write_copies([lab], mine)
    edit(mine / lab.name, "my = 'work'")
    assert state(lab, mine) == "yours"
    assert not (mine / "01_a.new.ipynb").exists()
    a_lab(tmp_path, "print('second edition')")
    assert state(lab, mine) == "yours, newer one beside it"
    assert "my = 'work'" in source(mine / lab.name)
    assert "second edition" in source(mine / "01_a.new.ipynb")


def test_the_newer_one_beside_it_follows_the_original_until_it_is_edited_too(tmp_path):
    lab, mine = a_lab(tmp_path), tmp_path / "mine"
    write_copies([lab], mine)
    edit(mine / lab.name, "my = 'work'")
    for edition in ("second", "third"):
        a_lab(tmp_path, f"print('{edition} edition')")
        write_copies([lab], mine)
        assert f"{edition} edition" in source(mine / "01_a.new.ipynb")
    edit(mine / "01_a.new.ipynb", "more = 'work'")
    a_lab(tmp_path, "print('fourth edition')")
    write_copies([lab], mine)
    assert "more = 'work'" in source(mine / "01_a.new.ipynb")


def test_work_is_kept_when_the_record_is_lost_or_the_copy_cannot_be_read(tmp_path):
    lab, mine = a_lab(tmp_path), tmp_path / "mine"
    write_copies([lab], mine)
    edit(mine / lab.name, "my = 'work'")
    (mine / ".labs-learner.json").unlink()
    assert state(lab, mine) == "yours, newer one beside it"
    (mine / lab.name).write_text("half a notebook")
    assert state(lab, mine) == "yours, newer one beside it"
    assert (mine / lab.name).read_text() == "half a notebook"


def test_a_learner_copy_runs_to_the_end_with_its_stubs_untouched(tmp_path):
    check = "from labsupport.labs.checks import Exercise, judge\nprint(judge(Exercise('01.1', twice, print), twice))"
    prove = check.replace("print), twice", "lambda attempt: attempt(2)), twice")
    lab = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS, (STUB, "exercise"), (SOLUTION, "solution"), prove)
    (copied,) = write_copies([lab], tmp_path / "mine")
    (outcome,) = run_labs([copied.path], build=tmp_path / "build", timeout=60)
    assert outcome.status == "passed", outcome.problem
    assert "not yet attempted" in read(outcome.executed).cells[-1].node.outputs[0].text
