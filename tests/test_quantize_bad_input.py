"""What can be wrong with a model, a text or an option, each with its message and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoints_made import spoiled, tiny
from quantized_made import llama, quantized, text
from safetensors.torch import load_file, save_file

from labsupport.checkpoint.convert import convert
from labsupport.checkpoint.quantize.quantize import quantize_model
from labsupport.checkpoint.quantize.recipes import QuantizeOptions
from labsupport.checkpoint.verify import verify
from labsupport.errors import CheckpointError, LabError, ParameterError

Tensors = dict[str, torch.Tensor]
FC = "transformer.layers.0.mlp.fc"
UP = "model.layers.0.mlp.up_proj.weight"


def spoiled_model(folder: Path, change: Callable[[Tensors], object]) -> Path:
    shutil.copytree(llama(), folder)
    held = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(held)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refused(model: Path, match: str, options: QuantizeOptions, out: Path, calibration: Path | None = None) -> LabError:
    with pytest.raises(LabError, match=match) as caught:
        quantize_model(model, options, output=out / "made", text=calibration or text())
    assert not (out / "made").exists()
    assert not list(out.glob(".made*"))
    assert caught.value.why
    assert caught.value.fix
    return caught.value


def test_inputs_that_are_no_multiple_of_the_group(tmp_path: Path) -> None:
    error = refused(
        llama(), "inputs of .* do not divide into groups of 48", QuantizeOptions("int4_awq", group=48), tmp_path
    )
    assert "--group" in error.fix


def test_a_group_that_two_ranks_would_share(tmp_path: Path) -> None:
    options = QuantizeOptions("int4_rtn", group=128, tp_size=2)
    assert "cut between two ranks" in refused(llama(), "do not divide into groups of 128", options, tmp_path).why


def test_odd_rows_for_four_bits(tmp_path: Path) -> None:
    model = tiny("llama", intermediate_size=66)
    refused(model, "33 rows of mlp.fc on each rank are odd", QuantizeOptions("int4_rtn", group=1, tp_size=2), tmp_path)


def test_a_calibration_text_that_is_too_short(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Not enough.")
    error = refused(llama(), r"short.txt has \d+ tokens", QuantizeOptions("fp8"), tmp_path, short)
    assert "at least 1024" in error.why


def test_a_text_that_is_not_there(tmp_path: Path) -> None:
    refused(llama(), "nowhere.txt does not exist", QuantizeOptions("fp8"), tmp_path, tmp_path / "nowhere.txt")


def test_a_model_without_its_tokenizer(tmp_path: Path) -> None:
    model = spoiled_model(tmp_path / "m", lambda held: None)  # noqa: ARG005
    (model / "tokenizer.json").unlink()
    refused(model, "has no tokenizer.json", QuantizeOptions("int8_sq"), tmp_path)


@pytest.mark.parametrize("recipe", ["int8_wo", "int4_awq"])
def test_weights_that_are_no_numbers(recipe: str, tmp_path: Path) -> None:
    model = spoiled_model(tmp_path / "m", lambda held: held[UP][3].fill_(torch.nan))
    refused(model, f"{UP} holds 128 values that are NaN or infinite", QuantizeOptions(recipe), tmp_path)


def test_a_layer_of_zeros(tmp_path: Path) -> None:
    model = spoiled_model(tmp_path / "m", lambda held: held[UP].zero_())
    refused(model, f"{UP} holds nothing but zeros", QuantizeOptions("int8_wo"), tmp_path)


@pytest.mark.parametrize("recipe", ["int8_wo", "int8_gptq", "int4_rtn", "int8_sq"])
def test_channels_of_zeros_are_told_and_stay_zero(recipe: str, tmp_path: Path) -> None:
    model = spoiled_model(tmp_path / "m", lambda held: held[UP][3:5].zero_())
    done = quantize_model(model, QuantizeOptions(recipe, dtype="float32"), output=tmp_path / "made", text=text())
    (note,) = done.notes
    assert str(note).startswith("2 rows of transformer.layers.0.mlp.gate.weight are zeros throughout: their scale is")
    assert verify(done.folder, model).proven


def test_inputs_of_zeros(tmp_path: Path) -> None:
    """No value reaches the output projection of a layer whose values are zeros."""
    model = spoiled_model(tmp_path / "m", lambda held: held["model.layers.0.input_layernorm.weight"].zero_())
    refused(model, "every input of model.layers.0.self_attn.q_proj was zero", QuantizeOptions("fp8"), tmp_path)
    refused(model, "the texts say nothing about model.layers.0.self_attn", QuantizeOptions("int8_gptq"), tmp_path)


def test_quantizing_twice(tmp_path: Path) -> None:
    once = quantized(llama(), "int4_rtn")
    refused(once, r"is quantized already \(W4A16_AWQ\)", QuantizeOptions("int8_wo"), tmp_path)
    model = spoiled_model(tmp_path / "m", lambda held: None)  # noqa: ARG005
    raw = json.loads((model / "config.json").read_text()) | {"quantization_config": {"quant_method": "gptq"}}
    (model / "config.json").write_text(json.dumps(raw))
    refused(model, r"is quantized already \(gptq\)", QuantizeOptions("int8_wo"), tmp_path)


def test_a_checkpoint_as_the_source(tmp_path: Path) -> None:
    plain = convert(llama(), output=tmp_path / "plain").folder
    refused(plain, "is a TensorRT-LLM checkpoint", QuantizeOptions("int4_awq"), tmp_path)
    done = quantize_model(plain, QuantizeOptions("int8_wo"), output=tmp_path / "made")
    assert done.config.quantization.quant_algo == "W8A16"


def test_weights_that_float16_cannot_hold(tmp_path: Path) -> None:
    model = spoiled_model(tmp_path / "m", lambda held: held["model.norm.weight"].fill_(1e6))
    refused(model, "model.norm.weight holds 1e", QuantizeOptions("int8_wo", dtype="float16"), tmp_path)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (QuantizeOptions("int3"), "no recipe 'int3'"),
        (QuantizeOptions("int8_sq", alpha=2), "alpha 2"),
        (QuantizeOptions("int4_awq", quantize_lm_head=True), "int4_awq with --quantize-lm-head"),
    ],
)
def test_options_that_do_not_exist(options: QuantizeOptions, match: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=match):
        quantize_model(llama(), options, output=tmp_path / "made")


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "thesis.txt").write_text("mine")
    with pytest.raises(ParameterError, match="labs quantize did not write it"):
        quantize_model(llama(), QuantizeOptions("int8_wo"), output=tmp_path / "made")
    with pytest.raises(ParameterError, match="holds the model"):
        quantize_model(llama(), QuantizeOptions("int8_wo"), output=llama())


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    first = quantize_model(llama(), QuantizeOptions("int4_rtn"), output=tmp_path / "made")
    assert not first.skipped
    assert quantize_model(llama(), QuantizeOptions("int4_rtn"), output=tmp_path / "made").skipped
    assert not quantize_model(llama(), QuantizeOptions("int4_rtn", group=32), output=tmp_path / "made").skipped


# ---- labs verify rejects what is broken


def scaled(name: str, factor: float) -> Callable[[Tensors], object]:
    return lambda held: held[name].mul_(factor)


def nibbles_swapped(held: Tensors) -> None:
    low, high = held[FC + ".weight"] & 0xF, (held[FC + ".weight"] >> 4) & 0xF
    held[FC + ".weight"] = (low << 4) | high


@pytest.mark.parametrize(
    ("recipe", "change", "rung"),
    [
        ("int4_awq", nibbles_swapped, "round trip"),
        ("int4_awq", scaled(FC + ".weights_scaling_factor", 1.2), "round trip"),
        ("int4_awq", scaled(FC + ".prequant_scaling_factor", 0.5), "round trip"),
        ("int8_sq", lambda held: held[FC + ".weight"].copy_(held[FC + ".weight"].flip(0)), "round trip"),
        ("int8_sq", scaled(FC + ".weights_scaling_factor", 1.05), "round trip"),
        ("fp8", scaled("transformer.layers.0.attention.qkv.weights_scaling_factor", 2), "round trip"),
        ("fp8", scaled(FC + ".activation_scaling_factor", 0), "structure"),
        ("fp8", scaled(FC + ".activation_scaling_factor", torch.nan), "structure"),
        ("int4_awq", lambda held: held.pop(FC + ".prequant_scaling_factor"), "structure"),
        ("int8_wo", lambda held: held[FC + ".weight"].mul_(1.001), "round trip"),
        ("int8_gptq", lambda held: held[FC + ".weight"].mul_(1.001), "round trip"),
        ("int8_gptq", lambda held: held[FC + ".weight"].copy_(held[FC + ".weight"].flip(1)), "round trip"),
        ("int8_gptq", lambda held: held["lm_head.weight"].mul_(1.001), "round trip"),
    ],
)
def test_what_is_broken_is_rejected(
    recipe: str, change: Callable[[Tensors], object], rung: str, tmp_path: Path
) -> None:
    verdict = verify(spoiled(quantized(llama(), recipe), tmp_path / "c", tensors=change), llama())
    assert [one.name for one in verdict.rungs if one.status == "failed"] == [rung], str(verdict)


def test_a_cache_scale_that_is_far_off_is_heard(tmp_path: Path) -> None:
    def off(held: Tensors) -> None:
        for name in held:
            if name.endswith("kv_cache_scaling_factor"):
                held[name] *= 1000

    verdict = verify(spoiled(quantized(llama(), "full_prec", kv_cache="int8"), tmp_path / "c", tensors=off), llama())
    assert verdict.rungs[2].status == "failed", str(verdict)
    assert "mean KL" in verdict.faults[0].what


def test_weights_in_the_layout_of_one_gpu_are_not_run(tmp_path: Path) -> None:
    from labsupport.checkpoint.network import load_network

    def packed(held: Tensors) -> None:
        held[FC + ".weight"] = held[FC + ".weight"].T.contiguous().to(torch.int8)

    with pytest.raises(CheckpointError, match="int8 already"):
        load_network(spoiled(quantized(llama(), "int8_wo"), tmp_path / "c", tensors=packed))
