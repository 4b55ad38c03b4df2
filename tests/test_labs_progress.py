"""Progress: kept in the learner's folder, whole after an interruption, right when several kernels write at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from labsupport.labs.progress import FILE, Progress, forget, load, record

COUNT_UP = """
import sys
from dataclasses import replace
from pathlib import Path
from labsupport.labs.progress import record
for _ in range(25):
    record(Path(sys.argv[1]), "02.1", lambda of: replace(of, wrong=of.wrong + 1))
"""


def test_what_is_recorded_is_there_again(tmp_path):
    record(tmp_path, "02.1", lambda of: replace(of, wrong=of.wrong + 1))
    record(tmp_path, "02.2", lambda of: replace(of, passed="2026-01-31T12:00:00"))
    assert load(tmp_path) == {"02.1": Progress(wrong=1), "02.2": Progress(passed="2026-01-31T12:00:00")}


def test_two_kernels_at_once_lose_nothing(tmp_path):
    kernels = [subprocess.Popen([sys.executable, "-c", COUNT_UP, tmp_path]) for _ in range(2)]
    assert [kernel.wait(timeout=60) for kernel in kernels] == [0, 0]
    assert load(tmp_path)["02.1"].wrong == 50


def test_one_lab_is_forgotten_and_the_others_are_not(tmp_path):
    for id in ("01.1", "02.1", "02.2"):
        record(tmp_path, id, lambda of: replace(of, wrong=1))
    forget(tmp_path, "02")
    assert load(tmp_path).keys() == {"01.1"}


@pytest.mark.parametrize("text", ["half a fi", "[1, 2]", '{"02.1": {"unknown": 1}}'])
def test_a_damaged_file_is_set_aside_and_work_goes_on(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert load(tmp_path) == {}
    record(tmp_path, "02.1", lambda of: replace(of, wrong=1))
    assert load(tmp_path) == {"02.1": Progress(wrong=1)}
    assert (tmp_path / f"{FILE}.damaged").read_text() == text


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path):
    record(tmp_path, "02.1", lambda of: replace(of, wrong=1))
    with pytest.raises(ZeroDivisionError):
        record(tmp_path, "02.1", lambda of: replace(of, wrong=1 // 0))
    assert json.loads((tmp_path / FILE).read_text())["02.1"]["wrong"] == 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(f".{FILE}.")]


@pytest.mark.parametrize(
    ("state", "mark"),
    [(Progress(), "□"), (Progress(hints=1), "◧"), (Progress(wrong=1), "◧"), (Progress(passed="now", wrong=2), "■")],
)
def test_each_state_has_its_sign(state, mark):
    assert state.mark == mark
