"""A checkpoint run on a paged cache without being built: what a compiled engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labsupport.checkpoint.config import CheckpointConfig, read_config
from labsupport.checkpoint.network import load_network
from labsupport.checkpoint.network.attention import AttentionShard
from labsupport.engine.paged import Paged, Pool, look_back

Cache = list[list[Pool]]
"""For each layer, a pool of each tensor-parallel rank."""


class EagerModel:
    """A network on a paged cache, one PyTorch call after the other.

    Args:
        folder: a TensorRT-LLM checkpoint.
        tokens_per_block: tokens in a block of the cache.
        max_rows: sequences that one generation call may take.
    """

    def __init__(self, folder: Path, *, tokens_per_block: int = 32, max_rows: int = 8) -> None:
        self.config: CheckpointConfig = read_config(folder)
        self.network = cast(Any, load_network(folder))  # its stages are known to torch as modules alone
        self.vocab_size = self.config.vocab_size
        self.tokens_per_block, self.max_rows = tokens_per_block, max_rows
        self._layers = [layer for stage in self.network.stages for layer in stage.layers]

    def new_cache(self, blocks: int) -> Cache:
        """Empty pools of ``blocks`` blocks, block 0 being scratch."""
        return [[self._pool(shard, blocks) for shard in _shards(layer)] for layer in self._layers]

    def copy_blocks(self, cache: Cache, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the block ``source`` over the block ``target`` for each (source, target), in every layer."""
        for layer in cache:
            for keys, values in layer:
                for source, target in pairs:
                    keys[target], values[target] = keys[source], values[source]

    def context(
        self, cache: Cache, tokens: Sequence[int], start: int, table: Sequence[int], *, every: bool = False
    ) -> NDArray[np.float32]:
        """Run ``tokens`` of one sequence from position ``start`` on -> logits [vocab] of the last, or of all."""
        positions = torch.arange(start, start + len(tokens))
        logits = self._run(cache, list(tokens), positions, torch.tensor(list(table)))
        return logits if every else logits[-1]

    def generation(
        self, cache: Cache, tokens: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> NDArray[np.float32]:
        """One token for each of several sequences -> logits [rows, vocab]. Short tables are filled up with block 0."""
        return self._run(cache, list(tokens), torch.tensor(list(positions)), pad_tables(tables))

    @torch.inference_mode()
    def _run(self, cache: Cache, tokens: list[int], positions: Tensor, table: Tensor) -> NDArray[np.float32]:
        stages = self.network.stages
        x: Tensor = stages[0].inputs(torch.tensor([tokens]), positions)
        for layer, pools in zip(self._layers, cache, strict=True):
            window = _shards(layer)[0].heads.window
            x = layer(x, Paged(look_back(positions, table, self.tokens_per_block, window), pools))
        last = stages[-1]
        x = x if last.norm is None else last.norm(x)
        logits: Tensor = last.head(x)
        return np.asarray(logits[0].numpy())

    def _pool(self, shard: AttentionShard, blocks: int) -> Pool:
        shape = (blocks, self.tokens_per_block, shard.heads.keys, shard.heads.size)
        return torch.zeros(shape), torch.zeros(shape)


def pad_tables(tables: Sequence[Sequence[int]], rows: int = 0, width: int = 1) -> Tensor:
    """Tables of several lengths -> int64 [rows or more, width or more], filled up with the scratch block 0."""
    width = max(width, *map(len, tables))
    padded = [[*table, *[0] * (width - len(table))] for table in tables]
    padded += [[0] * width] * (rows - len(tables))
    return torch.tensor(padded)


def _shards(layer: nn.Module) -> list[AttentionShard]:
    return list(layer.attention.shards)  # type: ignore[union-attr, arg-type]
