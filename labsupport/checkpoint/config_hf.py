"""A Hugging Face ``config.json`` into the config of a TensorRT-LLM checkpoint.

What a checkpoint cannot express is refused by name, rather than converted into something that computes another model.

Source: ``from_hugging_face`` of TensorRT-LLM 0.20's config classes. Hugging Face files of transformers 4
(``rope_theta``, ``rope_scaling``) and 5 (``rope_parameters``) are both read.
"""

from __future__ import annotations

from typing import Any

from labsupport.checkpoint.config import CheckpointConfig, Mapping, QuantConfig, validated
from labsupport.checkpoint.config_families import FAMILIES, Family
from labsupport.errors import CheckpointError, ParameterError

DTYPES = ("float32", "float16", "bfloat16")


def hf_family(hf: dict[str, Any], origin: str = "config.json") -> Family:
    """The family of a Hugging Face config, by ``model_type``, else by ``architectures``.

    Raises:
        CheckpointError: no family has it.
    """
    architectures = hf.get("architectures") or []
    for family in FAMILIES:
        if hf.get("model_type") in family.model_types or family.architecture in architectures:
            return family
    hint = "; a vision-language Gemma 3 holds its text model inside" if hf.get("model_type") == "gemma3" else ""
    raise CheckpointError(
        f"{origin}: model_type {hf.get('model_type')!r} (architectures {architectures}) is not one the labs convert",
        why=f"each family needs its own table of names, and there is none for this one{hint}",
        fix="use a model of " + ", ".join(family.name for family in FAMILIES),
    )


def config_from_hf(
    hf: dict[str, Any],
    *,
    dtype: str,
    mapping: Mapping | None = None,
    quantization: QuantConfig | None = None,
    use_parallel_embedding: bool = False,
    embedding_sharding_dim: int = 0,
    origin: str = "config.json",
) -> CheckpointConfig:
    """The checkpoint's config for a Hugging Face model.

    Args:
        hf: the parsed ``config.json`` of the model.
        dtype: float32, float16 or bfloat16.
        mapping: the ranks; one if it is missing.
        origin: what to call the file in a message.

    Raises:
        CheckpointError: the family is unknown, or the model has a part that a checkpoint cannot express.
        ParameterError: the dtype is not one of the three, or the mapping does not fit.
    """
    from labsupport.checkpoint.layout_cut import check_mapping

    if dtype not in DTYPES:
        raise ParameterError(
            f"dtype {dtype!r} is not one a checkpoint can have",
            why="TensorRT-LLM's float checkpoints are float32, float16 or bfloat16",
            fix="use --dtype " + ", ".join(DTYPES),
        )
    family = hf_family(hf, origin)
    read = {"opt": _opt, "gpt2": _gpt2}.get(family.name, _rotary)
    try:
        _refuse(hf, family, origin)
        fields = read(hf, family) | {"vocab_size": hf["vocab_size"]}
    except KeyError as missing:
        raise CheckpointError(
            f"{origin} lacks '{missing.args[0]}'",
            why="the size of the model's tensors follows from it",
            fix="get config.json again, from the same place as the weights",
        ) from None
    fields |= {
        "architecture": family.architecture,
        "dtype": dtype,
        "mapping": mapping or Mapping(),
        "quantization": quantization or QuantConfig(),
        "use_parallel_embedding": use_parallel_embedding,  # Gemma's class decides by itself
        "embedding_sharding_dim": embedding_sharding_dim,
    }
    config = validated(family.config, fields, origin)
    check_mapping(config)
    return config


def _rotary(hf: dict[str, Any], family: Family) -> dict[str, Any]:
    """Llama, Mistral, Qwen and Gemma: RMSNorm, rotary positions, a gated feed-forward."""
    base, scaling = _rope(hf)
    fields = {
        "hidden_size": hf["hidden_size"],
        "num_hidden_layers": hf["num_hidden_layers"],
        "num_attention_heads": hf["num_attention_heads"],
        "num_key_value_heads": hf.get("num_key_value_heads"),
        "head_size": hf.get("head_dim"),
        "intermediate_size": hf["intermediate_size"],
        "hidden_act": hf.get("hidden_act", "silu"),
        "norm_epsilon": hf.get("rms_norm_eps", 1e-6),
        "max_position_embeddings": hf.get("max_position_embeddings"),
        "position_embedding_type": "rope_gpt_neox",
        "rotary_base": base,
        "rotary_scaling": scaling,
        "tie_word_embeddings": bool(hf.get("tie_word_embeddings", family.name.startswith("gemma"))),
        "attn_bias": bool(hf.get("attention_bias", False)),
        "mlp_bias": bool(hf.get("mlp_bias", False)),
    }
    if family.name.startswith("qwen"):
        fields |= {"qwen_type": family.name, "attn_bias": family.name == "qwen2", "mlp_bias": False}
        fields |= {"seq_length": hf.get("max_position_embeddings", 8192), "qk_layernorm": family.name == "qwen3"}
    if family.name == "mistral" and hf.get("sliding_window"):
        fields["sliding_window"] = hf["sliding_window"]
    if family.name.startswith("gemma"):
        fields |= _gemma(hf, family)
    return fields


