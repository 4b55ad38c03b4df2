"""What cannot be built or loaded, each with its message; and nothing half-written is left."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from checkpoints_made import converted, spoiled, tiny
from click.testing import CliRunner
from engines_made import built

from labsupport.cli import labs
from labsupport.engine.build import build
from labsupport.engine.build_config import build_config
from labsupport.engine.loaded import Engine
from labsupport.errors import EngineError, LabError, ParameterError


@pytest.fixture
def checkpoint() -> Path:
    return converted(tiny("llama"), dtype="float32")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_seq_len": 4096}, "max_seq_len 4096 is beyond the 512 positions"),
        ({"max_num_tokens": 4, "max_batch_size": 8}, "max_num_tokens 4 is below max_batch_size"),
        ({"tokens_per_block": 24}, "tokens_per_block 24 is not a power of two"),
        ({"kv_cache_type": "continuous"}, "kv_cache_type continuous"),
    ],
)
def test_limits_that_contradict(checkpoint: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        build(checkpoint, build_config(**options), output=tmp_path / "engine")
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_longer_than_the_sequence_is_clipped_and_said(checkpoint: Path) -> None:
    from labsupport.checkpoint.config import read_config
    from labsupport.engine.build_config import resolve

    options, notes = resolve(build_config(max_input_len=300, max_seq_len=200), read_config(checkpoint))
    assert options.max_input_len == 200
    assert "clipped" in notes[0]


@pytest.mark.parametrize("options", [{"max_batch_size": 0}, {"max_output_len": 5}, {"max_beam_width": -1}])
def test_options_that_are_none(options: dict[str, int]) -> None:
    with pytest.raises(ParameterError):
        build_config(**options)


def test_a_checkpoint_that_does_not_verify(checkpoint: Path, tmp_path: Path) -> None:
    bad = spoiled(checkpoint, tmp_path / "bad", tensors=lambda held: held.pop("transformer.layers.1.mlp.fc.weight"))
    with pytest.raises(EngineError, match=r"does not verify: .*mlp\.fc"):
        build(bad, output=tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


def test_no_compiler(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder

    def none(*_: object) -> str:
        raise RuntimeError("nothing found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(EngineError, match="no C\\+\\+ compiler") as caught:
        build(checkpoint, output=tmp_path / "engine")
    assert "apt-get install g++" in caught.value.fix


def test_no_space(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))  # type: ignore[attr-defined]
    with pytest.raises(LabError, match=r"0\.00 GB are free"):
        build(checkpoint, output=tmp_path / "engine")
    assert [left for left in tmp_path.iterdir() if left.suffix != ".lock"] == []


def test_a_folder_of_something_else_is_not_replaced(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ParameterError, match="labs build did not write it"):
        build(checkpoint, output=tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_no_such_device(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="device 'tpu' is not here"):
        build(checkpoint, output=tmp_path / "engine", device="tpu")


def changed(folder: Path, target: Path, change: Any) -> Path:
    """A copy of an engine whose ``engine.json`` was changed."""
    shutil.copytree(folder, target)
    with zipfile.ZipFile(folder / "rank0.engine") as old, zipfile.ZipFile(target / "rank0.engine", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "engine.json":
                raw = json.loads(content)
                change(raw)
                content = json.dumps(raw).encode()
            new.writestr(name, content)
    return target


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw["bound_to"].update(torch="1.0"), "built with torch 1.0, and this is torch"),
        (lambda raw: raw["bound_to"].update(machine="z80"), "built with machine z80"),
        (lambda raw: raw["bound_to"]["instructions"].append("avx1024"), "a processor with avx1024"),
        (lambda raw: raw.update(format=99), "another format"),
        (
            lambda raw: raw["bound_to"].update(device="cuda", gpu="NVIDIA H200"),
            "was built for NVIDIA H200, and torch sees no GPU",
        ),
    ],
)
def test_an_engine_of_another_machine(checkpoint: Path, tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        Engine(changed(built(checkpoint), tmp_path / "engine", change))
    assert "labs build" in caught.value.fix


def test_an_engine_cut_short(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built(checkpoint), tmp_path / "engine")
    whole = (folder / "rank0.engine").read_bytes()
    (folder / "rank0.engine").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineError, match=r"rank0\.engine cannot be read"):
        Engine(folder)


def test_weights_that_are_missing(checkpoint: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(built(checkpoint), tmp_path / "engine")
    (folder / "rank0_managed_weights.safetensors").unlink()
    with pytest.raises(EngineError, match="managed_weights"):
        Engine(folder)


def test_a_folder_that_is_no_engine(checkpoint: Path) -> None:
    with pytest.raises(EngineError, match="holds no engine"):
        Engine(checkpoint)


def test_all_logits_of_an_engine_that_was_not_built_for_them(checkpoint: Path) -> None:
    engine = Engine(built(checkpoint))
    with pytest.raises(EngineError, match="gather_context_logits") as caught:
        engine.context(engine.new_cache(3), [1, 2, 3], 0, [1], every=True)
    assert caught.value.fix == "labs build --gather_context_logits"


def test_the_command_prints_the_line_of_trtllm_build(checkpoint: Path) -> None:
    done = CliRunner().invoke(labs, ["build", str(checkpoint), "--backend", "tensorrt_llm", "--max_batch_size", "4"])
    assert done.exit_code == 0
    assert done.output.startswith("trtllm-build --checkpoint_dir ")
    assert "--max_batch_size 4" in done.output
    assert "not run here" in done.output


def test_a_dry_run_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    asked = ["build", str(checkpoint), "--dry-run", "--output", str(tmp_path / "engine"), "--max_beam_width", "2"]
    done = CliRunner().invoke(labs, asked)
    assert done.exit_code == 0
    assert '"max_beam_width": 2' in done.output
    assert not (tmp_path / "engine").exists()
