"""The exact call of TensorRT-LLM's own scripts, and the skew between scripts and library. None is run: no container."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from labsupport.checkpoint import real_stack
from labsupport.checkpoint.commands import convert as convert_command
from labsupport.checkpoint.config import CheckpointConfig, Mapping
from labsupport.checkpoint.config_families import FAMILIES
from labsupport.checkpoint.config_hf import config_from_hf
from labsupport.checkpoint.real_stack import require_same_version, scripts_version, stack_call
from labsupport.compatibility import load_compatibility
from labsupport.errors import CheckpointError, ParameterError
from labsupport.models.tiny import make_tiny

SOURCE, OUTPUT = Path("model"), Path("out")


def config(family: str, folder: Path, tp_size: int = 1, pp_size: int = 1, **options: int) -> CheckpointConfig:
    hf = json.loads((make_tiny(family, folder) / "config.json").read_text())
    return config_from_hf(hf, dtype="bfloat16", mapping=Mapping.of(tp_size, pp_size), **options)  # type: ignore[arg-type]


def clone(folder: Path, version: str) -> Path:
    (folder / "tensorrt_llm").mkdir(parents=True)
    (folder / "tensorrt_llm" / "version.py").write_text(f'__version__ = "{version}"\n')
    return folder


def test_llama_in_the_pinned_version(tmp_path: Path) -> None:
    made = config("llama", tmp_path, 2, 2, use_parallel_embedding=True, embedding_sharding_dim=1)
    call = stack_call(made, SOURCE, OUTPUT, tensorrt_llm="0.20.0")
    assert call.line == (
        "python3 TensorRT-LLM/examples/models/core/llama/convert_checkpoint.py --model_dir model --dtype bfloat16 "
        "--tp_size 2 --pp_size 2 --use_parallel_embedding --embedding_sharding_dim 1 --output_dir out"
    )
    assert "--branch v0.20.0" in call.clone


def test_gemma_spells_its_options_differently(tmp_path: Path) -> None:
    call = stack_call(config("gemma2", tmp_path, 2), SOURCE, OUTPUT, tensorrt_llm="0.20.0")
    assert call.line == (
        "python3 TensorRT-LLM/examples/models/core/gemma/convert_checkpoint.py --model-dir model --dtype bfloat16 "
        "--ckpt-type hf --world-size 2 --output-model-dir out"
    )


@pytest.mark.parametrize(
    ("version", "script"),
    [("0.18.2", "examples/opt/convert_checkpoint.py"), ("0.20.0", "examples/models/contrib/opt/convert_checkpoint.py")],
)
def test_scripts_moved_between_versions(version: str, script: str, tmp_path: Path) -> None:
    assert stack_call(config("opt", tmp_path), SOURCE, OUTPUT, tensorrt_llm=version).script == script


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_every_family_has_a_call_in_every_version_that_knows_it(family: str, tmp_path: Path) -> None:
    made, table = config(family, tmp_path), load_compatibility()
    versions = {container.tensorrt_llm for container in table.containers if container.engines}
    known = [script for script in table.convert_scripts if made.architecture in script.architectures]
    assert known
    for version in versions:
        if any(script.serves(version) for script in known):
            call = stack_call(made, SOURCE, OUTPUT, tensorrt_llm=version)
            assert call.argv[1].endswith("convert_checkpoint.py")
            assert {"model", "out", "bfloat16"} <= set(call.argv)


def test_a_version_without_the_family_says_so(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"0\.18\.2"):
        stack_call(config("qwen3", tmp_path), SOURCE, OUTPUT, tensorrt_llm="0.18.2")


def test_elsewhere_the_pinned_version_is_taken(tmp_path: Path) -> None:
    if real_stack.installed_version() is not None:
        pytest.skip("TensorRT-LLM is installed here")
    call = stack_call(config("llama", tmp_path), SOURCE, OUTPUT)
    assert call.tensorrt_llm == load_compatibility().container().tensorrt_llm


def test_the_command_prints_the_call_and_says_that_it_was_not_run(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "model")
    arguments = [str(folder), "--tp", "2", "--backend", "tensorrt_llm", "--tensorrt-llm", "0.20.0"]
    done = CliRunner().invoke(convert_command, [*arguments, "--output", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "convert_checkpoint.py" in done.stdout
    assert "not run here" in done.stderr
    assert not (tmp_path / "out").exists()


def test_scripts_of_another_version_are_refused_and_explained(tmp_path: Path) -> None:
    scripts = clone(tmp_path, "1.0.0rc0")
    assert scripts_version(scripts) == "1.0.0rc0"
    with pytest.raises(CheckpointError, match=r"version skew.*1\.0\.0rc0.*0\.20\.0") as caught:
        require_same_version(scripts, "0.20.0")
    assert "quant_config for mapping" in caught.value.why
    assert "likely" in caught.value.why
    assert "v0.20.0" in caught.value.fix


@pytest.mark.parametrize(
    ("scripts", "library", "same"),
    [("0.20.0", "0.20.0", True), ("0.17.0", "0.17.0.post1", True), ("1.0.0rc4", "1.0.0", False),
     ("1.0.0rc4", "1.0.0rc4", True), ("0.21.0", "0.20.0", False)],
)  # fmt: skip
def test_a_release_is_not_its_candidates(scripts: str, library: str, same: bool, tmp_path: Path) -> None:
    folder = clone(tmp_path, scripts)
    if same:
        require_same_version(folder, library)
        return
    with pytest.raises(CheckpointError, match="version skew"):
        require_same_version(folder, library)


def test_a_folder_without_scripts_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a clone of the TensorRT-LLM repository"):
        require_same_version(tmp_path, "0.20.0")
