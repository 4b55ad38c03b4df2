"""What ``labs inspect`` shows: a tree of both kinds of folder, and every way in which two of them differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from labsupport.checkpoint.commands import inspect as inspect_command
from labsupport.checkpoint.convert import Options, convert
from labsupport.checkpoint.inspect import diff, entries, inspect, spans
from labsupport.checkpoint.inspect_text import amount, tree
from labsupport.errors import CheckpointError
from labsupport.models.tiny import make_tiny


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return convert(make_tiny("llama", tmp_path / "model"), Options(tp_size=2), output=tmp_path / "tp2").folder


def change(folder: Path, rank: int, name: str, by: float) -> None:
    file = folder / f"rank{rank}.safetensors"
    tensors = load_file(file)
    tensors[name][0] += by
    save_file(tensors, file)


def test_the_tree_gathers_layers_and_ranks_that_are_alike(checkpoint: Path) -> None:
    lines = list(tree(inspect(checkpoint)))
    assert "LlamaForCausalLM, float32, tp 2, pp 1" in lines[0]
    assert lines[2].startswith("└── rank0.safetensors, rank1.safetensors")
    assert len(lines) == 3 + 10
    fc = next(line for line in lines if "mlp.fc" in line)
    assert "transformer.layers.*.mlp.fc.weight" in fc
    assert "[64, 64]" in fc
    assert "layers 0-3" in fc


def test_the_bytes_of_a_tree_are_the_bytes_on_disk(checkpoint: Path) -> None:
    contents = inspect(checkpoint)
    listed = sum(entry.bytes for tensors in contents.files.values() for entry in entries(tensors))
    stored = sum(t.numel() * t.element_size() for rank in (0, 1)
                 for t in load_file(checkpoint / f"rank{rank}.safetensors").values())  # fmt: skip
    assert listed == contents.bytes == stored


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_hugging_face_folder_is_shown_too(family: str, tmp_path: Path) -> None:
    lines = "\n".join(tree(inspect(make_tiny(family, tmp_path))))
    assert "layers 0-3" in lines
    assert "model.safetensors" in lines


def test_equal_checkpoints_do_not_differ(checkpoint: Path, tmp_path: Path) -> None:
    again = convert(tmp_path / "model", Options(tp_size=2), output=tmp_path / "again").folder
    assert diff(checkpoint, again) == []
    done = CliRunner().invoke(inspect_command, [str(checkpoint), "--diff", str(again)])
    assert (done.exit_code, done.output) == (0, "no difference\n")


def test_one_changed_number_is_found_with_its_size(checkpoint: Path, tmp_path: Path) -> None:
    again = convert(tmp_path / "model", Options(tp_size=2), output=tmp_path / "again").folder
    name = "transformer.layers.2.mlp.proj.weight"
    change(again, 1, name, 0.25)
    (found,) = diff(checkpoint, again)
    assert (found.where, found.name) == ("rank1.safetensors", name)
    assert found.largest == pytest.approx(0.25)
    done = CliRunner().invoke(inspect_command, [str(checkpoint), "--diff", str(again)])
    assert done.exit_code == 1
    assert "largest difference 0.25" in done.output


def test_a_nan_on_one_side_is_an_infinite_difference(checkpoint: Path, tmp_path: Path) -> None:
    again = convert(tmp_path / "model", Options(tp_size=2), output=tmp_path / "again").folder
    change(again, 0, "transformer.ln_f.weight", float("nan"))
    (found,) = diff(checkpoint, again)
    assert found.largest == float("inf")


def test_other_ranks_types_and_keys_are_named(checkpoint: Path, tmp_path: Path) -> None:
    one = convert(tmp_path / "model", Options("bfloat16"), output=tmp_path / "one").folder
    found = {(each.where, each.name): each for each in diff(checkpoint, one)}
    assert found["config.json", "mapping.tp_size"].ours == "2"
    assert found["config.json", "dtype"].theirs == "'bfloat16'"
    assert found["rank1.safetensors", "the whole file"].theirs is None
    assert found["rank0.safetensors", "lm_head.weight"].theirs == "BF16 [260, 64]"
    norm = found["rank0.safetensors", "transformer.ln_f.weight"]
    assert norm.largest is not None
    assert 0 < norm.largest < 0.02


def test_json_is_for_programs(checkpoint: Path) -> None:
    done = CliRunner().invoke(inspect_command, [str(checkpoint), "--json"])
    shown = json.loads(done.output)
    assert shown["files"]["rank0.safetensors"]["lm_head.weight"]["shape"] == [130, 64]


def test_the_schema_of_2023_is_printed_in_todays(tmp_path: Path) -> None:
    old = {"architecture": "OPTForCausalLM", "quantization": {"use_weight_only": True}, "use_prompt_tuning": False}
    (tmp_path / "config.json").write_text(json.dumps(old))
    done = CliRunner().invoke(inspect_command, [str(tmp_path), "--translate"])
    assert json.loads(done.stdout)["quantization"] == {"quant_algo": "W8A16", "kv_cache_quant_algo": None}
    assert "use_prompt_tuning -> trtllm-build" in done.stderr


def test_a_missing_rank_is_named(checkpoint: Path) -> None:
    (checkpoint / "rank1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"rank1\.safetensors is missing"):
        inspect(checkpoint)


def test_runs_of_numbers_and_amounts_are_short() -> None:
    assert spans((0, 1, 2, 5, 7, 8)) == "0-2, 5, 7-8"
    assert spans(()) == ""
    assert [amount(count) for count in (999, 1000, 538_090_408, 8_000_000_000)] == [
        "999 B",
        "1.0 kB",
        "538.1 MB",
        "8.0 GB",
    ]
