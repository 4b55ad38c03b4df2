"""A TensorRT-LLM checkpoint as a source: its ranks joined, so that it can be cut anew.

This is how an export of NVIDIA ModelOpt (the successor of AMMO) comes in, a checkpoint in the schema of 2023, and one
of ours that is wanted on another number of ranks. No tensor goes back to its Hugging Face form on the way, so the
bytes stay what they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, Mapping, parse_config, read_json
from labsupport.checkpoint.config_old import translate
from labsupport.checkpoint.layout import joined_rows
from labsupport.checkpoint.layout_cut import origins, source_shapes, targets
from labsupport.checkpoint.tensor_bits import HELD, Array
from labsupport.checkpoint.tensor_file import BLOCK, TensorFile, TensorInfo
from labsupport.errors import CheckpointError

_EMBEDDING, _HEAD = "transformer.vocab_embedding.weight", "lm_head.weight"


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a TensorRT-LLM checkpoint."""
    return (folder / "rank0.safetensors").is_file()


class JoinedSource:
    """The ranks of a checkpoint as whole tensors, named as in a checkpoint of one rank.

    Raises:
        CheckpointError: a rank file is missing or cut short, the config is not valid, the weights are quantized.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = parse_config(translate(read_json(folder / CONFIG)).config, str(folder / CONFIG))
        if self.config.quantization.quantized:
            raise CheckpointError(
                f"{folder} is quantized ({self.config.quantization.quant_algo})",
                why="it is a finished TensorRT-LLM checkpoint, and packed weights and their scales cannot be cut anew",
                fix="use it as it is; for other ranks, export it again with ModelOpt's inference_tensor_parallel",
            )
        self._table = joined_rows(self.config)
        self._shapes = source_shapes(self.config, self._table)
        self._origins = origins(self.config, self._table)
        self._ranks: list[TensorFile] = []
        try:
            for rank in range(self.config.mapping.files):
                self._ranks.append(TensorFile(folder / f"rank{rank}.safetensors"))
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> JoinedSource:
        return self

    def __exit__(self, _k: type[BaseException] | None, _v: BaseException | None, _t: TracebackType | None) -> None:
        self.close()

    @property
    def files(self) -> list[Path]:
        return [file.path for file in self._ranks]

    def info(self, name: str) -> TensorInfo:
        first = self._origins[self._held(name)][0]
        return TensorInfo(self._ranks[first.rank].tensors[first.target].kind, self._shapes[name])

    def blocks(self, name: str, start: int, stop: int) -> Iterator[Array]:
        info = self.info(name)
        each = max(1, BLOCK // max(1, math.prod(info.shape[1:]) * HELD[info.kind].itemsize))
        for top in range(start, stop, each):
            yield self._rows(name, info, top, min(top + each, stop))

    def span(self, name: str) -> tuple[int, int] | None:  # noqa: ARG002
        return None

    def leftovers(self, used: set[str]) -> list[str]:
        known = {origin.target for places in self._origins.values() for origin in places}
        return [name for file in self._ranks for name in file.tensors if name not in known | used]

    def close(self) -> None:
        for file in self._ranks:
            file.close()

    def reshaped(self, dtype: str, mapping: Mapping, use_parallel_embedding: bool, dim: int) -> CheckpointConfig:
        """The source's config with other ranks."""
        changed = {
            "dtype": self.config.dtype if dtype == "auto" else dtype,
            "mapping": mapping.model_dump(),
            "use_parallel_embedding": use_parallel_embedding,
            "embedding_sharding_dim": dim,
        }
        return parse_config(self.config.to_json() | changed, str(self.folder / CONFIG))

    def _rows(self, name: str, info: TensorInfo, start: int, stop: int) -> Array:
        whole = np.zeros((stop - start, *info.shape[1:]), HELD[info.kind])
        for origin in self._origins[self._held(name)]:
            piece = origin.piece
            top, bottom = max(start, piece.rows[0]), min(stop, piece.rows[1])
            if top < bottom:
                shift = origin.top - piece.rows[0]
                box = self._ranks[origin.rank].rows(origin.target, top + shift, bottom + shift)
                columns = slice(*piece.columns) if piece.columns else slice(None)
                whole[top - start : bottom - start][(slice(None), columns) if piece.columns else slice(None)] = box
        return whole

    def _held(self, name: str) -> str:
        """The head of a tied model may be left out, as ModelOpt does; then it is the embedding."""
        last = self._ranks[-1].tensors if self._ranks else {}
        return _EMBEDDING if name == _HEAD and _HEAD not in last else name

    def _check(self) -> None:
        for rank, file in enumerate(self._ranks):
            for target in targets(self.config, rank, self._table):
                found = file.tensors.get(target.name)
                if found is None and target.name == _HEAD and self.config.mapping.pp_size == 1:
                    continue
                if found is None or found.shape != target.shape:
                    has = f"has the shape {list(found.shape)}" if found else "is missing"
                    raise CheckpointError(
                        f"{file.path}: {target.name} {has}",
                        why=f"config.json makes it {list(target.shape)} on rank {rank}",
                        fix="convert, or export, the model again",
                    )
