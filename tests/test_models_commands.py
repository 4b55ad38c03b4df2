"""``labs models`` and ``labs fetch`` as a person sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from labsupport.cli import labs
from labsupport.models import CATALOGUE, DEFAULT_MODEL
from labsupport.models.commands import fetch
from labsupport.models.tiny import make_tiny


@pytest.fixture(autouse=True)
def empty_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "work"))


def test_the_list_says_state_size_and_license() -> None:
    shown = CliRunner().invoke(labs, ["models"]).output.splitlines()
    assert shown[0].split() == ["model", "state", "download", "on", "disk", "license"]
    assert shown[1].split() == ["smollm2-135m-instruct", "not", "fetched", "93", "MB", "578", "MB", "Apache-2.0"]
    assert "(to be accepted)" in next(line for line in shown if line.startswith("gemma-3-270m"))


def test_the_list_as_json_holds_the_same() -> None:
    listed = json.loads(CliRunner().invoke(labs, ["models", "--json"]).output)
    assert [entry["name"] for entry in listed] == list(CATALOGUE)
    assert not any(entry["present"] for entry in listed)
    assert all(entry["download_bytes"] > 90_000_000 for entry in listed)


def test_fetch_prints_the_folder(tmp_path: Path) -> None:
    folder = make_tiny("opt", tmp_path / "opt", num_hidden_layers=1)
    assert CliRunner().invoke(labs, ["fetch", str(folder)]).output == f"{folder}\n"


def test_fetch_without_a_name_means_the_model_of_the_labs() -> None:
    assert "[NAME]" in CliRunner().invoke(labs, ["fetch", "--help"]).output
    assert next(option.default for option in fetch.params if option.name == "name") == DEFAULT_MODEL