def _gemma(hf: dict[str, Any], family: Family) -> dict[str, Any]:
    # Gemma 1 was published with hidden_act "gelu" and trained with the tanh form, which is what everybody computes
    fields: dict[str, Any] = {"hidden_act": "gelu_pytorch_tanh", "head_size": hf.get("head_dim", 256)}
    if family.name == "gemma":
        return fields
    fields |= {
        "inter_layernorms": True,
        "query_pre_attn_scalar": hf.get("query_pre_attn_scalar", 256),
        "attn_logit_softcapping": hf.get("attn_logit_softcapping"),
        "final_logit_softcapping": hf.get("final_logit_softcapping"),
        "sliding_window": hf.get("sliding_window", 4096),
    }
    if family.name == "gemma3":
        pattern = _window_pattern(hf)
        local = (hf.get("rope_parameters") or {}).get("sliding_attention", {}).get("rope_theta")
        fields |= {
            "qk_layernorm": True,
            "sliding_window_pattern": pattern,
            "_sliding_window_pattern": pattern,  # the name since TensorRT-LLM 1.0; each version ignores the other's
            "rope_local_base_freq": local or hf.get("rope_local_base_freq", 10000.0),
        }
    return fields


def _gpt2(hf: dict[str, Any], _family: Family) -> dict[str, Any]:
    return {
        "hidden_size": hf["n_embd"],
        "num_hidden_layers": hf["n_layer"],
        "num_attention_heads": hf["n_head"],
        "intermediate_size": hf.get("n_inner"),
        "hidden_act": hf.get("activation_function", "gelu_new"),
        "norm_epsilon": hf.get("layer_norm_epsilon", 1e-5),
        "max_position_embeddings": hf["n_positions"],
        "tie_word_embeddings": bool(hf.get("tie_word_embeddings", True)),
    }


def _opt(hf: dict[str, Any], _family: Family) -> dict[str, Any]:
    return {
        "hidden_size": hf["hidden_size"],
        "num_hidden_layers": hf["num_hidden_layers"],
        "num_attention_heads": hf["num_attention_heads"],
        "intermediate_size": hf["ffn_dim"],
        "hidden_act": hf.get("activation_function", "relu"),
        "max_position_embeddings": hf["max_position_embeddings"],
        "do_layer_norm_before": bool(hf.get("do_layer_norm_before", True)),
        "tie_word_embeddings": bool(hf.get("tie_word_embeddings", True)),
    }


def _rope(hf: dict[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """The base of the rotary positions, and their scaling, from either generation of config files."""
    parameters = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    parameters = dict(parameters.get("full_attention", parameters))  # Gemma 3 has one set for each kind of layer
    default = 1_000_000.0 if hf.get("model_type") == "gemma3_text" else 10000.0
    base = float(parameters.pop("rope_theta", None) or hf.get("rope_theta") or default)
    kind = parameters.get("rope_type") or parameters.get("type") or "default"
    return base, None if kind == "default" else parameters


def _window_pattern(hf: dict[str, Any]) -> int:
    """Every how many layers of Gemma 3 one attends to everything; the list of layers, where given, decides."""
    kinds = hf.get("layer_types") or []
    if "full_attention" in kinds:
        return int(kinds.index("full_attention")) + 1
    return int(hf.get("sliding_window_pattern") or hf.get("_sliding_window_pattern") or 6)


def _refuse(hf: dict[str, Any], family: Family, origin: str) -> None:
    """Stop at what the checkpoint format, or its engine, has no place for."""
    pattern, kinds = _window_pattern(hf), hf.get("layer_types") or []
    rope = hf.get("rope_parameters") or {}
    partial = rope.get("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0))
    unsupported = {
        "layer_types": family.name == "gemma3"
        and any((kind == "sliding_attention") != bool((i + 1) % pattern) for i, kind in enumerate(kinds)),
        "use_sliding_window": family.name.startswith("qwen") and bool(hf.get("use_sliding_window")),
        "attention_bias": family.name == "qwen3" and bool(hf.get("attention_bias")),
        "use_bidirectional_attention": bool(hf.get("use_bidirectional_attention")),
        "partial_rotary_factor": partial not in (None, 1.0),
        "word_embed_proj_dim": family.name == "opt" and hf.get("word_embed_proj_dim") not in (None, hf["hidden_size"]),
        "enable_bias": family.name == "opt" and hf.get("enable_bias") is False,
        "layer_norm_elementwise_affine": family.name == "opt" and hf.get("layer_norm_elementwise_affine") is False,
        "_remove_final_layer_norm": family.name == "opt" and bool(hf.get("_remove_final_layer_norm")),
        "scale_attn_by_inverse_layer_idx": bool(hf.get("scale_attn_by_inverse_layer_idx")),
        "scale_attn_weights": hf.get("scale_attn_weights") is False,
        "add_cross_attention": bool(hf.get("add_cross_attention")),
        "quantization_config": bool(hf.get("quantization_config")),
    }
    for key, found in unsupported.items():
        if found:
            raise CheckpointError(
                f"{origin}: {key} = {str(hf.get(key))[:80]} has no counterpart in a {family.architecture} checkpoint",
                why="a checkpoint without it would compute another model",
                fix="convert the unquantized model that it was made from"
                if key == "quantization_config"
                else "use a model of this family without it, or serve it with trtllm-serve (PyTorch backend)",
            )
