"""``labs doctor --classroom``: what a class on one server needs, from measured figures, against the machine."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

from labsupport.cli import labs
from labsupport.doctor.classroom import (
    SYSTEM_BYTES,
    Figures,
    Need,
    Room,
    figures_of,
    formula,
    judge_room,
    largest_class,
    need,
    read_figures,
)
from labsupport.doctor.classroom_measure import _run, _server, family_pages, keep, pages
from labsupport.doctor.examine import this_room
from labsupport.errors import NotebookError, ParameterError
from labsupport.workspace import data_folder

GB = 1_000_000_000
FIGURES = Figures(
    where="a test",
    when="2026-01-01",
    server=GB // 10,
    peaks={"00": GB // 2, "05": GB},
    left=GB // 4,
    shared=GB,
    model=GB,
    written=2 * GB,
)
PLENTY = Room(memory=500 * GB, disk=500 * GB, ports=28_232, cores=64)
linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads /proc")


def states(learners: int, room: Room) -> dict[str, str]:
    return {row.name: row.state for row in judge_room(need(learners, FIGURES), FIGURES, room)}


def test_the_sum_is_the_formula_with_the_heaviest_lab():
    assert FIGURES.heaviest == "05"
    each = GB // 10 + GB + GB // 4
    assert need(20, FIGURES) == Need(20, memory=20 * each + GB + SYSTEM_BYTES, disk=20 * 3 * GB, ports=20 * 14)


def test_shared_pages_and_the_system_are_counted_once():
    one, two, three = (need(learners, FIGURES).memory for learners in (1, 2, 3))
    assert two - one == three - two == GB // 10 + GB + GB // 4


def test_a_large_server_holds_the_class_and_a_small_one_says_for_how_many_it_would_do():
    assert set(states(20, PLENTY).values()) == {"ok"}
    small = replace(PLENTY, memory=10 * GB)
    memory = judge_room(need(20, FIGURES), FIGURES, small)[0]
    assert (memory.name, memory.state) == ("Memory", "bad")
    fit = largest_class(FIGURES, small.memory)
    assert memory.mend.startswith(f"{fit} learners fit here")
    assert need(fit, FIGURES).memory <= small.memory < need(fit + 1, FIGURES).memory
    assert largest_class(FIGURES, GB) == 0


@pytest.mark.parametrize(
    ("room", "name", "state"),
    [
        ({"disk": 59 * GB}, "Disk", "bad"),
        ({"ports": 279}, "Ports", "bad"),
        ({"cores": 4}, "Cores", "note"),
    ],
)
def test_what_is_short_is_named_and_has_a_mend(room, name, state):
    rows = judge_room(need(20, FIGURES), FIGURES, replace(PLENTY, **room))
    short = [row for row in rows if row.state != "ok"]
    assert [(row.name, row.state) for row in short] == [(name, state)]
    assert short[0].mend


def test_more_learners_than_jupyterlab_tries_ports_need_a_second_first_port():
    assert states(50, PLENTY)["First port"] == "ok"
    rows = {row.name: row for row in judge_room(need(51, FIGURES), FIGURES, PLENTY)}
    assert rows["First port"].state == "note"
    assert "--port 8938" in rows["First port"].mend


def test_a_class_without_learners_is_refused():
    with pytest.raises(ParameterError, match="0 learners"):
        need(0, FIGURES)


def test_the_formula_says_where_and_when_its_terms_were_measured():
    told = formula(need(20, FIGURES), FIGURES)
    assert "20 x (0.10 GB JupyterLab + 1.00 GB kernel at the peak of lab 05 + 0.25 GB kernel left open)" in told
    assert "Measured on a test, 2026-01-01, in labs 00, 05" in told
    assert "no class was run" in told


def test_own_figures_come_before_the_recorded_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    recorded = read_figures()
    assert recorded == figures_of(data_folder() / "classroom.json")
    assert keep(FIGURES) == tmp_path / "runs" / "classroom.json"
    assert read_figures() == FIGURES


@pytest.mark.parametrize("text", ["{", "[]", '{"where": "here"}'])
def test_a_file_without_figures_is_named(tmp_path, text):
    path = tmp_path / "classroom.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match="holds no figures"):
        figures_of(path)


def test_the_recorded_figures_are_of_the_size_of_a_kernel_with_a_model():
    recorded = figures_of(data_folder() / "classroom.json")
    assert all(0.1 * GB < peak < 10 * GB for peak in recorded.peaks.values())
    assert recorded.left <= max(recorded.peaks.values())


def typed(*words: str):
    return CliRunner().invoke(labs, ["doctor", *words])


def test_the_verb_judges_this_machine_and_says_so_by_its_exit_code(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    keep(FIGURES)
    fit = largest_class(FIGURES, this_room().memory)
    assert typed("--classroom", str(fit + 1)).exit_code == 1
    done = typed("--classroom", "--json")
    told = json.loads(done.output)
    assert told["need"]["learners"] == 20
    assert told["figures"]["peaks"] == {"00": GB // 2, "05": GB}
    assert [row["name"] for row in told["rows"]] == ["Memory", "Disk", "Ports", "First port", "Cores"]


def test_measuring_is_for_a_class():
    assert isinstance(typed("--measure").exception, ParameterError)


# The measurement itself


@linux
def test_own_pages_and_file_pages_are_told_apart(tmp_path):
    before, _ = pages(os.getpid())
    # Pages of its own from the system: a bytearray could be put where the process already holds memory.
    with mmap.mmap(-1, 60_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block[:] = b"x" * 60_000_000
        own, files = pages(os.getpid())
        assert own - before > 50_000_000
        (tmp_path / "file").write_bytes(block)
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[::4096]) >= 0  # touch each page
        _, with_mapped = pages(os.getpid())
    assert with_mapped - files > 50_000_000


@linux
def test_a_process_that_is_gone_takes_nothing():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert pages(gone.pid) == (0, 0)


@linux
def test_what_a_kernel_starts_is_counted_with_it():
    code = "block = bytearray(b'x' * 60_000_000); print(flush=True); input()"
    before, _ = family_pages(os.getpid())
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        during, _ = family_pages(os.getpid())
        child.communicate(b"\n")
    assert during - before > 50_000_000
    assert family_pages(child.pid) == (0, 0)


def notebook(path: Path, *cells: str) -> Path:
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    return path


@linux
def test_the_peak_of_a_kernel_is_seen_and_what_it_keeps(tmp_path):
    grow = "import time\nblock = bytearray(b'x') * 200_000_000\ntime.sleep(0.5)"
    lab = notebook(tmp_path / "00_a.ipynb", grow, "del block")
    peak, last, files = _run(lab, dict(os.environ))
    assert 200_000_000 < peak < 500_000_000
    assert last < peak - 150_000_000
    assert files > 0


@linux
def test_a_lab_that_fails_is_named(tmp_path):
    with pytest.raises(NotebookError, match="00_a did not run") as caught:
        _run(notebook(tmp_path / "00_a.ipynb", "1 / 0"), dict(os.environ))
    assert "ZeroDivisionError" in caught.value.why


@linux
def test_a_jupyterlab_is_started_measured_and_stopped():
    own, files = _server()
    assert 20_000_000 < own < 1_000_000_000
    assert files > 0
