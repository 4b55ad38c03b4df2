"""The errors that a person meets: one tree, one block, and they survive a trip between processes."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from labsupport import errors
from labsupport.errors import LabError, LintError, ParameterError

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LabError)]


def build(kind: type[LabError]) -> LabError:
    return kind("no model 'llama'", why="the catalogue has no such name", fix="labs models")


def fail_in_a_worker(kind: type[LabError]) -> None:
    raise build(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_block_says_what_why_and_what_to_try(kind: type[LabError]) -> None:
    assert str(build(kind)) == "no model 'llama'\n  why: the catalogue has no such name\n  try: labs models"


@pytest.mark.parametrize("kind", KINDS)
def test_pickling_keeps_the_kind_and_all_three_parts(kind: type[LabError]) -> None:
    copy = pickle.loads(pickle.dumps(build(kind)))
    assert type(copy) is kind
    assert (copy.what, copy.why, copy.fix) == ("no model 'llama'", "the catalogue has no such name", "labs models")


def test_an_error_in_a_worker_process_reaches_the_caller_whole() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(LintError, match="no model 'llama'") as caught,
    ):
        pool.submit(fail_in_a_worker, LintError).result()
    assert caught.value.fix == "labs models"


def test_why_and_fix_cannot_be_left_out() -> None:
    with pytest.raises(TypeError):
        LabError("something broke")  # type: ignore[call-arg]


def test_a_bad_parameter_is_also_a_value_error() -> None:
    assert issubclass(ParameterError, ValueError)


def test_the_tree_in_the_module_text_is_the_tree() -> None:
    text = errors.__doc__ or ""
    assert len(KINDS) >= 10
    for kind in KINDS:
        assert kind.__name__ in text, f"{kind.__name__} is missing from the tree at the top of errors.py"


def test_the_command_prints_a_block_exits_1_and_shows_no_traceback() -> None:
    program = (
        "import click, labsupport.cli as cli\n"
        "from labsupport.errors import SpaceError\n"
        "@click.command()\n"
        "def boom(): raise SpaceError('disk full', why='it is small', fix='buy one')\n"
        "cli.labs.get_command = lambda ctx, name: boom\n"
        "import sys; sys.argv = ['labs', 'boom']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: disk full\n  why: it is small\n  try: buy one\n"
    assert done.stdout == ""
