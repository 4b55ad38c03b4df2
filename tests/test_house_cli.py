"""The command and the package: instant to start, lazy, and every verb leads somewhere."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import labsupport
from labsupport.cli import VERBS, labs

LABS = Path(sys.executable).with_name("labs")
HEAVY = {"torch", "transformers", "matplotlib", "papermill", "numpy", "IPython", "nbconvert", "modelopt"}
IMPORT_LIMIT_S = 0.15


def loaded_by(program: str) -> set[str]:
    """The top-level packages that a fresh Python has loaded after ``program``."""
    tail = (
        "\nimport sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program + tail], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def seconds(program: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True)
    return time.perf_counter() - started


def test_import_is_instant() -> None:
    """The median of several fresh processes, less what Python itself takes to start, in alternation."""
    extra = [seconds("import labsupport") - seconds("pass") for _ in range(7)]
    assert statistics.median(extra) <= IMPORT_LIMIT_S


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import labsupport") & HEAVY == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    start = f"import sys; sys.argv = ['labs', *{words!r}]\n"
    program = start + "from labsupport.cli import main\ntry: main()\nexcept SystemExit: pass"
    loaded = loaded_by(program)
    assert "click" in loaded
    assert loaded & HEAVY == set()


def test_help_names_every_verb() -> None:
    done = subprocess.run([LABS, "--help"], capture_output=True, text=True, check=True)
    for verb, (_, text) in VERBS.items():
        assert f"  {verb} " in done.stdout
        assert text[:30] in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_command_with_help(verb: str) -> None:
    command = labs.get_command(click.Context(labs), verb)
    assert isinstance(command, click.Command)
    assert command.help
    assert command.name == verb


def test_an_unknown_verb_ends_with_a_usage_message() -> None:
    done = subprocess.run([LABS, "dance"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No such command 'dance'" in done.stderr
    assert "Traceback" not in done.stderr


def test_lazy_names_of_the_package() -> None:
    assert set(labsupport.__all__) == {"LabError", "check", "hint", "solution", "start"}
    assert callable(labsupport.start)
    assert callable(labsupport.check)
    with pytest.raises(AttributeError, match="no attribute 'stop'"):
        _ = labsupport.stop


def test_the_version_is_the_packages() -> None:
    done = subprocess.run([LABS, "--version"], capture_output=True, text=True, check=True)
    project = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{labsupport.__version__}"' in project
    assert labsupport.__version__ in done.stdout
