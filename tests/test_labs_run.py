"""Headless runs: broken notebooks end as they should, in time, and say which cell it was."""

from __future__ import annotations

import asyncio
from queue import Empty

import pytest
from labs_notebooks import PARAMETERS, write_notebook

from labsupport.errors import NotebookError, ParameterError
from labsupport.labs.notebook import read
from labsupport.labs.run import check_parameters, parse_value, run_labs
from labsupport.labs.waiting import sliced, time_left

PICTURE = (
    "import base64\n"
    "from IPython.display import display\n"
    "dot = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='\n"
)
BARE = PICTURE + "display({'image/png': dot}, raw=True)"
TOLD = PICTURE + "display({'image/png': dot}, raw=True, metadata={'image/png': {'alt': 'one dot'}})"
OUTPUT_CONTEXT = "with out:\n    out.clear_output(wait=True)\n    print('x')\nout"  # 1 in 14 hangs without our engine


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """One run of all kinds of trouble, two at a time."""
    folder = tmp_path_factory.mktemp("labs")
    labs = [
        write_notebook(folder / "01_good.ipynb", PARAMETERS, "print(f'seed {SEED}, {NAME}')", TOLD, metadata={}),
        write_notebook(folder / "02_failing.ipynb", PARAMETERS, "numerator = 1", "numerator / 0", "print('after')"),
        write_notebook(folder / "03_out_of_order.ipynb", PARAMETERS, "print(later)", "later = 1"),
        write_notebook(folder / "04_no_alt_text.ipynb", PARAMETERS, BARE),
        write_notebook(folder / "05_crash.ipynb", PARAMETERS, "import os\nos._exit(3)"),
        write_notebook(
            folder / "06_hanging_widget.ipynb",
            PARAMETERS,
            "import ipywidgets\nout = ipywidgets.Output()",
            *[OUTPUT_CONTEXT] * 60,
        ),
        write_notebook(folder / "07_threads.ipynb", PARAMETERS, "import os\nprint(os.environ['OMP_NUM_THREADS'])"),
        write_notebook(folder / "08_endless.ipynb", PARAMETERS, "import time", "while True:\n    time.sleep(0.1)"),
    ]
    done = run_labs(labs, build=folder / "build", jobs=2, parameters={"SEED": 7}, timeout=12)
    return {outcome.lab: outcome for outcome in done}


def printed(outcome):
    cells = read(outcome.executed).code
    return "".join(out.get("text", "") for cell in cells for out in cell.node.outputs if out.output_type == "stream")


def test_a_good_lab_passes_with_the_parameter_that_was_given(outcomes):
    good = outcomes["01_good"]
    assert (good.status, good.problem) == ("passed", "")
    assert "seed 7, a" in printed(good)
    assert 0 < good.seconds < 60


def test_a_failing_lab_shows_its_cell_and_traceback_and_stops_there(outcomes):
    failing = outcomes["02_failing"]
    assert failing.status == "failed"
    assert "numerator / 0" in failing.problem
    assert "ZeroDivisionError" in failing.problem
    assert "after" not in printed(failing)


def test_a_lab_that_ran_only_out_of_order_fails_in_a_fresh_kernel(outcomes):
    assert outcomes["03_out_of_order"].status == "failed"
    assert "NameError" in outcomes["03_out_of_order"].problem


def test_a_picture_without_alt_text_is_found(outcomes):
    assert outcomes["04_no_alt_text"].status == "no alt text"
    assert "image/png has no alt text" in outcomes["04_no_alt_text"].problem


def test_a_kernel_that_dies_is_said_so(outcomes):
    assert outcomes["05_crash"].status == "failed"
    assert "os._exit(3)" in outcomes["05_crash"].problem
    assert "ended the kernel" in outcomes["05_crash"].problem


def test_output_widgets_do_not_hang_the_run(outcomes):
    """Sixty such cells: with papermill's own engine, one run in a hundred gets through within the limit."""
    assert outcomes["06_hanging_widget"].status == "passed"


def test_labs_that_run_side_by_side_share_the_cores(outcomes):
    import os

    assert printed(outcomes["07_threads"]).strip() == str(max(1, os.cpu_count() // 2))


def test_a_lab_without_end_is_stopped_at_its_limit_with_the_cell_named(outcomes):
    endless = outcomes["08_endless"]
    assert endless.status == "timed out"
    assert 12 <= endless.seconds < 30
    assert "while True" in endless.problem
    assert "the lab's 12 s" in endless.problem


def test_a_message_whose_wake_up_was_lost_is_found_at_the_next_look():
    looks = []

    async def channel(timeout):
        looks.append(timeout)
        if len(looks) == 1:
            await asyncio.sleep(timeout)  # the message is there, and nobody wakes this task
            raise Empty
        return "reply"

    assert asyncio.run(sliced(channel)(timeout=None)) == "reply"
    assert looks == [0.2, 0.2]


def test_the_sliced_wait_ends_with_its_time():
    async def silent(timeout):
        await asyncio.sleep(timeout)
        raise Empty

    async def wait():
        await asyncio.wait_for(sliced(silent)(timeout=0.5), timeout=5)

    with pytest.raises(Empty):
        asyncio.run(wait())


def test_a_cell_gets_what_the_lab_has_left_and_never_no_limit():
    assert 99 < time_left(100, None)(None) <= 100
    assert time_left(100, 5)(None) == 5
    assert time_left(-1, None)(None) == 0.1  # nbclient reads 0 as no limit


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"SEDE": 1}, "no parameter 'SEDE'"),
        ({"SEED": 1.5}, "SEED = 1.5 is float"),
        ({"SEED": True}, "SEED = True is bool"),
        ({"NAME": 3}, "NAME = 3 is int"),
    ],
)
def test_a_parameter_that_the_lab_cannot_take_is_refused(tmp_path, given, message):
    lab = read(write_notebook(tmp_path / "01_a.ipynb", PARAMETERS))
    with pytest.raises(ParameterError, match=message):
        check_parameters(lab, given)


def test_an_unknown_parameter_names_the_known_ones_before_any_kernel_starts(tmp_path):
    lab = write_notebook(tmp_path / "01_a.ipynb", PARAMETERS)
    with pytest.raises(ParameterError) as caught:
        list(run_labs([lab], build=tmp_path / "build", parameters={"SEDE": 1}))
    assert "SEED, RATE, NAME" in str(caught.value)
    assert not (tmp_path / "build").exists()


def test_a_whole_number_is_good_enough_for_a_float(tmp_path):
    check_parameters(read(write_notebook(tmp_path / "01_a.ipynb", PARAMETERS)), {"RATE": 2})


@pytest.mark.parametrize(("jobs", "timeout"), [(0, 10), (2, 0)])
def test_jobs_and_timeout_must_be_positive(tmp_path, jobs, timeout):
    with pytest.raises(ParameterError, match="jobs="):
        list(run_labs([], build=tmp_path, jobs=jobs, timeout=timeout))


def test_a_file_that_is_no_notebook_stops_the_run_before_it_begins(tmp_path):
    bad = tmp_path / "01_bad.ipynb"
    bad.write_text("no json")
    with pytest.raises(NotebookError, match="is not a notebook"):
        list(run_labs([bad], build=tmp_path / "build"))


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("-0.5", -0.5), ("True", True), ("false", False), ("gpu", "gpu"), ("'3'", "3"), ("a b", "a b")],
)
def test_values_are_read_as_a_person_means_them(text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
