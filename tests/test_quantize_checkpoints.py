"""Every recipe as a checkpoint: what lies in it, that it runs as its kernels define it, and the same on every rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoints_made import TOKENS, converted, original_logits, tiny
from quantized_made import llama, quantized
from safetensors.torch import load_file

from labsupport.checkpoint.config import read_config
from labsupport.checkpoint.network import load_network
from labsupport.checkpoint.network.quantized import RoundFp8, RoundInt8
from labsupport.checkpoint.quantize.arithmetic import unpack_int4, weight_only
from labsupport.checkpoint.quantize.quantize import planned, quantize_model
from labsupport.checkpoint.quantize.recipes import RECIPES, QuantizeOptions, largest_group
from labsupport.checkpoint.verify import verify
from labsupport.models import DEFAULT_MODEL, fetch
from labsupport.models.quiet import quiet_transformers

LAYER = "transformer.layers.0."
CUTS = [{}, {"tp_size": 2}, {"tp_size": 2, "pp_size": 2}]


def tensors(folder: Path, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"rank{rank}.safetensors")


def logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_network(folder)(TOKENS)


def weight_of(model: Path, name: str) -> torch.Tensor:
    return load_file(model / "model.safetensors")[name]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_proven_on_every_cut(recipe: str, cut: dict[str, int]) -> None:
    verdict = verify(quantized(llama(), recipe, kv_cache="int8" if cut else "none", **cut), llama())
    assert [rung.status for rung in verdict.rungs] == ["passed"] * 3, str(verdict)


@pytest.mark.parametrize("recipe", ["int4_awq", "int8_sq", "fp8"])
@pytest.mark.parametrize("family", ["gemma3", "gpt2", "opt", "qwen3"])
def test_other_families(family: str, recipe: str) -> None:
    model = tiny(family)
    verdict = verify(quantized(model, recipe), model)
    assert verdict.proven, str(verdict)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_ranks_together_compute_what_one_computes(recipe: str) -> None:
    """Scales are found before the cut; but trtllm-build quantizes W8A16 and W4A16 rank by rank."""
    one, two = (
        logits(quantized(llama(), recipe, group=32 if RECIPES[recipe].grouped else None, **cut)) for cut in CUTS[:2]
    )
    if recipe in ("int8_wo", "int8_gptq", "int4_wo"):
        assert not torch.allclose(one, two, atol=1e-4)
    else:
        assert torch.allclose(one, two, atol=2e-3 if recipe in ("int8_sq", "fp8") else 2e-4)


def test_weight_only_is_the_float_checkpoint_and_a_word_in_its_config() -> None:
    plain, made = converted(llama()), quantized(llama(), "int8_wo")
    assert json.loads((made / "config.json").read_text())["quantization"] == {
        "quant_algo": "W8A16", "kv_cache_quant_algo": None, "group_size": 128,
    }  # fmt: skip
    held, floats = tensors(made), tensors(plain)
    assert held.keys() == floats.keys()
    assert all(torch.equal(held[name], floats[name]) for name in floats)


@pytest.mark.parametrize(
    ("recipe", "bits", "head"), [("int8_wo", 8, False), ("int4_wo", 4, False), ("int8_wo", 8, True)]
)
def test_weight_only_runs_as_trtllm_would_build_it(recipe: str, bits: int, head: bool) -> None:
    """Transformers with weights rounded by hand: scale max|w| / 128 (or / 8) a row, halves away from zero."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(llama(), dtype=torch.float32, attn_implementation="eager").eval()
    levels = 2 ** (bits - 1)
    assert network.lm_head.weight is not network.model.embed_tokens.weight, "rounding one would round the other"
    with torch.no_grad():
        for module in (*network.model.layers.modules(), *([network.lm_head] if head else [])):
            if isinstance(module, torch.nn.Linear):
                scale = module.weight.abs().amax(1, keepdim=True) / levels
                whole = (module.weight / scale).abs().add(0.5).floor() * module.weight.sign()
                module.weight.copy_(whole.clamp(-levels, levels - 1) * scale)
        wanted = network(TOKENS).logits
    assert torch.allclose(logits(quantized(llama(), recipe, quantize_lm_head=head)), wanted, atol=1e-3)
    assert not torch.allclose(original_logits(llama()), wanted, atol=1e-2)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("recipe", ["int8_wo", "int8_gptq", "int4_wo"])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_head_may_be_quantized_too(family: str, recipe: str, cut: dict[str, int]) -> None:
    model = llama() if family == "llama" else tiny(family)
    made = quantized(model, recipe, quantize_lm_head=True, **cut)
    assert json.loads((made / "config.json").read_text())["quantization"]["exclude_modules"] == []
    verdict = verify(made, model)
    assert verdict.proven, str(verdict)
    assert not torch.equal(logits(made), logits(quantized(model, recipe, **cut)))


def test_compensated_weights_are_floats_that_the_kernel_leaves_alone() -> None:
    plain, made = tensors(quantized(llama(), "int8_wo")), tensors(quantized(llama(), "int8_gptq"))
    assert read_config(quantized(llama(), "int8_gptq")).quantization.quant_algo == "W8A16"
    assert plain.keys() == made.keys()
    moved = [name for name in plain if not torch.equal(plain[name], made[name])]
    assert sorted({name.split(".", 3)[-1] for name in moved}) == [
        "attention.dense.weight", "attention.qkv.weight", "mlp.fc.weight", "mlp.gate.weight", "mlp.proj.weight",
    ]  # fmt: skip
    for name in moved:
        restored = weight_only(made[name], 8)
        assert torch.equal(restored.scale, weight_only(plain[name], 8).scale)
        steps = (restored.dequantize() - plain[name]).abs() / restored.scale
        assert 0.5 < float(steps.max()) <= 2.0001
    verdict = verify(quantized(llama(), "int8_gptq"), llama())
    assert "weights within 2 steps" in verdict.rungs[1].detail


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "opt", "qwen3"])
def test_other_families_are_compensated(family: str) -> None:
    verdict = verify(quantized(tiny(family), "int8_gptq", kv_cache="fp8"), tiny(family))
    assert verdict.proven, str(verdict)


