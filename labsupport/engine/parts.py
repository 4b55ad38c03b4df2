"""A network taken apart for the compiler: every layer of one kind shares one graph, and brings its own weights.

Thirty equal layers would be compiled thirty times if the model were one graph. Here the weights are *inputs* of a
layer's graph, so that it is compiled once and called thirty times. A layer that differs (in shapes, in where its norms
stand) gets a graph of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.network import build_stage, read_rank
from labsupport.checkpoint.network.attention import AttentionShard
from labsupport.checkpoint.network.model import Inputs, Stage
from labsupport.checkpoint.network.parallel import Team
from labsupport.engine.gpu_products import RowProduct, pair
from labsupport.engine.paged import Lookback, Paged
from labsupport.engine.products import FloatProduct, Many, engine_quantized, lower


@dataclass(frozen=True)
class PoolShape:
    """The KV pool of one rank in one layer: ``[blocks, tokens_per_block, heads, size]`` twice."""

    heads: int
    size: int


@dataclass(frozen=True)
class Part:
    """A piece that is called once a step.

    Args:
        kind: names its graph; parts of one kind differ in weights alone.
        module: the piece, with its weights.
        names: of its weights, in the order in which the graph takes them.
        pools: its KV pools, one a rank; none for the head.
        window: how many tokens its attention sees, or None for all.
    """

    kind: str
    module: nn.Module
    names: tuple[str, ...]
    pools: tuple[PoolShape, ...] = ()
    window: int | None = None

    def weights(self) -> list[Tensor]:
        """The tensors that go with ``names``."""
        state = dict(self.module.state_dict())
        return [state[name] for name in self.names]


@dataclass(frozen=True)
class Parts:
    """The network of a checkpoint, in the order of the data.

    Args:
        config: of the checkpoint.
        inputs: token ids -> hidden states; run as it is, since it reads one row a token.
        layers: the layers.
        head: the last norm and the logits.
    """

    config: CheckpointConfig
    inputs: Inputs
    layers: tuple[Part, ...]
    head: Part

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.head.weights()[0].device.type


class LayerGraph(nn.Module):
    """What is exported of a layer: everything that differs from call to call, and from layer to layer, is an input."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.template, self.names, self.ranks = part.module, part.names, len(part.pools)

    def forward(self, x: Tensor, positions: Tensor, block: Tensor, offset: Tensor, table: Tensor, bias: Tensor,
                *tensors: Tensor) -> Tensor:  # fmt: skip
        """x [1, rows, hidden], the fields of a ``Lookback``, keys and values of each rank, weights -> the next x."""
        held, weights = tensors[: 2 * self.ranks], tensors[2 * self.ranks :]
        pools = list(zip(held[::2], held[1::2], strict=True))
        memory = Paged(Lookback(positions, block, offset, table, bias), pools)
        out: Tensor = functional_call(self.template, dict(zip(self.names, weights, strict=True)), (x, memory))
        return out


class HeadGraph(nn.Module):
    """What is exported of the head: hidden states and weights -> logits."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.template, self.names = part.module, part.names

    def forward(self, x: Tensor, *weights: Tensor) -> Tensor:
        """[1, rows, hidden] -> float32 [1, rows, vocab]."""
        out: Tensor = functional_call(self.template, dict(zip(self.names, weights, strict=True)), (x,))
        return out


def take_apart(folder: Path, config: CheckpointConfig, many: Many, device: str = "cpu") -> Parts:
    """The network of the checkpoint in ``folder``, all ranks in this process, with the engine's products.

    Raises:
        CheckpointError: a tensor is missing, or the model needs what is not written here.
    """
    dtype: torch.dtype = getattr(torch, config.dtype)
    tp, pp = config.mapping.tp_size, config.mapping.pp_size
    quantized: Any = engine_quantized(many, device)
    stages = []
    for stage in range(pp):
        ranks = [read_rank(folder, rank, dtype, quantized) for rank in range(stage * tp, (stage + 1) * tp)]
        stages.append(build_stage(config, stage, ranks, Team(range(tp))).eval())
    for module in stages:
        if device == "cpu":
            lower(module, lambda linear: FloatProduct(linear, many))
        else:
            lower(module, lambda linear: RowProduct(linear, many))
            pair(module)
        module.to(device)
    return Parts(config, _inputs(stages[0]), tuple(_layers(stages)), _head(stages[-1]))


def _layers(stages: Sequence[Stage]) -> list[Part]:
    kinds: dict[Any, str] = {}
    parts = []
    for layer in (layer for stage in stages for layer in stage.layers):
        shards = [part for part in layer.modules() if isinstance(part, AttentionShard)]
        heads = shards[0].heads
        names = tuple(layer.state_dict())
        forms = tuple((name, tensor.shape, tensor.dtype) for name, tensor in layer.state_dict().items())
        looks = (type(layer), heads.queries, heads.keys, heads.scale, heads.softcap)
        kind = kinds.setdefault((forms, looks), f"layer{len(kinds) or ''}")
        pools = tuple(PoolShape(shard.heads.keys, shard.heads.size) for shard in shards)
        parts.append(Part(kind, layer, names, pools, heads.window))
    return parts


def _head(stage: Stage) -> Part:
    assert stage.head is not None
    module = nn.Sequential(*([stage.norm] if stage.norm is not None else []), stage.head)
    return Part("head", module, tuple(module.state_dict()))


def _inputs(stage: Stage) -> Inputs:
    assert isinstance(stage.inputs, Inputs)
    return stage.inputs
