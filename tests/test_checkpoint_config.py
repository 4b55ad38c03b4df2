"""The config of a checkpoint: read as strictly as TensorRT-LLM reads it, and the schema of 2023 translated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labsupport.checkpoint.config import Mapping, QuantConfig, parse_config, read_config, write_config
from labsupport.checkpoint.config_families import FAMILIES, GemmaConfig
from labsupport.checkpoint.config_hf import config_from_hf
from labsupport.checkpoint.config_old import translate
from labsupport.errors import CheckpointError, ParameterError
from labsupport.models.tiny import make_tiny

# The example of the old documentation: OPT-125M over two GPUs
OPT_2023: dict[str, Any] = {
    "architecture": "OPTForCausalLM", "dtype": "float16", "logits_dtype": "float32", "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_size": 768, "vocab_size": 50272, "position_embedding_type": "learned_absolute",
    "max_position_embeddings": 2048, "hidden_act": "relu",
    "quantization": {"use_weight_only": False, "weight_only_precision": "int8"},
    "mapping": {"world_size": 2, "tp_size": 2}, "use_parallel_embedding": False, "embedding_sharding_dim": 0,
    "share_embedding_table": False, "do_layer_norm_before": True, "use_prompt_tuning": False,
}  # fmt: skip
OPT = OPT_2023 | {"quantization": {"quant_algo": None}}


def hf_config(family: str, folder: Path, **overrides: Any) -> dict[str, Any]:
    raw: dict[str, Any] = json.loads((make_tiny(family, folder) / "config.json").read_text())
    return raw | overrides


@pytest.mark.parametrize("family", [family.name for family in FAMILIES])
def test_what_is_written_is_read_back(family: str, tmp_path: Path) -> None:
    config = config_from_hf(hf_config(family, tmp_path / "model"), dtype="bfloat16", mapping=Mapping.of(2))
    write_config(config, tmp_path / "checkpoint")
    assert read_config(tmp_path / "checkpoint") == config
    assert type(config) is next(one.config for one in FAMILIES if one.name == family)


def test_mapping_and_quantization_hold_only_keys_that_every_version_accepts(tmp_path: Path) -> None:
    written = config_from_hf(hf_config("llama", tmp_path), dtype="float32", mapping=Mapping.of(2, 2)).to_json()
    assert written["mapping"] == {"world_size": 4, "tp_size": 2, "pp_size": 2}
    assert written["quantization"] == {"quant_algo": None, "kv_cache_quant_algo": None}
    awq = QuantConfig(quant_algo="W4A16_AWQ", group_size=64, pre_quant_scale=True, exclude_modules=("lm_head",))
    quantized = config_from_hf(hf_config("llama", tmp_path / "2"), dtype="float16", quantization=awq).to_json()
    assert quantized["quantization"] == {
        "quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": None, "group_size": 64, "pre_quant_scale": True,
        "exclude_modules": ["lm_head"],
    }  # fmt: skip


def test_defaults_are_those_of_tensorrt_llm() -> None:
    small = {"architecture": "LlamaForCausalLM", "dtype": "float16", "hidden_size": 48, "num_hidden_layers": 1,
             "num_attention_heads": 4, "vocab_size": 10}  # fmt: skip
    config = parse_config(small)
    assert (config.num_key_value_heads, config.head_size, config.intermediate_size) == (4, 12, 192)
    assert (config.norm_epsilon, config.logits_dtype, config.hidden_act) == (1e-5, "float32", "gelu")
    assert (config.quantization.group_size, config.quantization.smoothquant_val) == (128, 0.5)
    opt = parse_config(small | {"architecture": "OPTForCausalLM"})
    assert opt.do_layer_norm_before is False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("section", "key"), [("quantization", "quant_method"), ("mapping", "expert_parallel"), ("mapping", "tp")]
)
def test_an_unknown_key_in_mapping_or_quantization_is_fatal(section: str, key: str) -> None:
    raw = OPT | {section: {**OPT[section], key: 1}}
    with pytest.raises(CheckpointError, match=rf"unknown key '{section}\.{key}'") as caught:
        parse_config(raw)
    assert "TypeError" in caught.value.why
    assert "world_size" in caught.value.fix or "quant_algo" in caught.value.fix


def test_an_unknown_key_at_the_top_is_kept(tmp_path: Path) -> None:
    config = parse_config(OPT | {"producer": {"name": "modelopt"}})
    write_config(config, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["producer"] == {"name": "modelopt"}


@pytest.mark.parametrize("field", ["dtype", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(CheckpointError, match=f"lacks '{field}'"):
        parse_config({key: value for key, value in OPT.items() if key != field})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "int8"}, "'dtype' is 'int8'"),
        ({"architecture": "BertModel"}, "architecture 'BertModel' is not one"),
        ({"quantization": {"quant_algo": "W3A16"}}, r"quant_algo' is 'W3A16'"),
        ({"mapping": {"world_size": 4, "tp_size": 2}}, "mapping"),
        ({"num_attention_heads": "twelve"}, "num_attention_heads"),
    ],
)
def test_an_impossible_value_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse_config(OPT | change)


def test_the_schema_of_2023_is_recognized_and_translated() -> None:
    with pytest.raises(CheckpointError, match=r"schema of 2023.*use_weight_only") as caught:
        parse_config(OPT_2023)
    assert "labs inspect --translate" in caught.value.fix
    done = translate(OPT_2023)
    assert "use_prompt_tuning" not in done.config
    assert "share_embedding_table" not in done.config
    config = parse_config(done.config)
    assert config.mapping == Mapping(world_size=2, tp_size=2, pp_size=1)
    assert len(done.changes) == 4
    assert translate(done.config).changes == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"use_weight_only": True, "weight_only_precision": "int8"}, {"quant_algo": "W8A16"}),
        ({"use_weight_only": True, "weight_only_precision": "int4"}, {"quant_algo": "W4A16"}),
        (
            {"use_weight_only": True, "weight_only_precision": "int4", "per_group": True},
            {"quant_algo": "W4A16_AWQ", "group_size": 64, "pre_quant_scale": True, "has_zero_point": False},
        ),
        (
            {"use_weight_only": True, "weight_only_precision": "int4", "per_group": True, "has_zero_point": True},
            {"quant_algo": "W4A16_GPTQ", "has_zero_point": True, "pre_quant_scale": False},
        ),
        ({"use_smooth_quant": True, "per_channel": True, "per_token": True},
         {"quant_algo": "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN"}),
        ({"use_smooth_quant": True, "per_channel": True}, {"quant_algo": "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN"}),
        ({"use_smooth_quant": True, "per_token": True}, {"quant_algo": "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN"}),
        ({"use_smooth_quant": True}, {"quant_algo": "W8A8_SQ_PER_TENSOR_PLUGIN"}),
        ({"enable_fp8": True, "fp8_kv_cache": True}, {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}),
        ({"int8_kv_cache": True}, {"quant_algo": None, "kv_cache_quant_algo": "INT8"}),
    ],
)  # fmt: skip
def test_every_old_switch_has_its_quant_algo(old: dict[str, Any], new: dict[str, Any]) -> None:
    config = parse_config(translate(OPT_2023 | {"quantization": old}).config)
    assert {key: getattr(config.quantization, key) for key in new} == new


def test_rope_is_read_from_both_generations_of_config_files(tmp_path: Path) -> None:
    new = hf_config("llama", tmp_path)
    old = {key: value for key, value in new.items() if key not in ("rope_parameters", "rope_theta")}
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
    for hf in (
        old | {"rope_theta": 500000.0, "rope_scaling": scaling},
        old | {"rope_parameters": {"rope_theta": 500000.0, **scaling}},
    ):
        config = config_from_hf(hf, dtype="float32").to_json()
        assert (config["rotary_base"], config["rotary_scaling"]) == (500000.0, scaling)


def test_gemma_3_says_which_layers_are_local_in_both_spellings(tmp_path: Path) -> None:
    hf = hf_config("gemma3", tmp_path)
    config = config_from_hf(hf, dtype="float32")
    assert isinstance(config, GemmaConfig)
    pattern = config.sliding_window_pattern or 0
    assert [bool((i + 1) % pattern) for i in range(4)] == [kind == "sliding_attention" for kind in hf["layer_types"]]
    assert config.to_json()["_sliding_window_pattern"] == pattern
    odd = hf | {"layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]}
    with pytest.raises(CheckpointError, match="layer_types"):
        config_from_hf(odd, dtype="float32")


@pytest.mark.parametrize("tp_size", [1, 2])
def test_gemma_splits_its_embedding_whenever_there_are_ranks(tp_size: int, tmp_path: Path) -> None:
    config = config_from_hf(hf_config("gemma", tmp_path), dtype="float32", mapping=Mapping.of(tp_size))
    assert config.use_parallel_embedding is (tp_size > 1)


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("opt", {"word_embed_proj_dim": 32}),
        ("opt", {"enable_bias": False}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("qwen2", {"use_sliding_window": True}),
        ("qwen3", {"attention_bias": True}),
        ("llama", {"partial_rotary_factor": 0.5}),
        ("llama", {"quantization_config": {"quant_method": "awq"}}),
    ],
)
def test_what_a_checkpoint_cannot_say_is_refused_by_name(family: str, change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=next(iter(change))):
        config_from_hf(hf_config(family, tmp_path, **change), dtype="float32")


def test_dtype_is_one_of_three(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="dtype 'int8'"):
        config_from_hf(hf_config("llama", tmp_path), dtype="int8")


def test_layers_are_dealt_to_stages_as_tensor_split_does() -> None:
    config = parse_config(OPT | {"architecture": "GPT2LMHeadModel", "mapping": {"world_size": 5, "pp_size": 5}})
    assert [list(config.layers_of(rank)) for rank in range(5)] == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9], [10, 11]]
    two = parse_config(OPT | {"architecture": "GPT2LMHeadModel", "mapping": Mapping.of(2, 2).model_dump()})
    assert [two.mapping.pp_rank(rank) for rank in range(4)] == [0, 0, 1, 1]
    assert [two.mapping.tp_rank(rank) for rank in range(4)] == [0, 1, 0, 1]
