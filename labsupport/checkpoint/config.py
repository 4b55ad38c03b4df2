"""The ``config.json`` of a TensorRT-LLM checkpoint, as data.

Read as strictly as TensorRT-LLM reads it: an unknown key inside ``mapping`` or ``quantization`` is fatal (they are
passed on as keyword arguments), an unknown key at the top is kept (it becomes an attribute, with a warning).

Source: TensorRT-LLM 0.20, ``tensorrt_llm/models/modeling_utils.py`` (PretrainedConfig, QuantConfig) and
``tensorrt_llm/mapping.py``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labsupport.errors import CheckpointError
from labsupport.workspace import atomic_text

CONFIG = "config.json"

Dtype = Literal["float32", "float16", "bfloat16"]
QuantAlgo = Literal[
    "W8A16", "W4A16", "W4A16_AWQ", "W4A8_AWQ", "W8A16_GPTQ", "W4A16_GPTQ", "W8A8_SQ_PER_CHANNEL",
    "W8A8_SQ_PER_TENSOR_PLUGIN", "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN", "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN",
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN", "W4A8_QSERVE_PER_GROUP", "W4A8_QSERVE_PER_CHANNEL", "FP8",
    "FP8_PER_CHANNEL_PER_TOKEN", "FP8_BLOCK_SCALES", "INT8", "MIXED_PRECISION", "NVFP4", "NO_QUANT",
    "W4A8_MXFP4_FP8", "W4A8_MXFP4_MXFP8", "W4A16_MXFP4", "W4A8_NVFP4_FP8",
]  # fmt: skip
PositionEmbedding = Literal[
    "learned_absolute", "rope_gptj", "rope_gpt_neox", "long_rope", "alibi", "alibi_with_scale", "relative", "chatglm",
    "yarn", "mrope", "deferred",
]  # fmt: skip


class QuantConfig(BaseModel):
    """``quantization``: what the tensors hold, and what trtllm-build does with them. Any other key is fatal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quant_algo: QuantAlgo | None = None
    kv_cache_quant_algo: Literal["FP8", "INT8", "NVFP4"] | None = None
    group_size: int = 128
    smoothquant_val: float = 0.5
    clamp_val: tuple[float, float] | None = None
    use_meta_recipe: bool = False
    has_zero_point: bool = False
    pre_quant_scale: bool = False
    exclude_modules: tuple[str, ...] | None = None

    @property
    def quantized(self) -> bool:
        """Whether any weight is meant to be stored in fewer bits."""
        return self.quant_algo not in (None, "NO_QUANT")


class Mapping(BaseModel):
    """``mapping``: how the model is spread over ranks. Any other key is fatal.

    A global rank is ``pp_rank * tp_size + tp_rank``: tensor-parallel neighbors come first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    world_size: int = Field(default=1, ge=1)
    tp_size: int = Field(default=1, ge=1)
    pp_size: int = Field(default=1, ge=1)
    cp_size: int = Field(default=1, ge=1)
    rank: int = 0
    gpus_per_node: int = 8
    cp_config: dict[str, Any] | None = None
    moe_cluster_size: int = -1
    moe_tp_size: int = -1
    moe_ep_size: int = -1
    attn_tp_size: int = -1
    attn_cp_size: int = -1
    auto_parallel: bool = False
    enable_attention_dp: bool = False

    @model_validator(mode="after")
    def _world_is_the_product(self) -> Mapping:
        if self.tp_size * self.pp_size * self.cp_size != self.world_size:
            raise ValueError(
                f"world_size {self.world_size} is not tp_size {self.tp_size} x pp_size {self.pp_size}"
                f" x cp_size {self.cp_size}"
            )
        return self

    @classmethod
    def of(cls, tp_size: int = 1, pp_size: int = 1) -> Mapping:
        """The mapping of ``tp_size * pp_size`` ranks."""
        return cls(world_size=tp_size * pp_size, tp_size=tp_size, pp_size=pp_size)

    @property
    def files(self) -> int:
        """How many rank files there are; context-parallel ranks read the file of their (tp, pp) pair."""
        return self.tp_size * self.pp_size

    def tp_rank(self, rank: int) -> int:
        """The tensor-parallel coordinate of a rank file."""
        return rank % self.tp_size

    def pp_rank(self, rank: int) -> int:
        """The pipeline coordinate of a rank file."""
        return rank // self.tp_size


class CheckpointConfig(BaseModel):
    """The fields that every model has; ``config_families`` adds each family's own.

    Sizes are those of the whole model, never of one rank. ``intermediate_size``, ``num_key_value_heads`` and
    ``head_size`` are filled in as TensorRT-LLM does when they are missing.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    architecture: str
    dtype: Dtype
    hidden_size: int = Field(ge=1)
    num_hidden_layers: int = Field(ge=1)
    num_attention_heads: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    hidden_act: str = "gelu"
    num_key_value_heads: int = 0
    intermediate_size: int = 0
    head_size: int = 0
    logits_dtype: Dtype = "float32"
    norm_epsilon: float = 1e-5
    position_embedding_type: PositionEmbedding = "learned_absolute"
    max_position_embeddings: int | None = None
    rotary_embedding_dim: int | None = None
    mapping: Mapping = Mapping()
    quantization: QuantConfig = QuantConfig()
    use_parallel_embedding: bool = False
    embedding_sharding_dim: Literal[0, 1] = 0
    qk_layernorm: bool = False
    tie_word_embeddings: bool = False
    runtime_defaults: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_sizes(cls, raw: dict[str, Any]) -> dict[str, Any]:
        given = dict(raw)
        heads, hidden = given.get("num_attention_heads"), given.get("hidden_size")
        if isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
            given["num_key_value_heads"] = given.get("num_key_value_heads") or heads
            given["head_size"] = given.get("head_size") or hidden // heads
            given["intermediate_size"] = given.get("intermediate_size") or 4 * hidden
        return given

    @property
    def attn_has_bias(self) -> bool:
        """Whether the qkv projection has a bias."""
        return False

    @property
    def dense_has_bias(self) -> bool:
        """Whether the attention's output projection has a bias."""
        return False

    @property
    def mlp_has_bias(self) -> bool:
        """Whether the feed-forward layers have biases."""
        return False

    @property
    def norm_has_bias(self) -> bool:
        """Whether the norms have a bias: LayerNorm has, RMSNorm has not."""
        return False

    def layers_of(self, rank: int) -> range:
        """The layers, counted over the whole model, that a rank file holds.

        Layers are dealt out like ``torch.tensor_split``: where they do not divide, the first stages take one more.

        Example: 5 layers over 2 stages: ``range(0, 3)`` and ``range(3, 5)``.
        """
        each, extra = divmod(self.num_hidden_layers, self.mapping.pp_size)
        stage = self.mapping.pp_rank(rank)
        first = stage * each + min(stage, extra)
        return range(first, first + each + (stage < extra))

    def to_json(self) -> dict[str, Any]:
        """As it is written: ``mapping`` and ``quantization`` hold only keys that every version accepts."""
        written = self.model_dump(mode="json")
        written["mapping"] = self.mapping.model_dump(exclude_defaults=True) | {
            key: getattr(self.mapping, key) for key in ("world_size", "tp_size", "pp_size")
        }
        kept = {"quant_algo", "kv_cache_quant_algo"} | ({"group_size"} if self.quantization.quantized else set())
        quantization = self.quantization.model_dump(mode="json")
        changed = self.quantization.model_dump(mode="json", exclude_defaults=True)
        written["quantization"] = {key: value for key, value in quantization.items() if key in kept | changed.keys()}
        return written


