"""ModelOpt exports the same models to the same format: its tensors and ours are equal, and where not, it is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints_made import converted, spoiled, tiny

from labsupport.checkpoint.convert import convert
from labsupport.checkpoint.convert_plan import Options
from labsupport.checkpoint.second_opinion import DECODER_TYPES, export, second_opinion
from labsupport.checkpoint.verify import verify
from labsupport.errors import CheckpointError, ParameterError
from labsupport.models import DEFAULT_MODEL, fetch

# ModelOpt always splits the embedding over the ranks (use_parallel_embedding true, dim 0) and never writes float32.
AS_MODELOPT = {"dtype": "float16", "use_parallel_embedding": True}

# Where ModelOpt 0.47 differs, outside TensorRT-LLM's container and with transformers 5. No difference is in a tensor
# that both have; its config is the poorer one:
TIED_HEAD = ("gemma",)  # it leaves out lm_head.weight of a tied model that it takes for one; we always write it
LOST_IN_CONFIG = {
    "llama": [],
    "mistral": [],
    "gemma": [],
    "gpt2": ["position_embedding_type 'rope_gpt_neox'"],  # GPT-2's positions are learned
    "qwen2": ["rotary_base 100000.0"],  # rope_theta moved inside transformers' config: it is not written, and
    "qwen3": ["rotary_base 100000.0"],  # QWen's default steps in
}


CUTS: list[dict[str, int]] = [{}, {"tp_size": 2}, {"tp_size": 2, "pp_size": 2}]


@pytest.mark.parametrize(
    ("family", "cut"),
    [(family, cut) for family in DECODER_TYPES for cut in CUTS if family != "gemma" or "pp_size" not in cut],
)
def test_tensors_are_equal_bit_for_bit(family: str, cut: dict[str, int], tmp_path: Path) -> None:
    model = tiny(family)
    opinion = second_opinion(converted(model, **AS_MODELOPT, **cut), model, tmp_path / "modelopt")
    heads = [(f"rank{rank}.safetensors", "lm_head.weight", None) for rank in range(cut.get("tp_size", 1))]
    assert [(one.where, one.name, one.theirs) for one in opinion.differences] == (heads if family in TIED_HEAD else [])
    assert opinion.tensors > 30
    assert [sentence.split(" where ")[0].removeprefix("config.json has ") for sentence in opinion.config] == (
        LOST_IN_CONFIG[family]
    )


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "opt"])
def test_what_modelopt_does_not_export(family: str, tmp_path: Path) -> None:
    model = tiny(family)
    with pytest.raises(CheckpointError, match="ModelOpt does not export"):
        second_opinion(converted(model, dtype="float16"), model, tmp_path / "modelopt")


def test_a_difference_in_one_bit_is_seen(tmp_path: Path) -> None:
    model = tiny("llama")
    ours = converted(model, **AS_MODELOPT)
    name = "transformer.layers.2.attention.qkv.weight"
    nudged = spoiled(ours, tmp_path / "c", tensors=lambda held: held[name].view(-1)[5].mul_(1.001))
    assert [one.name for one in second_opinion(nudged, model, tmp_path / "modelopt").differences] == [name]


def test_verify_runs_modelopts_export_and_names_the_field_it_lost(tmp_path: Path) -> None:
    """The tensors are right, so structure and round trip pass: only execution sees it."""
    model = tiny("qwen2")
    verdict = verify(export(model, "qwen", tmp_path / "modelopt", tp_size=2), model)
    assert [rung.status for rung in verdict.rungs] == ["passed", "passed", "failed"]
    assert verdict.first_fault is not None
    assert "rotary_base 100000.0 where the original makes it 10000.0" in verdict.first_fault.why


def test_verify_needs_no_original_to_see_what_qwen3s_export_lacks(tmp_path: Path) -> None:
    verdict = verify(export(tiny("qwen3"), "qwen", tmp_path / "modelopt"))
    assert [fault.what.rpartition(" lacks ")[2] for fault in verdict.faults] == ["'qk_layernorm'", "'attn_bias'"]
    assert ["rotary_base" in warning.what for warning in verdict.warnings] == [True]


def test_verify_passes_an_export_that_is_right(tmp_path: Path) -> None:
    model = tiny("llama")
    verdict = verify(export(model, "llama", tmp_path / "modelopt", tp_size=2, pp_size=2), model)
    assert verdict.proven, str(verdict)


@pytest.mark.real_model
def test_the_real_model(tmp_path: Path) -> None:
    model = fetch(DEFAULT_MODEL, progress=False)
    ours = convert(
        model, Options(dtype="float16", tp_size=3, use_parallel_embedding=True), output=tmp_path / "ours"
    ).folder
    opinion = second_opinion(ours, model, tmp_path / "modelopt")
    assert opinion.differences == ()
    assert opinion.tensors == 3 * 213  # 30 layers of 7, two tables, one norm
    # its theta is 100,000, and LLaMA's default of 10,000 would step in
    assert opinion.config == ("config.json has rotary_base 10000.0 where the original makes it 100000.0",)


@pytest.mark.real_model
def test_a_head_cut_in_two_is_refused_by_us_and_rejected_by_verify(tmp_path: Path) -> None:
    model = fetch(DEFAULT_MODEL, progress=False)
    with pytest.raises(ParameterError, match="tp_size 2 does not fit") as refusal:
        convert(model, Options(tp_size=2), output=tmp_path / "ours")
    assert "9 attention heads do not divide by 2" in refusal.value.why
    theirs = export(model, "llama", tmp_path / "modelopt", tp_size=2)  # without complaint
    verdict = verify(theirs, model)
    assert not verdict.passed
    assert verdict.first_fault is not None
    assert verdict.first_fault.rule == "mapping"
    assert "a head must not be cut in two" in verdict.first_fault.why
