"""A folder that somebody brings is used where it is whole, and refused with the way out where it is not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from labsupport.errors import ModelError, ParameterError
from labsupport.models import fetch, load
from labsupport.models.tiny import make_tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("whole") / "llama", num_hidden_layers=1)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "llama"))


def test_a_whole_folder_is_used_where_it_lies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert fetch("./llama") == fetch("llama") == folder


def test_shards_are_found_by_their_index(folder: Path) -> None:
    model, _ = load(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    again, _ = load(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    sorted(folder.glob("*.safetensors"))[1].unlink()
    with pytest.raises(ModelError, match="lacks 1 of"):
        fetch(str(folder))


def to_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def cut_off(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1)


DAMAGES: list[tuple[Callable[[Path], object], str, str]] = [
    (to_pickle, "only as pickle", "save_pretrained"),
    (without_tokenizer, "no tokenizer", r"tokenizer\.save_pretrained"),
    (cut_off, "promises", "again"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no weights", "save_pretrained"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"not"), "not a safetensors file", "again"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>" * 40), "not a safetensors file", "again"),
    (lambda folder: (folder / "config.json").unlink(), r"has no config\.json", "folder"),
    (lambda folder: (folder / "config.json").write_text("{"), "not JSON", "again"),
    (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object", "again"),
    (lambda folder: (folder / "config.json").write_text("{}"), "no model_type", "save_pretrained"),
    (shutil.rmtree, "no folder", "labs models"),
]


@pytest.mark.parametrize(("damage", "what", "fix"), DAMAGES)
def test_each_damage_has_its_message(damage: Callable[[Path], object], what: str, fix: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=what) as error:
        fetch(str(folder))
    assert fix.replace("\\", "") in error.value.fix


def test_missing_weights_are_an_error_not_random_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="cannot load") as error:
        load(folder)
    assert "mlp.up_proj" in error.value.why


def test_a_family_that_brings_its_own_code_is_not_run(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("import pathlib; pathlib.Path(__file__ + '.ran').touch()")
    with pytest.raises(ModelError, match="cannot load"):
        load(folder)
    assert not list(folder.glob("*.ran"))


def test_a_dtype_is_chosen_by_name(folder: Path) -> None:
    model, _ = load(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    with pytest.raises(ParameterError, match="int8"):
        load(folder, dtype="int8")


def test_loading_is_quiet(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder)
    assert capfd.readouterr() == ("", "")
