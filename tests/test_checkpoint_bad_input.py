"""What goes wrong with real models: each case is a LabError that says what, why and what to do, and leaves nothing."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from labsupport.checkpoint.commands import convert as convert_command
from labsupport.checkpoint.convert import Options, convert
from labsupport.checkpoint.convert_plan import make_plan
from labsupport.checkpoint.convert_source import INDEX, FolderSource
from labsupport.checkpoint.convert_write import write_rank
from labsupport.errors import CheckpointError, LabError, ParameterError, SpaceError
from labsupport.models.tiny import make_tiny
from labsupport.workspace import atomic_folder, write_record

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_tiny("llama", tmp_path / "model")


def refused(
    model: Path, match: str, options: Options | None = None, kind: type[LabError] = CheckpointError
) -> LabError:
    """Convert, expect the error, and find nothing left behind; the error says why, and what to try."""
    before = set(model.parent.iterdir())
    with pytest.raises(kind, match=match) as caught:
        convert(model, options, output=model.parent / "out")
    assert set(model.parent.iterdir()) == before
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def edit_config(model: Path, **change: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def edit_tensors(model: Path, change: Callable[[Tensors], object]) -> None:
    path = model / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


def make_index(model: Path) -> None:
    """Two shards and their index, as large models come."""
    tensors = load_file(model / "model.safetensors")
    homes = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(homes.values()):
        save_file({name: tensors[name].clone() for name in tensors if homes[name] == file}, model / file)
    (model / "model.safetensors").unlink()
    (model / INDEX).write_text(json.dumps({"weight_map": homes}))


def test_a_missing_shard(model: Path) -> None:
    make_index(model)
    (model / "model-2.safetensors").unlink()
    refused(model, r"lacks 1 of the 2 files of its index: model-2\.safetensors")


def test_a_shard_of_another_model(model: Path) -> None:
    make_index(model)
    save_file({"other": torch.zeros(1)}, model / "model-2.safetensors")
    refused(model, "that its index promises")


def test_a_damaged_index(model: Path) -> None:
    make_index(model)
    (model / INDEX).write_text("{}")
    refused(model, "no weight_map")


@pytest.mark.parametrize("keep", [0, 4, 100, 5000, -1])
def test_a_truncated_file(model: Path, keep: int) -> None:
    path = model / "model.safetensors"
    os.truncate(path, keep if keep >= 0 else path.stat().st_size - 1)
    refused(model, r"model\.safetensors is (cut short|not a safetensors file)")


def test_a_file_that_is_something_else(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"<!DOCTYPE html>" * 100)
    refused(model, "is not a safetensors file")
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert "4 bytes, not 8" in refused(model, "is not a safetensors file").why


def test_a_missing_config(model: Path) -> None:
    (model / "config.json").unlink()
    refused(model, r"config\.json does not exist")


def test_a_config_that_is_cut_short(model: Path) -> None:
    (model / "config.json").write_text('{"architectures": [')
    refused(model, "is not JSON")


def test_a_config_that_lacks_a_size(model: Path) -> None:
    raw = json.loads((model / "config.json").read_text())
    del raw["intermediate_size"]
    (model / "config.json").write_text(json.dumps(raw))
    refused(model, "lacks 'intermediate_size'")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float64, torch.float8_e4m3fn])
def test_a_wrong_dtype(model: Path, dtype: torch.dtype) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit_tensors(model, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    refused(model, f"{name} is of type")


def test_a_value_that_float16_cannot_hold(model: Path) -> None:
    edit_tensors(model, lambda tensors: tensors["model.norm.weight"].fill_(70000.0))
    assert "bfloat16" in refused(model, r"model\.norm\.weight holds 7e\+04", Options("float16")).fix
    assert convert(model, Options("bfloat16"), output=model.parent / "out").folder.is_dir()


def test_an_unknown_dtype_option(model: Path) -> None:
    refused(model, "dtype 'fp16'", Options("fp16"), ParameterError)


def test_a_shape_that_config_denies(model: Path) -> None:
    edit_config(model, intermediate_size=256)
    refused(model, r"has the shape \[128, 64\], and config.json makes it \[256, 64\]")


def test_a_missing_tensor(model: Path) -> None:
    edit_tensors(model, lambda tensors: tensors.pop("model.layers.3.mlp.down_proj.weight"))
    refused(model, r"has no tensor model\.layers\.3\.mlp\.down_proj\.weight")


def test_a_tensor_with_no_place(model: Path) -> None:
    edit_tensors(model, lambda tensors: tensors.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}))
    refused(model, r"no place in a LlamaForCausalLM: model\.layers\.0\.self_attn\.q_norm")


def test_a_tensor_in_two_files(model: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(260, 64)}, model / "extra.safetensors")
    refused(model, r"tensor lm_head\.weight is both in")


def test_an_unknown_architecture(model: Path) -> None:
    edit_config(model, model_type="bert", architectures=["BertModel"])
    assert "llama" in refused(model, "model_type 'bert'").fix


@pytest.mark.parametrize(("tp_size", "pp_size"), [(3, 1), (16, 1), (1, 5), (0, 1), (1, -1)])
def test_ranks_that_do_not_divide_the_model(model: Path, tp_size: int, pp_size: int) -> None:
    refused(model, "tp_size|pp_size", Options(tp_size=tp_size, pp_size=pp_size), ParameterError)


@pytest.mark.parametrize(("section", "key"), [("quantization", "bits"), ("mapping", "tensor_parallel")])
def test_an_unknown_key_of_a_checkpoint(model: Path, section: str, key: str) -> None:
    checkpoint = convert(model, output=model.parent / "checkpoint").folder
    raw = json.loads((checkpoint / "config.json").read_text())
    raw[section][key] = 4
    (checkpoint / "config.json").write_text(json.dumps(raw))
    refused(checkpoint, rf"unknown key '{section}\.{key}'")


def test_a_checkpoint_without_a_rank(model: Path) -> None:
    checkpoint = convert(model, Options(tp_size=2), output=model.parent / "checkpoint").folder
    (checkpoint / "rank1.safetensors").unlink()
    refused(checkpoint, r"rank1\.safetensors cannot be opened")


def test_a_checkpoint_with_a_wrong_shape(model: Path) -> None:
    checkpoint = convert(model, Options(tp_size=2), output=model.parent / "checkpoint").folder
    (checkpoint / "rank1.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    refused(checkpoint, r"rank1\.safetensors: transformer\.\S+ is missing")


def test_a_quantized_checkpoint_cannot_be_cut_anew(model: Path) -> None:
    checkpoint = convert(model, output=model.parent / "checkpoint").folder
    edit_config(checkpoint, quantization={"quant_algo": "W4A16_AWQ"})
    assert "ModelOpt" in refused(checkpoint, r"is quantized \(W4A16_AWQ\)").fix


@pytest.mark.parametrize(
    ("file", "what", "way"),
    [
        ("pytorch_model.bin", "pickle files only", "save_pretrained"),
        ("consolidated.00.pth", "pickle files only", "save_pretrained"),
        ("global_step1/mp_rank_00_model_states.pt", "DeepSpeed training checkpoint", "zero_to_fp32.py"),
        ("model.nemo", "NeMo checkpoint", "export_ckpt"),
        ("context/model.yaml", "NeMo checkpoint", "export_ckpt"),
        ("checkpoint/_METADATA", "JAX checkpoint", "Hugging Face folder"),
        ("model.gguf", "GGUF file", "gguf_file"),
        ("README.md", "no safetensors files", "labs fetch"),
    ],
)
def test_other_sources_end_in_the_way_out(file: str, what: str, way: str, model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / file).parent.mkdir(exist_ok=True)
    (model / file).write_bytes(b"never opened")
    assert way in refused(model, what).fix


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "is not a folder")


def test_an_output_that_holds_something_else(model: Path) -> None:
    out = model.parent / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    assert "--force" in refused(model, "labs convert did not write it", kind=ParameterError).fix
    write_record(out, {"model": "fetched"})
    refused(model, "labs convert did not write it", kind=ParameterError)
    assert (out / "thesis.tex").read_text() == "years of work"
    convert(model, output=out, force=True)
    assert not (out / "thesis.tex").exists()


@pytest.mark.parametrize("where", ["model", "."])
def test_an_output_that_holds_the_source(model: Path, where: str) -> None:
    with pytest.raises(ParameterError, match="holds the source"):
        convert(model, output=model.parent / where, force=True)
    assert (model / "model.safetensors").is_file()


def test_a_failure_leaves_the_older_checkpoint(model: Path) -> None:
    out = convert(model, output=model.parent / "out").folder
    before = (out / "rank0.safetensors").read_bytes()
    edit_tensors(model, lambda tensors: tensors["lm_head.weight"].fill_(1e6))
    refused(model, "more than float16 can", Options("float16"))
    assert (out / "rank0.safetensors").read_bytes() == before


def test_a_model_that_the_disk_cannot_hold_is_not_begun(model: Path) -> None:
    """Four real terabytes, of which the file system stores none: a file with a hole."""
    vocab = 10**12 // 64
    edit_config(model, vocab_size=vocab)
    tensors = load_file(model / "model.safetensors")
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        shape = [vocab, 64] if tensor.shape[0] == 260 else list(tensor.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * int(np.prod(shape))]}
        offset = header[name]["data_offsets"][1]
    text = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(model / "model.safetensors", 8 + len(text) + offset)
    refused(model, "GB are free", kind=SpaceError)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is a device of Linux")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_disk_that_fills_up_while_writing(model: Path, dtype: str) -> None:
    """/dev/full refuses every byte with the error of a full disk, on both ways of writing."""
    before = set(model.parent.iterdir())
    with FolderSource(model) as source:
        plan = make_plan(source, Options(dtype))
        with pytest.raises(SpaceError, match="no space left"), atomic_folder(model.parent / "out"):
            write_rank(source, plan, 0, Path("/dev/full"), [].append)
    assert set(model.parent.iterdir()) == before


def test_the_command_ends_with_the_error_and_no_traceback(model: Path) -> None:
    done = CliRunner().invoke(convert_command, [str(model), "--tp", "3", "--output", str(model.parent / "out")])
    assert isinstance(done.exception, ParameterError)