def test_what_awq_stores() -> None:
    held, config = tensors(quantized(llama(), "int4_awq")), read_config(quantized(llama(), "int4_awq"))
    fc, gate = (LAYER + "mlp." + name for name in ("fc", "gate"))
    assert config.quantization.quant_algo == "W4A16_AWQ"
    assert config.quantization.pre_quant_scale
    assert config.quantization.group_size == largest_group(config)
    factors = held[fc + ".prequant_scaling_factor"]
    assert not torch.equal(factors, held[gate + ".prequant_scaling_factor"])  # each layer has its own, but q, k and v
    assert not torch.equal(factors, torch.ones_like(factors))
    weight = weight_of(llama(), "model.layers.0.mlp.gate_proj.weight")
    group = config.quantization.group_size
    scaled = (weight / factors).unflatten(1, (-1, group))
    assert torch.allclose(held[fc + ".weights_scaling_factor"], scaled.abs().amax(2) / 7)
    values = unpack_int4(held[fc + ".weight"]).unflatten(1, (-1, group))
    assert torch.equal(values, (scaled / held[fc + ".weights_scaling_factor"][..., None]).round().to(torch.int8))
    assert held["lm_head.weight"].dtype == torch.float32  # the head keeps its bits


def test_rounding_to_nearest_is_awq_with_factors_of_one() -> None:
    held = tensors(quantized(llama(), "int4_rtn"))
    assert torch.equal(
        held[LAYER + "mlp.proj.prequant_scaling_factor"], torch.ones(held[LAYER + "mlp.proj.weight"].shape[1])
    )


def test_what_smoothquant_stores() -> None:
    held = tensors(quantized(llama(), "int8_sq", alpha=0.5))
    name = LAYER + "attention.dense"
    weight = weight_of(llama(), "model.layers.0.self_attn.o_proj.weight") / held[name + ".prequant_scaling_factor"]
    assert held[name + ".weight"].dtype == torch.int8
    assert torch.allclose(held[name + ".weights_scaling_factor"], weight.abs().amax(1) / 127)
    assert held[name + ".activation_scaling_factor"].shape == (1,)


def test_what_fp8_stores() -> None:
    held = tensors(quantized(llama(), "fp8"))
    qkv = torch.cat([weight_of(llama(), f"model.layers.0.self_attn.{one}_proj.weight") for one in "qkv"])
    assert held[LAYER + "attention.qkv.weight"].dtype == torch.float8_e4m3fn
    assert torch.allclose(held[LAYER + "attention.qkv.weights_scaling_factor"], qkv.abs().max() / 448)
    assert held[LAYER + "attention.qkv.weight"].float().abs().max() == 448
    scales = [held[f"{LAYER}mlp.{one}.weights_scaling_factor"] for one in ("fc", "gate")]
    assert torch.equal(*scales)


def test_what_the_cache_stores() -> None:
    int8, fp8 = (tensors(quantized(llama(), "full_prec", kv_cache=kind)) for kind in ("int8", "fp8"))
    name = LAYER + "attention.kv_cache_scaling_factor"
    assert int8[name].shape == (1,)
    assert 0 < float(int8[name]) < 1
    assert float(fp8[name]) == 1.0  # never below 1, as ModelOpt writes it
    assert not torch.allclose(
        logits(quantized(llama(), "full_prec", kv_cache="int8")), original_logits(llama()), atol=1e-4
    )


def test_activations_are_cut_at_the_calibrated_maximum() -> None:
    scale = torch.tensor([0.5])
    assert RoundInt8(scale)(torch.tensor([0.26, 100.0, -100.0])).tolist() == [0.5, 63.5, -64.0]
    assert RoundFp8(scale)(torch.tensor([0.26, 1e6, -1e6])).tolist() == [0.25, 224.0, -224.0]


def test_the_folder_says_what_it_holds() -> None:
    config, folder = planned(llama(), QuantizeOptions("int4_awq", "int8", tp_size=2))
    assert folder.name == f"float16-int4_awq-g{config.quantization.group_size}-kv_int8-tp2"
    assert planned(llama(), QuantizeOptions("int8_sq", alpha=0.5))[1].name == "float16-int8_sq-a0.5-tp1"
    assert planned(llama(), QuantizeOptions(quantize_lm_head=True))[1].name == "float16-int8_wo-head-tp1"


@pytest.mark.real_model
def test_the_real_model_on_three_ranks(tmp_path: Path) -> None:
    model = fetch(DEFAULT_MODEL, progress=False)
    done = quantize_model(model, QuantizeOptions("int4_rtn", tp_size=3), output=tmp_path / "made")
    assert done.config.quantization.group_size == 64  # 576 and 1536 are odd multiples of 64 and of 512
    verdict = verify(done.folder, model)
    assert verdict.proven, str(verdict)
    assert "106,168,320 weights within half a step" in verdict.rungs[1].detail
