"""An engine, loaded: weights mapped into memory, graphs called layer by layer, for one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from labsupport.checkpoint.network.build import make_inputs
from labsupport.checkpoint.network.model import Inputs
from labsupport.checkpoint.network.parallel import Team
from labsupport.engine.cuda_graph import Captured, Step, bucket
from labsupport.engine.eager import Cache, pad_tables
from labsupport.engine.export import CONTEXT
from labsupport.engine.folder import read_config, read_manifest, read_weights, unpacked
from labsupport.engine.jit import load as load_jit
from labsupport.engine.machine import require_same
from labsupport.engine.paged import Lookback, look_back
from labsupport.errors import EngineError


class Engine:
    """A compiled model; satisfies :class:`labsupport.engine.protocol.Model`.

    Args:
        folder: what ``labs build`` wrote.

    Raises:
        EngineError: there is no engine, it is damaged, or it was built for another torch, processor or GPU.

    Example:
        >>> engine = Engine(Path("work/engines/smollm2-135m-instruct/float32-tp1"))  # doctest: +SKIP
        >>> engine.context(engine.new_cache(8), [1, 2, 3], 0, [1]).shape  # doctest: +SKIP
        (49152,)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()
        self.config, self.build_config = read_config(self.folder)
        manifest = read_manifest(self.folder)
        require_same(manifest.bound_to, self.folder)
        self.device = str(manifest.bound_to["device"])
        self.vocab_size, self.max_rows = self.config.vocab_size, self.build_config.max_rows
        self.tokens_per_block = self.build_config.tokens_per_block
        self._layers = manifest.layers
        weights = read_weights(self.folder, self.config.mapping.files)
        weights |= {name: weights[other] for name, other in manifest.same.items()}
        weights = {name: tensor.to(self.device) for name, tensor in weights.items()}
        self._weights = [
            [weights[f"layers.{index}.{name}"] for name in manifest.names[layer["kind"]]]
            for index, layer in enumerate(self._layers)
        ]
        self._head = [weights[f"head.{name}"] for name in manifest.names["head"]]
        self._inputs = self._way_in(weights)
        self._graphs = self._load(manifest.graphs)
        self._captured = WeakTensorKeyDictionary()  # a graph writes to the memory of one cache, and goes with it
        self._rows = sorted(int(name.removeprefix("head.")) for name in manifest.graphs if name[5:].isdigit())
        self._dtype: torch.dtype = getattr(torch, self.config.dtype)

    def new_cache(self, blocks: int) -> Cache:
        """Empty pools of ``blocks`` blocks, block 0 being scratch."""
        return [
            [(self._pool(blocks, *pool), self._pool(blocks, *pool)) for pool in layer["pools"]]
            for layer in self._layers
        ]

    def block_bytes(self) -> int:
        """Bytes of one block of the cache, over all layers."""
        numbers = sum(2 * heads * size for layer in self._layers for heads, size in layer["pools"])
        return int(numbers * self.tokens_per_block * self._dtype.itemsize)

    def copy_blocks(self, cache: Cache, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy the block ``source`` over the block ``target`` for each (source, target), in every layer."""
        sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
        for keys, values in (pool for layer in cache for pool in layer):
            keys[targets], values[targets] = keys[sources], values[sources]

    def context(
        self, cache: Cache, tokens: Sequence[int], start: int, table: Sequence[int], *, every: bool = False
    ) -> NDArray[np.float32]:
        """Run ``tokens`` of one sequence from position ``start`` on -> logits [vocab] of the last, or of all.

        Raises:
            EngineError: all logits are asked of an engine that was built without ``gather_context_logits``.
        """
        if every and not self.build_config.gather_context_logits:
            raise EngineError(
                "this engine gives the logits of the last prompt token only",
                why="it was built without gather_context_logits",
                fix="labs build --gather_context_logits",
            )
        if len(tokens) == 1:  # the context's graph is for two tokens or more
            rows = self.generation(cache, tokens, [start], [table])
            return rows if every else np.asarray(rows[0])
        positions = torch.arange(start, start + len(tokens), device=self.device)
        blocks = torch.tensor([*table, *[0] * (2 - len(table))], device=self.device)
        x = self._through_layers(CONTEXT, cache, torch.tensor([tokens], device=self.device), positions, blocks)
        if every:
            return _numbers(self._logits(CONTEXT, x))
        return np.asarray(_numbers(self._logits("1", x[:, -1:].contiguous()))[0])

    def generation(
        self, cache: Cache, tokens: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> NDArray[np.float32]:
        """One token for each of several sequences -> logits [rows, vocab]."""
        width = max(2, *map(len, tables)) if len(tables) > 1 else max(2, len(tables[0]))
        width, found = width if self.device == "cpu" else bucket(width), []
        for first, size in _in_turns(len(tokens), self._rows):
            rows = slice(first, first + size)
            fill = [0] * (size - len(tokens[rows]))
            at, ids = torch.tensor([*positions[rows], *fill]), torch.tensor([[*tokens[rows], *fill]])
            step = self._step(cache, size, width)
            found.append(_numbers(step(ids, at, pad_tables(tables[rows], size, width)))[: len(tokens[rows])])
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _step(self, cache: Cache, rows: int, width: int) -> Step:
        """One token for ``rows`` sequences; on a GPU recorded once for each cache, number of rows and of blocks."""
        pool = cache[0][0][0]

        def step(tokens: Tensor, positions: Tensor, table: Tensor) -> Tensor:
            return self._logits(str(rows), self._through_layers(str(rows), cache, tokens, positions, table))

        if self.device == "cpu":
            return step
        if pool not in self._captured:
            self._captured[pool] = {}
        recorded: dict[tuple[int, int], Captured] = self._captured[pool]
        if (rows, width) not in recorded:
            recorded[rows, width] = Captured(step, rows, width)
        return recorded[rows, width]

    @torch.inference_mode()
    def _through_layers(self, form: str, cache: Cache, tokens: Tensor, positions: Tensor, table: Tensor) -> Tensor:
        x: Tensor = self._inputs(tokens, positions)
        seen: dict[int | None, Lookback] = {}
        for layer, pools, weights in zip(self._layers, cache, self._weights, strict=True):
            window = layer["window"]
            if window not in seen:
                seen[window] = look_back(positions, table, self.tokens_per_block, window)
            at = seen[window]
            held = [tensor for pool in pools for tensor in pool]
            run = self._graphs[f"{layer['kind']}.{form}"].run
            x = run([x, at.positions, at.block, at.offset, at.table, at.bias, *held, *weights])[0]
        return x

    @torch.inference_mode()
    def _logits(self, form: str, x: Tensor) -> Tensor:
        logits: Tensor = self._graphs[f"head.{form}"].run([x, *self._head])[0]
        return logits[0]

    def _pool(self, blocks: int, heads: int, size: int) -> Tensor:
        return torch.zeros(blocks, self.tokens_per_block, heads, size, dtype=self._dtype, device=self.device)

    def _way_in(self, weights: dict[str, Tensor]) -> Inputs:
        team = Team(range(self.config.mapping.tp_size))
        tokens, positions = (
            [weights[name] for rank in team.ranks if (name := f"inputs.{kind}.tables.{rank}") in weights]
            for kind in ("tokens", "positions")
        )
        return make_inputs(self.config, tokens, positions, team)

    def _load(self, names: Sequence[str]) -> dict[str, Any]:
        with unpacked(self.folder) as place:
            load = _loader if self.device == "cpu" else load_jit
            return {name: load(place / f"{name}.pt2") for name in names}


def _numbers(logits: Tensor) -> NDArray[np.float32]:
    return np.asarray(logits.cpu().numpy())


def _loader(package: Path) -> Any:
    # torch._inductor.aoti_load_package wraps just this, and imports the whole compiler for it: 0.2 GB and a second
    return torch._C._aoti.AOTIModelPackageLoader(str(package), "model", True, 1, -1)


def _in_turns(count: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Cut ``count`` sequences into runs of graphs: (first, rows of the graph); the last one may be filled up.

    Example:
        >>> _in_turns(10, [1, 8]), _in_turns(9, [1, 8])
        ([(0, 8), (8, 8)], [(0, 8), (8, 1)])
    """
    turns, first = [], 0
    while first < count:
        left = count - first
        size = next((size for size in sizes if size >= left), sizes[-1])
        turns.append((first, size))
        first += size
    return turns
