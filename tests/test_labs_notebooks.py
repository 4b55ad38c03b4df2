"""Every lab: clean by the house rules, and green from top to bottom, complete and as a learner gets it."""

from __future__ import annotations

import pytest
from browsers import CHROMIUM
from labs_executed import SECONDS, executed

from labsupport.labs.learner import write_copies
from labsupport.labs.lint import lint
from labsupport.labs.notebook import find_labs, read
from labsupport.labs.run import run_labs

LABS = find_labs()
each_lab = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)


def printed(outcome):
    cells = read(outcome.executed).code
    return "".join(out.get("text", "") for cell in cells for out in cell.node.outputs if out.output_type == "stream")


@each_lab
def test_a_lab_keeps_the_house_rules(lab):
    assert "\n".join(str(found) for found in lint([lab])) == ""


@pytest.mark.notebook
@pytest.mark.real_model
@each_lab
def test_a_lab_runs_from_top_to_bottom_and_its_solutions_pass(lab, tmp_path_factory):
    outcome = executed(lab, tmp_path_factory)
    assert outcome.status == "passed", outcome.problem
    text = printed(outcome)
    assert text.count(": passed.") == len(read(lab).tagged("check"))
    assert "not yet attempted" not in text


@pytest.mark.notebook
@pytest.mark.real_model
@pytest.mark.skipif(CHROMIUM is not None, reason="test_browser_labs.py runs the learner copies in JupyterLab")
@each_lab
def test_the_learner_copy_runs_to_the_end_with_all_stubs_untouched(lab, tmp_path):
    (copied,) = write_copies([lab], tmp_path / "mine")
    (outcome,) = run_labs([copied.path], build=tmp_path, jobs=1, timeout=8 * SECONDS)
    assert outcome.status == "passed", outcome.problem
    text = printed(outcome)
    assert text.count(": not yet attempted.") == len(read(lab).tagged("check"))
    assert ": passed." not in text
