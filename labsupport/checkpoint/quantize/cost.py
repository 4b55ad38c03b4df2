"""What fewer bits save: bytes on disk, and bytes that the GPU must read for each token.

In generation with small batches every weight is read once a step, so these bytes over the memory's bandwidth are the
shortest time that a token can take.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.expected import is_quantized
from labsupport.checkpoint.layout_cut import ITEMSIZE, targets

_LOOKED_UP = ("transformer.vocab_embedding.weight", "transformer.position_embedding.weight")


@dataclass(frozen=True)
class Cost:
    """The bytes of a checkpoint, all ranks together.

    Args:
        disk: of the checkpoint's files. The portable form of W8A16 and W4A16 is float there, and shrinks when built.
        read: of weights and scales that one step of generation reads, as the engine holds them.
        layers: the part of ``read`` that recipes shrink, the linear layers.
        weights: how many weights ``layers`` holds.
        cache: of keys and values for each token of the context.
    """

    disk: int
    read: int
    layers: int
    weights: int
    cache: int

    @property
    def bits(self) -> float:
        """Bits of a weight in the linear layers, its share of the scales included."""
        return 8 * self.layers / self.weights


def cost(folder: Path, config: CheckpointConfig) -> Cost:
    """The bytes of the checkpoint in ``folder``."""
    layers = weights = rest = 0
    for rank in range(config.mapping.files):
        for target in targets(config, rank):
            if _is_linear(target.name):
                layers += linear_bytes(config, target.name, *target.shape)
                weights += math.prod(target.shape)
            elif target.name == "lm_head.weight":
                rest += linear_bytes(config, target.name, *target.shape)
            else:  # of a table that is looked up, a step reads one row
                count = target.shape[1] if target.name in _LOOKED_UP else math.prod(target.shape)
                rest += count * ITEMSIZE[config.dtype]
    disk = sum(path.stat().st_size for path in folder.glob("rank*.safetensors"))
    each = 1 if config.quantization.kv_cache_quant_algo else ITEMSIZE[config.dtype]
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_size * each
    return Cost(disk, layers + rest, layers, weights, cache)


def linear_bytes(config: CheckpointConfig, name: str, rows: int, columns: int) -> int:
    """The bytes of one linear layer's weight and scales, as the engine holds them: scales of the model's dtype.

    Example: 576 x 576 in int4 with groups of 64 takes 165,888 bytes, 10,368 for scales and 1,152 for the factors.
    """
    wide = ITEMSIZE[config.dtype]
    plain = rows * columns
    if not is_quantized(config, name.removesuffix(".weight")):
        return plain * wide
    quantization = config.quantization
    return {
        "W8A16": plain + rows * wide,
        "W4A16": plain // 2 + rows * wide,
        "W4A16_AWQ": plain // 2 + (plain // quantization.group_size + columns) * wide,
        "W8A8_SQ_PER_CHANNEL": plain + rows * 4 + columns * wide + 4,
        "FP8": plain + 8,
    }[quantization.quant_algo or ""]


def _is_linear(name: str) -> bool:
    return ".layers." in name and name.endswith(
        (".qkv.weight", ".dense.weight", ".fc.weight", ".gate.weight", ".proj.weight")
    )
