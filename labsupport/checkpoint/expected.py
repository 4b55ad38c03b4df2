"""What each rank file must hold: names, shapes and types, for float and quantized checkpoints.

The float names and shapes follow from the layout tables. Quantization then replaces a linear layer's weight by what
its algorithm stores. Source of the quantized forms: NVIDIA ModelOpt 0.29, ``modelopt/torch/export``, and
``preprocess_weights`` in TensorRT-LLM 0.20.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.layout_cut import targets
from labsupport.checkpoint.tensor_bits import NAMES

QUANTIZED_MODULES = ("attention.qkv", "attention.dense", "mlp.fc", "mlp.gate", "mlp.proj")
KEPT_BY_DEFAULT = (
    "*lm_head", "*router", "*vocab_embedding", "*position_embedding", "*block_embedding", "*shared_expert_gate",
)  # fmt: skip
# Weights that may stay in the model's dtype: trtllm-build quantizes them while it builds.
QUANTIZED_AT_BUILD = ("W8A16", "W4A16")
CHECKED = (*QUANTIZED_AT_BUILD, "W4A16_AWQ", "FP8", "W8A8_SQ_PER_CHANNEL")


@dataclass(frozen=True)
class Form:
    """What a tensor must look like.

    Args:
        shape: on this rank.
        kinds: the types it may have, as a safetensors header names them.
    """

    shape: tuple[int, ...]
    kinds: tuple[str, ...]


def expected(config: CheckpointConfig, rank: int) -> dict[str, Form]:
    """Name -> form of every tensor of a rank file.

    With a ``quant_algo`` that is not in ``CHECKED``, what its quantized modules hold is left out.

    Raises:
        ParameterError: the model cannot be spread over ranks as ``mapping`` says.
    """
    plain = {target.name: Form(target.shape, (NAMES[config.dtype],)) for target in targets(config, rank)}
    found: dict[str, Form] = {}
    for name, form in plain.items():
        module, _, kind = name.rpartition(".")
        if kind == "weight" and is_quantized(config, module):
            found |= {f"{module}.{part}": stored for part, stored in _quantized(config, form).items()}
        else:
            found[name] = form
        if config.quantization.kv_cache_quant_algo and name.endswith("attention.qkv.weight"):
            found[f"{module.removesuffix('.qkv')}.kv_cache_scaling_factor"] = _SCALAR
    return found


def is_quantized(config: CheckpointConfig, module: str) -> bool:
    """Whether the weights of ``module`` (``transformer.layers.0.mlp.fc``) are stored in fewer bits."""
    if not config.quantization.quantized or not module.endswith((*QUANTIZED_MODULES, "lm_head")):
        return False
    kept = config.quantization.exclude_modules
    patterns = KEPT_BY_DEFAULT if kept is None else kept
    return not any(fnmatch(module, pattern) or fnmatch(module, f"*.{pattern}") for pattern in patterns)


_SCALAR = Form((1,), ("F32",))


def _quantized(config: CheckpointConfig, plain: Form) -> dict[str, Form]:
    """What stands in place of one weight; ``plain`` is the weight as it would be, (out, in) on this rank."""
    if config.quantization.quant_algo not in CHECKED:
        return {}
    (rows, columns), algo = plain.shape, config.quantization.quant_algo
    if algo == "W4A16_AWQ":  # two rows share a byte; a scale for each group of columns; inputs are scaled first
        groups = columns // config.quantization.group_size
        return {
            "weight": Form((rows // 2, columns), ("I8",)),
            "weights_scaling_factor": Form((rows, groups), ("F32",)),
            "prequant_scaling_factor": Form((columns,), plain.kinds),
        }
    if algo == "FP8":
        return {
            "weight": Form((rows, columns), ("F8_E4M3", "I8")),
            "weights_scaling_factor": _SCALAR,
            "activation_scaling_factor": _SCALAR,
        }
    if algo == "W8A8_SQ_PER_CHANNEL":
        return {
            "weight": Form((rows, columns), ("I8",)),
            "weights_scaling_factor": Form((rows,), ("F32",)),
            "activation_scaling_factor": _SCALAR,
            "prequant_scaling_factor": Form((columns,), plain.kinds),
        }
    return {"weight": plain}