def parse_config(raw: dict[str, Any], origin: str = CONFIG) -> CheckpointConfig:
    """The typed config of a checkpoint, of its family's class.

    Args:
        raw: the parsed JSON.
        origin: what to call it in a message, best its path.

    Raises:
        CheckpointError: a key is missing, unknown (in ``mapping`` or ``quantization``) or has an impossible value,
            the architecture is unknown, or the file follows the schema of 2023.
    """
    from labsupport.checkpoint.config_families import family_of
    from labsupport.checkpoint.config_old import old_keys

    if found := old_keys(raw):
        raise CheckpointError(
            f"{origin} follows the schema of 2023: quantization has {', '.join(found)}",
            why="TensorRT-LLM since 0.8 takes quant_algo instead, and stops at every key that it does not know",
            fix=f"labs inspect --translate {Path(origin).parent}   prints it in today's schema",
        )
    family = family_of(raw.get("architecture"), origin)
    return validated(family.config, raw, origin)


def validated(kind: type[CheckpointConfig], raw: dict[str, Any], origin: str) -> CheckpointConfig:
    """``raw`` as a ``kind``.

    Raises:
        CheckpointError: the first field that does not fit, by its name.
    """
    try:
        return kind.model_validate(raw)
    except ValidationError as problem:
        raise _explain(problem, origin) from None


def read_config(folder: Path) -> CheckpointConfig:
    """The config of the checkpoint in ``folder``.

    Raises:
        CheckpointError: there is no ``config.json``, or it is not that of a TensorRT-LLM checkpoint.
    """
    return parse_config(read_json(folder / CONFIG), str(folder / CONFIG))


def write_config(config: CheckpointConfig, folder: Path) -> None:
    """Write ``folder/config.json``."""
    atomic_text(folder / CONFIG, json.dumps(config.to_json(), indent=4) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: the file is missing, or is not a JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist",
            why="the folder is not a model or a checkpoint, or a download stopped early",
            fix="name the folder that holds config.json, or run: labs fetch",
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise CheckpointError(
            f"{path} is not JSON: {problem}", why="the file was cut short or edited", fix="get the file again"
        ) from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path} is not a JSON object", why="it holds a list or a value", fix="get it again")
    return raw


def _explain(problem: ValidationError, origin: str) -> CheckpointError:
    first = problem.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "mapping"
    if first["type"] == "extra_forbidden":
        section = str(first["loc"][0])
        known = ", ".join((QuantConfig if section == "quantization" else Mapping).model_fields)
        return CheckpointError(
            f"{origin} has the unknown key '{where}'",
            why=f"TensorRT-LLM passes the keys of {section} on as arguments, and stops with a TypeError at a new one",
            fix=f"remove it; the keys of {section} are: {known}",
        )
    if first["type"] == "missing":
        return CheckpointError(
            f"{origin} lacks '{where}'",
            why="TensorRT-LLM cannot build the model without it",
            fix="convert the model again, or add the field",
        )
    return CheckpointError(
        f"{origin}: '{where}' is {first['input']!r}"[:300],
        why=str(first["msg"]),
        fix="correct the field, or convert the model again",
    )
