"""Verification: sound checkpoints pass all three rungs, and each planted fault is caught and called by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints_made import ALL_FAMILIES, Tensors, converted, spoiled, tiny
from click.testing import CliRunner
from safetensors.numpy import load_file

from labsupport.checkpoint.config import Mapping, QuantConfig, read_config, write_config
from labsupport.checkpoint.expected import expected
from labsupport.checkpoint.roundtrip import check_round_trip, restore
from labsupport.checkpoint.structure import check_structure
from labsupport.checkpoint.verify import Verdict, verify
from labsupport.cli import labs
from labsupport.errors import CheckpointError

LAYER = "transformer.layers.1."


def rules(verdict: Verdict) -> dict[str, str]:
    return {rung.name: rung.status for rung in verdict.rungs}


# ---- what is sound passes


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_a_sound_checkpoint_is_proven(family: str, dtype: str) -> None:
    model = tiny(family)
    verdict = verify(converted(model, tp_size=2, dtype=dtype), model)
    assert verdict.proven, str(verdict)
    assert not verdict.warnings
    assert str(verdict).count("passed") == 3


@pytest.mark.parametrize("cut", [{"tp_size": 4}, {"tp_size": 2, "pp_size": 2}, {"pp_size": 4}])
def test_the_tensors_come_back_byte_for_byte(cut: dict[str, int]) -> None:
    model = tiny("llama", num_key_value_heads=2)
    original, restored = load_file(model / "model.safetensors"), dict(restore(converted(model, **cut)))
    assert restored.keys() == original.keys()
    assert all(restored[name].tobytes() == original[name].tobytes() for name in original)


def test_what_the_round_trip_covers() -> None:
    model = tiny("llama")
    found = check_round_trip(converted(model), model)
    original = load_file(model / "model.safetensors")
    assert (found.tensors, found.bytes) == (len(original), sum(tensor.nbytes for tensor in original.values()))


def test_opts_first_two_positions_do_not_come_back() -> None:
    restored = dict(restore(converted(tiny("opt"))))["model.decoder.embed_positions.weight"]
    original = load_file(tiny("opt") / "model.safetensors")["model.decoder.embed_positions.weight"]
    assert not restored[:2].any()
    assert np.array_equal(restored[2:], original[2:])


def test_without_a_reference_less_is_proven() -> None:
    verdict = verify(converted(tiny("llama")))
    assert rules(verdict) == {"structure": "passed", "round trip": "skipped", "execution": "passed"}
    assert verdict.passed
    assert not verdict.proven


def test_the_reference_is_found_in_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    shutil.copytree(tiny("llama"), tmp_path / "checkpoints" / "mine")
    shutil.copytree(converted(tiny("llama")), tmp_path / "trt_checkpoints" / "mine" / "float32-tp1")
    assert verify(tmp_path / "trt_checkpoints" / "mine" / "float32-tp1").proven


def test_execution_can_be_left_out() -> None:
    assert rules(verify(converted(tiny("llama")), tiny("llama"), execution=False))["execution"] == "skipped"


# ---- planted faults that only the original reveals


def swap(one: str, other: str) -> Callable[[Tensors], None]:
    def change(held: Tensors) -> None:
        for name in [name for name in held if f".{one}." in name]:
            partner = name.replace(f".{one}.", f".{other}.")
            held[name], held[partner] = held[partner], held[name]

    return change


def key_first(held: Tensors) -> None:
    """8 query heads and 4 KV heads of 8, on two ranks: 32 rows of q, 16 of k, 16 of v."""
    q, k, v = held[LAYER + "attention.qkv.weight"].split([32, 16, 16])
    held[LAYER + "attention.qkv.weight"] = torch.cat([k, q, v])


def as_meta_keeps_it(held: Tensors) -> None:
    """8 query heads of 8 rows come first."""
    query = held[LAYER + "attention.qkv.weight"][:64]
    held[LAYER + "attention.qkv.weight"][:64] = query.clone().view(8, 2, 4, -1).transpose(1, 2).reshape(64, -1)


def norms_as_they_are(held: Tensors) -> None:
    for name, values in load_file(tiny("gemma3") / "model.safetensors").items():
        if name.endswith(".input_layernorm.weight"):
            held[name.replace("model.", "transformer.", 1)] = torch.from_numpy(values)


def scaled_embedding(held: Tensors) -> None:
    held["transformer.vocab_embedding.weight"] *= 64**0.5


def turned(held: Tensors) -> None:
    held[LAYER + "attention.dense.weight"] = held[LAYER + "attention.dense.weight"].T


def shifted_layers(held: Tensors) -> None:
    """Stage 1 of 2 holds layers 2 and 3; here its first is layer 3 as well."""
    for name in [name for name in held if ".layers.0." in name]:
        held[name] = held[name.replace(".layers.0.", ".layers.1.")]


def through_float16(held: Tensors) -> None:
    held["transformer.ln_f.weight"] = held["transformer.ln_f.weight"].half().float()


def other_weights(held: Tensors) -> None:
    held["transformer.ln_f.weight"] = held["transformer.ln_f.weight"].flip(0)


def dirty_padding(held: Tensors) -> None:
    held["lm_head.weight"][-1] = 1.0


@pytest.mark.parametrize(
    ("model", "cut", "rank", "change", "what", "why"),
    [
        (tiny("llama"), {"tp_size": 2}, 0, swap("fc", "gate"), "it is model.layers.0.mlp", "fc is the branch with"),
        (tiny("llama"), {"tp_size": 2}, 1, key_first, "the order is k, q, v", "its own q, then its k"),
        (tiny("llama"), {}, 0, as_meta_keeps_it, "rows of each head are interleaved", "half a head apart"),
        (tiny("gemma3"), {}, 0, norms_as_they_are, "the 1 is missing", "multiplies by 1 + w"),
        (tiny("gemma"), {}, 0, scaled_embedding, "every value is 8 times too large", "weights as the original"),
        (tiny("gpt2"), {}, 0, turned, "it is transposed", "Conv1D keeps (in, out)"),
        (tiny("llama"), {"pp_size": 2}, 1, shifted_layers, "it is that of layer 3", "layer 2 of the model belongs"),
        (tiny("llama"), {}, 0, through_float16, "rounded differently", "fewer bits"),
        (tiny("llama"), {}, 0, other_weights, "is not model.norm.weight", "no usual mistake explains it"),
        (tiny("llama", vocab_size=261), {"tp_size": 2}, 1, dirty_padding, "last 1 rows of lm_head", "belong to no"),
        (tiny("llama"), {}, 0, swap("input_layernorm", "post_layernorm"), "it is model", "were swapped"),
    ],
)
def test_the_round_trip_names_the_mistake(
    model: Path, cut: dict[str, Any], rank: int, change: Callable[[Tensors], None], what: str, why: str, tmp_path: Path
) -> None:
    folder = spoiled(converted(model, **cut), tmp_path / "c", rank=rank, tensors=change)
    verdict = verify(folder, model)
    assert rules(verdict) == {"structure": "passed", "round trip": "failed", "execution": "skipped"}, str(verdict)
    assert verdict.first_fault is not None
    assert what in verdict.first_fault.what
    assert why in verdict.first_fault.why


def test_stacking_before_cutting_is_named(tmp_path: Path) -> None:
    model, name = tiny("llama", num_key_value_heads=8), LAYER + "attention.qkv.weight"
    whole = load_file(model / "model.safetensors")
    stack = np.concatenate([whole[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"])
    folder = converted(model, tp_size=2)
    for rank, half in enumerate(np.split(stack, 2)):
        values = torch.from_numpy(half.copy())
        folder = spoiled(folder, tmp_path / str(rank), rank, lambda held, half=values: held.update({name: half}))
    fault = verify(folder, model).first_fault
    assert fault is not None
    assert "it was stacked first and cut then" in fault.what


def test_a_fault_in_every_layer_is_told_once(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama")), tmp_path / "c", tensors=swap("fc", "gate"))
    assert len(verify(folder, tiny("llama")).faults) == 2  # fc, and gate


def test_another_model_is_no_reference() -> None:
    verdict = verify(converted(tiny("llama")), tiny("llama", seed=1))
    assert verdict.first_fault is not None
    assert "no usual mistake explains it" in verdict.first_fault.why
    small = verify(converted(tiny("llama")), tiny("qwen2"), execution=False)  # it has biases that found no place
    assert any("have no place in the checkpoint" in fault.what for fault in small.faults)


# ---- faults that the tensors do not show


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [("llama", "rotary_base", 500.0), ("gemma3", "query_pre_attn_scalar", 16), ("gpt2", "hidden_act", "relu")],
)
def test_execution_names_the_field(family: str, field: str, value: object, tmp_path: Path) -> None:
    folder = spoiled(converted(tiny(family)), tmp_path / "c", config=lambda raw: raw.update({field: value}))
    verdict = verify(folder, tiny(family))
    assert rules(verdict) == {"structure": "passed", "round trip": "passed", "execution": "failed"}
    assert verdict.first_fault is not None
    assert f"config.json has {field} {value!r}" in verdict.first_fault.why
    assert "part after layer 0" in verdict.first_fault.why


# ---- structure


def without(name: str) -> Callable[[Tensors], None]:
    return lambda held: held.__delitem__(name)


def global_layers(held: Tensors) -> None:
    for name in [name for name in held if ".layers." in name]:
        layer = int(name.split(".")[2])
        held[name.replace(f".layers.{layer}.", f".layers.{layer + 2}.", 1) + "."] = held.pop(name)
    for name in list(held):
        held[name.removesuffix(".")] = held.pop(name)


def nan(held: Tensors) -> None:
    held[LAYER + "mlp.fc.weight"][3, 5] = float("nan")


def off_by_one(name: str) -> Callable[[Tensors], None]:
    return lambda held: held[name].add_(1)


def narrow(held: Tensors) -> None:
    held[LAYER + "mlp.proj.weight"] = held[LAYER + "mlp.proj.weight"][:, :-1]


def stored_in_out(held: Tensors) -> None:
    held[LAYER + "mlp.fc.weight"] = held[LAYER + "mlp.fc.weight"].T


def half(held: Tensors) -> None:
    held[LAYER + "mlp.fc.weight"] = held[LAYER + "mlp.fc.weight"].half()


def into(section: str, **fields: object) -> Callable[[dict[str, Any]], None]:
    return lambda raw: raw[section].update(fields)


def drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda raw: raw.pop(key)


def drop_tp(raw: dict[str, Any]) -> None:
    del raw["mapping"]["tp_size"]


QKV = LAYER + "attention.qkv.weight"


@pytest.mark.parametrize(
    ("family", "cut", "damage", "rule", "words"),
    [
        ("llama", {}, {"tensors": without(QKV)}, "names", f"has no {QKV}"),
        ("llama", {"pp_size": 2}, {"rank": 1, "tensors": global_layers}, "names", "counts its layers from 2"),
        ("llama", {}, {"tensors": narrow}, "shapes", "is (64, 127), not (64, 128)"),
        ("gpt2", {}, {"tensors": stored_in_out}, "shapes", "looks transposed"),
        ("llama", {}, {"tensors": half}, "types", "is F16, not F32"),
        ("llama", {}, {"tensors": nan}, "finite", "holds 1 values that are NaN"),
        ("gpt2", {"tp_size": 2}, {"rank": 1, "tensors": off_by_one(LAYER + "attention.dense.bias")}, "replicas",
         "added once, after"),
        ("opt", {"tp_size": 2}, {"rank": 1, "tensors": off_by_one(LAYER + "mlp.proj.bias")}, "replicas", "rank 1"),
        ("llama", {"tp_size": 2}, {"rank": 1, "tensors": off_by_one("transformer.ln_f.weight")}, "replicas", "copy"),
        ("llama", {}, {"config": into("quantization", use_weight_only=False)}, "config", "schema of 2023"),
        ("llama", {}, {"config": into("quantization", bits=4)}, "config", "unknown key 'quantization.bits'"),
        ("llama", {}, {"config": into("mapping", ep_size=1)}, "config", "unknown key 'mapping.ep_size'"),
        ("llama", {}, {"config": into("quantization", quant_algo="W5A16")}, "config", "quantization.quant_algo"),
        ("llama", {}, {"config": into("mapping", world_size=2)}, "config", "world_size 2 is not tp_size 1"),
        ("llama", {}, {"config": into("mapping", world_size=3, tp_size=3)}, "mapping", "do not divide by 3"),
        ("gemma", {}, {"config": into("mapping", world_size=2, pp_size=2)}, "mapping", "pipeline stages"),
        ("llama", {}, {"config": drop("dtype")}, "config", "lacks 'dtype'"),
        ("llama", {}, {"config": lambda raw: raw.update(architecture="BertModel")}, "config", "'BertModel'"),
        ("gemma2", {}, {"config": drop("query_pre_attn_scalar")}, "config", "lacks 'query_pre_attn_scalar'"),
        ("gemma2", {}, {"config": drop("head_size")}, "config", "lacks 'head_size'"),
        ("gemma2", {}, {"config": drop_tp}, "config", "lacks 'mapping.tp_size'"),
        ("gemma3", {}, {"config": drop("qk_layernorm")}, "config", "norms of queries and keys are not read"),
        ("qwen3", {}, {"config": drop("attn_bias")}, "config", "lacks 'attn_bias'"),
        ("opt", {}, {"config": drop("do_layer_norm_before")}, "config", "lacks 'do_layer_norm_before'"),
    ],
)  # fmt: skip
def test_structure_names_the_fault(
    family: str, cut: dict[str, Any], damage: dict[str, Any], rule: str, words: str, tmp_path: Path
) -> None:
    model = tiny(family)
    verdict = verify(spoiled(converted(model, **cut), tmp_path / "c", **damage), model)
    assert rules(verdict) == {"structure": "failed", "round trip": "skipped", "execution": "skipped"}
    assert verdict.first_fault is not None
    assert verdict.first_fault.rule == rule
    assert words in str(verdict.first_fault)


def test_a_copied_kv_head_must_be_a_copy(tmp_path: Path) -> None:
    model = tiny("llama", num_key_value_heads=2)  # on 4 ranks, ranks 0 and 1 hold the same head

    def one_key(held: Tensors) -> None:
        held[QKV][17, 0] += 1  # 2 query heads of 8 rows come first

    verdict = verify(spoiled(converted(model, tp_size=4), tmp_path / "c", rank=1, tensors=one_key), model)
    assert verdict.first_fault is not None
    assert verdict.first_fault.what == f"{QKV} is not the same on rank 0 and rank 1"


def test_files_that_are_missing_cut_short_or_too_many(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama"), tp_size=2), tmp_path / "c")
    path = folder / "rank1.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "is cut short" in check_structure(folder)[0].what
    path.rename(folder / "rank2.safetensors")
    missing, extra = check_structure(folder)
    assert "rank1.safetensors cannot be opened" in missing.what
    assert (extra.level, "rank2.safetensors belongs to no rank" in extra.what) == ("warning", True)


def test_a_rotary_base_that_nobody_wrote_is_a_warning(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("qwen2")), tmp_path / "c", config=drop("rotary_base"))
    (only,) = check_structure(folder)
    assert (only.level, "100,000 is taken" in only.why) == ("warning", True)


def test_an_extra_tensor_is_a_warning_only(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama")), tmp_path / "c", tensors=lambda held: held.update(more=torch.ones(2)))
    verdict = verify(folder, tiny("llama"))
    assert verdict.proven
    assert [warning.what.endswith("has the extra tensor more") for warning in verdict.warnings] == [True]
    assert "warning (names)" in str(verdict)


def test_a_head_left_out_is_a_warning_where_the_table_stands_for_it(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("gemma")), tmp_path / "c", tensors=without("lm_head.weight"))
    verdict = verify(folder, tiny("gemma"))
    assert [warning.rule for warning in verdict.warnings] == ["names"]


@pytest.mark.parametrize(("cut", "rank"), [({"pp_size": 2}, 1), ({"tp_size": 2}, 0)])
def test_it_is_a_fault_where_no_table_is_on_the_rank_or_it_is_not_cut(cut: Any, rank: int, tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama"), **cut), tmp_path / "c", rank=rank, tensors=without("lm_head.weight"))
    assert [(one.level, "has no lm_head.weight" in one.what) for one in check_structure(folder)] == [("fault", True)]


def test_it_is_not_the_table_of_a_model_whose_tables_differ(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama")), tmp_path / "c", tensors=without("lm_head.weight"))
    verdict = verify(folder, tiny("llama"))
    assert verdict.first_fault is not None
    assert "lm_head.weight of rank 0 is not lm_head.weight of the original" in verdict.first_fault.what


# ---- quantized checkpoints, as far as their structure


def quantized(folder: Path, family: str, tp_size: int = 1, **quantization: Any) -> Path:
    """A checkpoint with the right names, shapes and types for a ``quant_algo``, and values that mean nothing."""
    from safetensors.torch import save_file

    types = {"F32": torch.float32, "F16": torch.float16, "I8": torch.int8, "F8_E4M3": torch.float8_e4m3fn}
    config = read_config(converted(tiny(family, hidden_size=128), dtype="float16", tp_size=tp_size))
    config = config.model_copy(update={"quantization": QuantConfig(**quantization)})
    write_config(config, folder)
    for rank in range(tp_size):
        held = {name: torch.ones(form.shape).to(types[form.kinds[0]]) for name, form in expected(config, rank).items()}
        save_file(held, folder / f"rank{rank}.safetensors")
    return folder


def test_what_awq_stores() -> None:
    config = read_config(converted(tiny("llama", hidden_size=128), dtype="float16", tp_size=2))
    awq = config.model_copy(update={"quantization": QuantConfig(quant_algo="W4A16_AWQ", group_size=64)})
    forms = expected(awq, 0)
    # 128 -> 128 inner over two ranks: (64, 128), two rows a byte, a scale for each of two groups of 64 columns
    assert forms[LAYER + "mlp.fc.weight"].shape == (32, 128)
    assert forms[LAYER + "mlp.fc.weights_scaling_factor"].shape == (64, 2)
    assert forms[LAYER + "mlp.fc.prequant_scaling_factor"].shape == (128,)
    assert forms[LAYER + "mlp.proj.prequant_scaling_factor"].shape == (64,)  # cut along its input
    assert forms["lm_head.weight"].kinds == ("F16",)  # kept, unless exclude_modules says otherwise


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_algo": "W4A16_AWQ", "group_size": 64, "pre_quant_scale": True},
        {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
        {"quant_algo": "W8A8_SQ_PER_CHANNEL", "kv_cache_quant_algo": "INT8"},
    ],
)
def test_a_quantized_structure_passes_and_values_that_mean_nothing_do_not(
    quantization: dict[str, Any], tmp_path: Path
) -> None:
    verdict = verify(quantized(tmp_path / "c", "llama", 2, **quantization), tiny("llama", hidden_size=128))
    assert rules(verdict) == {"structure": "passed", "round trip": "failed", "execution": "skipped"}, str(verdict)


@pytest.mark.parametrize(
    ("quantization", "change", "words"),
    [
        ({"quant_algo": "W8A16"}, lambda held: held.update({QKV: held[QKV].to(torch.int8)}), "layout of one GPU"),
        ({"quant_algo": "FP8"}, without(LAYER + "mlp.fc.activation_scaling_factor"), "activation_scaling_factor"),
        ({"quant_algo": "FP8"}, lambda held: held.update({QKV: held[QKV].half()}), "is F16, not F8_E4M3 or I8"),
        (
            {"kv_cache_quant_algo": "INT8"},
            lambda held: held[LAYER + "attention.kv_cache_scaling_factor"].zero_(),
            "is not above zero",
        ),
    ],
)
def test_faults_of_a_quantized_structure(
    quantization: dict[str, Any], change: Callable[[Tensors], None], words: str, tmp_path: Path
) -> None:
    folder = spoiled(quantized(tmp_path / "q", "llama", **quantization), tmp_path / "c", tensors=change)
    assert words in str(check_structure(folder)[0])


def test_odd_sizes_and_unknown_forms_are_warnings(tmp_path: Path) -> None:
    folder = quantized(tmp_path / "c", "llama", 4, quant_algo="W8A16")
    assert [(one.level, one.rule) for one in check_structure(folder)] == [("warning", "quantization")]


def test_a_form_that_is_not_known_is_not_guessed_at(tmp_path: Path) -> None:
    def packed(held: Tensors) -> None:
        held[LAYER + "attention.qkv.zero"] = torch.zeros(2, 2)
        held[QKV] = torch.zeros(3, 3, dtype=torch.int8)

    gptq = spoiled(quantized(tmp_path / "q", "llama", quant_algo="W4A16_GPTQ"), tmp_path / "c", tensors=packed)
    (only,) = check_structure(gptq)
    assert only.level == "warning"
    assert "W4A16_GPTQ are not known here" in only.what


# ---- bad input


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        verify(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "config.json does not exist" in str(verify(tmp_path / "empty").first_fault)
    with pytest.raises(CheckpointError, match=r"has no config.json"):
        verify(converted(tiny("llama")), tmp_path / "empty")


def test_a_reference_that_transformers_does_not_know(tmp_path: Path) -> None:
    shutil.copytree(tiny("llama"), tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "lama"}))
    fault = verify(converted(tiny("llama")), tmp_path / "model").first_fault
    assert fault is not None
    assert "transformers cannot load the reference" in fault.what
    assert "lama" in fault.why


def test_mappings_of_the_layout_agree_with_the_files() -> None:
    folder = converted(tiny("llama"), tp_size=2, pp_size=2)
    assert read_config(folder).mapping == Mapping.of(2, 2)
    assert len(list(folder.glob("rank*.safetensors"))) == 4


# ---- the verb


def test_the_verb_prints_the_ladder_and_exits_with_one_at_a_fault(tmp_path: Path) -> None:
    model = tiny("llama")
    sound = CliRunner().invoke(labs, ["verify", str(converted(model)), "--reference", str(model)])
    assert (sound.exit_code, sound.output.count("passed")) == (0, 3)
    spoilt = spoiled(converted(model), tmp_path / "c", tensors=nan)
    found = CliRunner().invoke(labs, ["verify", str(spoilt), "--reference", str(model)])
    assert found.exit_code == 1
    assert "fault (finite): transformer.layers.1.mlp.fc.weight" in found.output


def test_the_verb_speaks_json(tmp_path: Path) -> None:
    spoilt = spoiled(converted(tiny("llama")), tmp_path / "c", tensors=nan)
    found = json.loads(CliRunner().invoke(labs, ["verify", str(spoilt), "--json", "--no-execution"]).output)
    assert (found["passed"], found["proven"]) == (False, False)
    assert found["rungs"][0]["findings"][0]["rule"] == "finite"
