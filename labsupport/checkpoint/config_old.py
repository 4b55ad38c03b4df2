"""The checkpoint schema of 2023, and its translation into today's.

The first checkpoints spelled quantization out in a dozen switches (``use_weight_only``, ``per_token``, ...). One field,
``quant_algo``, took their place in TensorRT-LLM 0.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_WEIGHT_ONLY = {"int8": "W8A16", "int4": "W4A16"}
_SMOOTH = {  # (per_channel, per_token) -> quant_algo
    (True, True): "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
    (True, False): "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    (False, True): "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN",
    (False, False): "W8A8_SQ_PER_TENSOR_PLUGIN",
}
_OLD = (
    "use_smooth_quant", "per_channel", "per_token", "per_group", "int8_kv_cache", "enable_fp8", "fp8_kv_cache",
    "use_weight_only", "weight_only_precision",
)  # fmt: skip


@dataclass(frozen=True)
class Translation:
    """A config in today's schema, and what was changed to get there, one sentence each."""

    config: dict[str, Any]
    changes: tuple[str, ...]


def old_keys(raw: dict[str, Any]) -> list[str]:
    """The keys of ``quantization`` that only the schema of 2023 has."""
    quantization = raw.get("quantization")
    return [key for key in _OLD if key in quantization] if isinstance(quantization, dict) else []


def translate(raw: dict[str, Any]) -> Translation:
    """Put a config of 2023 into today's schema. A config that already is in it comes back unchanged.

    Example:
        >>> translate({"quantization": {"use_weight_only": True, "weight_only_precision": "int4"}}).config
        {'quantization': {'quant_algo': 'W4A16', 'kv_cache_quant_algo': None}}
    """
    config, changes = dict(raw), []
    if found := old_keys(raw):
        old = raw["quantization"]
        config["quantization"] = new = _quantization(old)
        changes.append(f"quantization {', '.join(found)} -> quant_algo {new['quant_algo']}")
        if new["kv_cache_quant_algo"]:
            changes.append(f"the KV cache's switch -> kv_cache_quant_algo {new['kv_cache_quant_algo']}")
            changes.append("tensors kv_orig_quant_scale, kv_quant_orig_scale -> one kv_cache_scaling_factor")
    if "use_prompt_tuning" in config:
        del config["use_prompt_tuning"]
        changes.append("use_prompt_tuning -> trtllm-build --max_prompt_embedding_table_size")
    if "share_embedding_table" in config:
        config["tie_word_embeddings"] = config.pop("share_embedding_table") or config.get("tie_word_embeddings", False)
        changes.append("share_embedding_table -> gone: trtllm-build shares equal tables by itself")
    mapping = config.get("mapping")
    if isinstance(mapping, dict) and "pp_size" not in mapping:
        sizes = {"world_size": mapping.get("world_size", 1), "tp_size": mapping.get("tp_size", 1)}
        config["mapping"] = mapping | sizes | {"pp_size": 1}
        changes.append("mapping.pp_size: 1 written out")
    return Translation(config, tuple(changes))


def _quantization(old: dict[str, Any]) -> dict[str, Any]:
    cache = "FP8" if old.get("fp8_kv_cache") else "INT8" if old.get("int8_kv_cache") else None
    new: dict[str, Any] = {"quant_algo": old.get("quant_algo"), "kv_cache_quant_algo": cache}
    if old.get("use_smooth_quant"):
        new["quant_algo"] = _SMOOTH[bool(old.get("per_channel")), bool(old.get("per_token"))]
    elif old.get("enable_fp8"):
        new["quant_algo"] = "FP8"
    elif old.get("use_weight_only") and old.get("per_group"):  # of AWQ and GPTQ, only GPTQ has zero points
        gptq = bool(old.get("has_zero_point") or old.get("zero"))
        new |= {
            "quant_algo": "W4A16_GPTQ" if gptq else "W4A16_AWQ",
            "group_size": old.get("group_size", 64),
            "has_zero_point": gptq,
            "pre_quant_scale": not gptq,
        }
    elif old.get("use_weight_only"):
        new["quant_algo"] = _WEIGHT_ONLY[old.get("weight_only_precision", "int8")]
    return new
