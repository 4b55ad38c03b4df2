"""ModelOpt exports the recipes that it calibrates by itself: its tensors are ours, or it is said why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints_made import tiny
from quantized_made import llama, quantized, text

from labsupport.checkpoint.quantize.recipes import QuantizeOptions
from labsupport.checkpoint.quantize.second_opinion import QuantizedOpinion, quantized_opinion
from labsupport.errors import CheckpointError

ROUNDING = 3e-7  # of float32, in another order of multiplying
CUTS = [{}, {"tp_size": 2}]


def opinion(model: Path, recipe: str, folder: Path, **options: Any) -> QuantizedOpinion:
    options["dtype"] = "float16"
    ours = quantized(model, recipe, **options)
    return quantized_opinion(ours, model, QuantizeOptions(recipe, **options), folder / "modelopt", text())


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_fp8_is_the_same_bit_for_bit(family: str, cut: dict[str, int], tmp_path: Path) -> None:
    found = opinion(llama() if family == "llama" else tiny(family), "fp8", tmp_path, kv_cache="fp8", **cut)
    assert found.tensors
    assert [one.name for one in found.tensors if one.equal < 1] == []
    assert found.only_ours == ()
    # the two that TensorRT-LLM before 0.17 did not know; their larger one is kv_cache_scaling_factor
    assert all(name.endswith(("k_cache_scaling_factor", "v_cache_scaling_factor")) for name in found.only_theirs)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("recipe", ["int4_awq", "int8_sq"])
def test_scales_agree_to_the_last_digit_and_whole_numbers_but_for_ties(
    recipe: str, cut: dict[str, int], tmp_path: Path
) -> None:
    found = opinion(llama(), recipe, tmp_path, **cut)
    assert (found.only_ours, found.only_theirs) == ((), ())
    for one in found.tensors:
        if one.name.endswith(".weight"):
            assert one.equal > 0.9995, one
            assert one.largest <= 1, one
        else:
            assert one.largest < ROUNDING, one


def test_after_averaging_the_factors_of_q_k_and_v_our_range_is_the_one_that_occurs(tmp_path: Path) -> None:
    """ModelOpt keeps the largest range from before the averaging, which is no longer that of the scaled input."""
    found = opinion(llama(), "int8_sq", tmp_path, alpha=0.5)
    differing = {
        one.name.split(" ")[1] for one in found.tensors if one.largest >= ROUNDING and "weight" not in one.name
    }
    assert differing == {f"transformer.layers.{layer}.attention.qkv.activation_scaling_factor" for layer in (0, 1)}


def test_a_family_that_it_does_not_export(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="ModelOpt does not export"):
        opinion(tiny("gemma3"), "fp8", tmp_path)
