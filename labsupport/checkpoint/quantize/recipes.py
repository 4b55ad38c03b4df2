"""The recipes: what is kept in how many bits, and what TensorRT-LLM calls it.

Names are those of ``--qformat`` in TensorRT-LLM's ``quantize.py``, but for two of ours: ``int4_rtn`` is ``int4_awq``
without its search, to compare with, and ``int8_gptq`` hands ``int8_wo`` better floats; both load like their namesakes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labsupport.checkpoint.config import CheckpointConfig, QuantAlgo, QuantConfig
from labsupport.checkpoint.expected import QUANTIZED_AT_BUILD
from labsupport.checkpoint.layout_cut import sizes
from labsupport.errors import ParameterError

KvCache = Literal["none", "int8", "fp8"]
OURS = ("int4_rtn", "int8_gptq")  # TensorRT-LLM's scripts do not make these; it loads them all the same


@dataclass(frozen=True)
class Recipe:
    """One way to spend bits.

    Args:
        name: ``--recipe``.
        algo: ``quantization.quant_algo`` in config.json.
        weights: bits of a weight in the five linear layers of a block; the embedding keeps its own.
        activations: bits of what is multiplied with them.
        what: in one line.
        calibrated: whether it needs texts.
        grouped: whether inputs share their scale by groups.
    """

    name: str
    algo: QuantAlgo | None
    weights: int
    activations: int
    what: str
    calibrated: bool = False
    grouped: bool = False


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe("full_prec", None, 16, 16, "no weight is quantized"),
        Recipe("int8_wo", "W8A16", 8, 16, "int8 weights, a scale a channel"),
        Recipe("int8_gptq", "W8A16", 8, 16, "the same, rounded so that errors cancel", True),
        Recipe("int4_wo", "W4A16", 4, 16, "int4 weights, a scale a channel"),
        Recipe("int4_rtn", "W4A16_AWQ", 4, 16, "int4 weights, a scale a group, rounded to nearest", grouped=True),
        Recipe("int4_awq", "W4A16_AWQ", 4, 16, "the same, inputs that matter scaled up first", True, grouped=True),
        Recipe("int8_sq", "W8A8_SQ_PER_CHANNEL", 8, 8, "int8 weights and activations, outliers smoothed away", True),
        Recipe("fp8", "FP8", 8, 8, "8-bit floats for weights and activations, a scale a tensor", True),
    )
}


@dataclass(frozen=True)
class QuantizeOptions:
    """How a checkpoint is to be quantized.

    Args:
        recipe: a name in ``RECIPES``.
        kv_cache: what the KV cache keeps of keys and values.
        group: inputs that share a scale; None for the largest power of two up to 128 that divides.
        alpha: SmoothQuant's share of the difficulty that moves to the weights, 0 ... 1; ModelOpt's own is 1.
        dtype: of all that is not quantized; auto: the source's, but float16 for float32, as TensorRT-LLM does.
        tp_size: tensor-parallel ranks.
        pp_size: pipeline stages.
        quantize_lm_head: the head too; for weights that are quantized while the engine is built.
    """

    recipe: str = "int8_wo"
    kv_cache: KvCache = "none"
    group: int | None = None
    alpha: float = 1.0
    dtype: str = "auto"
    tp_size: int = 1
    pp_size: int = 1
    quantize_lm_head: bool = False

    @property
    def chosen(self) -> Recipe:
        """The recipe itself.

        Raises:
            ParameterError: there is none of that name, ``alpha`` is not a share, or the head keeps its bits in it.
        """
        if self.recipe not in RECIPES:
            raise ParameterError(
                f"no recipe '{self.recipe}'", why="the name is not in the table", fix="one of " + ", ".join(RECIPES)
            )
        if not 0 <= self.alpha <= 1:
            raise ParameterError(f"alpha {self.alpha}", why="it is a share", fix="0 (weights) to 1 (activations)")
        recipe = RECIPES[self.recipe]
        if self.quantize_lm_head and recipe.algo not in QUANTIZED_AT_BUILD:
            may = ", ".join(one.name for one in RECIPES.values() if one.algo in QUANTIZED_AT_BUILD)
            raise ParameterError(
                f"{self.recipe} with --quantize-lm-head",
                why="the head is quantized here only where the weights alone decide how",
                fix=f"use one of {may}, or leave the head as it is",
            )
        return recipe

    @property
    def calibrated(self) -> bool:
        """Whether texts are needed."""
        return self.chosen.calibrated or self.kv_cache != "none"

    def folder(self, config: CheckpointConfig) -> str:
        """The name of the folder, for example ``float16-int4_awq-g64-kv_int8-tp1``."""
        quantization, mapping = config.quantization, config.mapping
        parts = [config.dtype, self.recipe]
        parts += [f"g{quantization.group_size}"] if self.chosen.grouped else []
        parts += [f"a{self.alpha:g}"] if self.recipe == "int8_sq" and self.alpha != 1 else []
        parts += ["head"] if self.quantize_lm_head else []
        parts += [f"kv_{self.kv_cache}"] if self.kv_cache != "none" else []
        parts += [f"tp{mapping.tp_size}"] + ([f"pp{mapping.pp_size}"] if mapping.pp_size > 1 else [])
        return "-".join(parts)


def quantization_of(options: QuantizeOptions, config: CheckpointConfig) -> QuantConfig:
    """The ``quantization`` section for a model on its ranks.

    Raises:
        ParameterError: the inputs of a layer do not divide into the groups, or its rows cannot be paired.
    """
    recipe = options.chosen
    kv_algo: Literal["INT8", "FP8"] | None = {"int8": "INT8", "fp8": "FP8"}.get(options.kv_cache)  # type: ignore[assignment]
    if not recipe.grouped:
        kept = () if options.quantize_lm_head else None  # none is kept by name; tables are never quantized
        return QuantConfig(quant_algo=recipe.algo, kv_cache_quant_algo=kv_algo, exclude_modules=kept)
    group = options.group or largest_group(config)
    for name, inputs in rank_inputs(config).items():
        if group < 1 or inputs % group:
            raise ParameterError(
                f"the {inputs} inputs of {name} on each rank do not divide into groups of {group}",
                why="every group has a scale of its own, and no group may be cut between two ranks",
                fix=f"use --group {largest_group(config)}, or another --tp",
            )
    for name, rows in rank_rows(config).items():
        if rows % 2:
            raise ParameterError(
                f"the {rows} rows of {name} on each rank are odd in number",
                why="a byte holds four bits of one row and four of the next",
                fix="use another --tp, or a recipe of 8 bits",
            )
    return QuantConfig(quant_algo=recipe.algo, kv_cache_quant_algo=kv_algo, group_size=group, pre_quant_scale=True)


def largest_group(config: CheckpointConfig) -> int:
    """The largest power of two up to 128 into which the inputs of every layer on every rank divide.

    Example: SmolLM2-135M has inputs of 576 = 9 * 64 and 1536 = 24 * 64, so 64.
    """
    group = 128
    while any(inputs % group for inputs in rank_inputs(config).values()):
        group //= 2
    return group


def rank_inputs(config: CheckpointConfig) -> dict[str, int]:
    """The inputs that the quantized layers have on each rank."""
    size, tp = sizes(config), config.mapping.tp_size
    inputs = {"attention.qkv": size["hidden"], "attention.dense": size["heads"] // tp, "mlp.proj": size["inner"] // tp}
    return inputs | {"mlp.fc": size["hidden"]}


def rank_rows(config: CheckpointConfig) -> dict[str, int]:
    """The output rows that the quantized layers have on each rank; of qkv, those of one head, which stay together."""
    size, tp = sizes(config), config.mapping.tp_size
    rows = {"attention.qkv": size["head"], "attention.dense": size["hidden"], "mlp.proj": size["hidden"]}
    return rows | {"mlp.fc": size["inner"] // tp}
