"""What each family adds to the config, and what it allows.

Source: TensorRT-LLM 0.20, ``tensorrt_llm/models/{llama,gemma,gpt,opt,qwen}/config.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import model_validator

from labsupport.checkpoint.config import CheckpointConfig, PositionEmbedding
from labsupport.errors import CheckpointError


class RotaryConfig(CheckpointConfig):
    """The newer decoders: rotary positions, and biases only where the config says so."""

    position_embedding_type: PositionEmbedding = "rope_gpt_neox"
    attn_bias: bool = False
    mlp_bias: bool = False
    rotary_base: float = 10000.0
    rotary_scaling: dict[str, Any] | None = None

    @property
    def attn_has_bias(self) -> bool:
        return self.attn_bias

    @property
    def mlp_has_bias(self) -> bool:
        return self.mlp_bias


class LlamaConfig(RotaryConfig):
    """LLaMA and Mistral."""

    residual_mlp: bool = False
    disable_weight_only_quant_plugin: bool = False
    remove_duplicated_kv_heads: bool = False
    embedding_multiplier: float = 1.0
    attention_multiplier: float = 1.0
    residual_multiplier: float = 1.0
    output_multiplier_scale: float = 1.0

    @property
    def dense_has_bias(self) -> bool:
        return self.attn_bias


class GemmaConfig(RotaryConfig):
    """Gemma 1, 2 and 3 (text).

    The attention's scores are divided by ``sqrt(query_pre_attn_scalar)``; TensorRT-LLM calls the ratio to
    ``sqrt(head_size)`` ``q_scaling``. Layer i (from 0) of Gemma 3 is local when ``(i + 1) % sliding_window_pattern``.
    TensorRT-LLM splits the embedding whenever ``tp_size > 1``, whatever the file says; so does this config.
    """

    norm_epsilon: float = 1e-6
    tie_word_embeddings: bool = True
    inter_layernorms: bool = False
    query_pre_attn_scalar: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    sliding_window_pattern: int | None = None
    sliding_window: int | None = None
    rope_local_base_freq: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _as_gemma_loads_it(cls, raw: dict[str, Any]) -> dict[str, Any]:
        given = dict(raw)
        later = given.get("architecture") in ("Gemma2ForCausalLM", "Gemma3ForCausalLM")
        given.setdefault("inter_layernorms", later)
        given.setdefault("qk_layernorm", given.get("architecture") == "Gemma3ForCausalLM")
        if given.get("sliding_window_pattern") is None:  # the name that TensorRT-LLM 1.0 and later give it
            given["sliding_window_pattern"] = given.get("_sliding_window_pattern")
        mapping = given.get("mapping")
        tp_size = mapping.get("tp_size", 1) if isinstance(mapping, dict) else getattr(mapping, "tp_size", 1)
        given["use_parallel_embedding"] = tp_size > 1
        return given

    @property
    def dense_has_bias(self) -> bool:
        return self.attn_bias


class BiasedConfig(CheckpointConfig):
    """The older decoders: every linear layer has a bias, and the table of tokens is the output layer."""

    tie_word_embeddings: bool = True

    @property
    def attn_has_bias(self) -> bool:
        return True

    @property
    def dense_has_bias(self) -> bool:
        return True

    @property
    def mlp_has_bias(self) -> bool:
        return True

    @property
    def norm_has_bias(self) -> bool:
        return True


class GPTConfig(BiasedConfig):
    """GPT-2."""

    gpt_variant: str = "gpt2"
    bias: bool = True
    q_scaling: float = 1.0
    embedding_scale: float | None = None
    apply_query_key_layer_scaling: bool = False
    rotary_pct: float = 1.0
    rotary_base: float = 10000.0
    rotary_scaling: dict[str, Any] | None = None
    inner_layernorm: bool = False
    norm_before_bmm1: bool = False


class OPTConfig(BiasedConfig):
    """OPT. ``do_layer_norm_before`` counts as false when it is missing, so it is always written."""

    do_layer_norm_before: bool = False


class QWenConfig(RotaryConfig):
    """Qwen2 and Qwen3. Only the qkv projection has a bias, and in Qwen3 not even that."""

    qwen_type: str = "qwen2"
    attn_bias: bool = True
    rotary_base: float = 100000.0
    use_logn_attn: bool = False
    disable_weight_only_quant_plugin: bool = False
    seq_length: int = 8192
    moe_intermediate_size: int = 0
    moe_shared_expert_intermediate_size: int = 0
    num_labels: int = 1

    @model_validator(mode="before")
    @classmethod
    def _third_generation(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """Qwen3 has norms on queries and keys where Qwen2 has a bias; ModelOpt leaves it to the reader to know."""
        third = {"qwen_type": "qwen3", "attn_bias": False, "qk_layernorm": True}
        return (third if raw.get("architecture") == "Qwen3ForCausalLM" else {}) | raw


@dataclass(frozen=True)
class Family:
    """A group of models with one tensor layout.

    Args:
        name: the family's name, also of its table in ``layout``.
        architecture: the string of ``config.json``, the same at Hugging Face and in TensorRT-LLM.
        model_types: the ``model_type`` values of Hugging Face configs.
        config: the class that its config is parsed into.
        pipeline: whether TensorRT-LLM's converter splits it into pipeline stages.
        shares_kv: whether, with fewer KV heads than ranks, heads are repeated (Gemma: only a single one is).
    """

    name: str
    architecture: str
    model_types: tuple[str, ...]
    config: type[CheckpointConfig]
    pipeline: bool = True
    shares_kv: bool = True


FAMILIES = (
    Family("llama", "LlamaForCausalLM", ("llama",), LlamaConfig),
    Family("mistral", "MistralForCausalLM", ("mistral",), LlamaConfig),
    Family("gemma", "GemmaForCausalLM", ("gemma",), GemmaConfig, pipeline=False, shares_kv=False),
    Family("gemma2", "Gemma2ForCausalLM", ("gemma2",), GemmaConfig, pipeline=False, shares_kv=False),
    Family("gemma3", "Gemma3ForCausalLM", ("gemma3_text",), GemmaConfig, pipeline=False, shares_kv=False),
    Family("opt", "OPTForCausalLM", ("opt",), OPTConfig, pipeline=False),
    Family("gpt2", "GPT2LMHeadModel", ("gpt2",), GPTConfig),
    Family("qwen2", "Qwen2ForCausalLM", ("qwen2",), QWenConfig),
    Family("qwen3", "Qwen3ForCausalLM", ("qwen3",), QWenConfig),
)

_ALIASES = {"GPTForCausalLM": "GPT2LMHeadModel"}  # ModelOpt and older converters write the class, not the model


def family_of(architecture: str | None, origin: str = "config.json") -> Family:
    """The family of an ``architecture``.

    Raises:
        CheckpointError: it is none of ``FAMILIES``.
    """
    wanted = _ALIASES.get(str(architecture), architecture)
    for family in FAMILIES:
        if family.architecture == wanted:
            return family
    raise CheckpointError(
        f"{origin}: the architecture {architecture!r} is not one the labs convert",
        why="each family needs its own table of names, and there is none for this one",
        fix="use one of " + ", ".join(family.architecture for family in FAMILIES),
    )
