"""What a checkpoint, or a Hugging Face folder, holds: names, types, shapes and bytes, and how two of them differ."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from labsupport.checkpoint.config import CONFIG, read_json
from labsupport.checkpoint.convert_joined import is_checkpoint
from labsupport.checkpoint.convert_source import tensor_files
from labsupport.checkpoint.tensor_bits import NAMES, to_float32
from labsupport.checkpoint.tensor_file import TensorFile, TensorInfo
from labsupport.errors import CheckpointError

_LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.")


@dataclass(frozen=True)
class Entry:
    """A tensor, or the same tensor of several layers that are alike.

    Args:
        name: with ``*`` for the layer where ``layers`` is not empty.
        layers: the layers that have it, one after the other.
        bytes: of all of them together.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    layers: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Contents:
    """A folder: its config as written, and the tensors of each file."""

    folder: Path
    config: dict[str, Any]
    files: Mapping[str, Mapping[str, TensorInfo]]

    @property
    def bytes(self) -> int:
        """The bytes of all tensors."""
        return sum(info.bytes for tensors in self.files.values() for info in tensors.values())


@dataclass(frozen=True)
class Difference:
    """One way in which two folders differ.

    Args:
        where: ``config.json``, or the file that holds the tensor.
        name: the key or the tensor.
        ours: what the first folder has; None where it has nothing.
        theirs: what the second folder has.
        largest: the largest absolute difference of two values, where both have numbers of the same shape.
    """

    where: str
    name: str
    ours: str | None
    theirs: str | None
    largest: float | None = None


def inspect(folder: Path) -> Contents:
    """Read the headers of a folder's files; no tensor is loaded.

    Raises:
        CheckpointError: a rank file is missing or cut short, or the folder holds neither kind of checkpoint.
    """
    config = read_json(folder / CONFIG)
    files = {}
    for path in _files(folder, config):
        with TensorFile(path) as file:
            files[path.name] = file.tensors
    return Contents(folder, config, files)


def entries(tensors: Mapping[str, TensorInfo]) -> list[Entry]:
    """The tensors of a file, runs of layers that are alike as one entry, in the order of the file."""
    grouped: dict[tuple[str, str, tuple[int, ...]], list[int]] = {}
    for name, info in tensors.items():
        layer = _LAYER.search(name)
        starred = name[: layer.start(1)] + "*" + name[layer.end(1) :] if layer else name
        grouped.setdefault((starred, info.kind, info.shape), []).extend([int(layer[1])] if layer else [])
    found = []
    for (name, kind, shape), layers in grouped.items():
        size = TensorInfo(kind, shape).bytes * max(1, len(layers))
        found.append(Entry(name, kind, shape, tuple(sorted(layers)), size))
    return found


def diff(ours: Path, theirs: Path) -> list[Difference]:
    """Everything in which two folders differ: keys of the config, then names, types, shapes and values of tensors."""
    first, second = inspect(ours), inspect(theirs)
    found = _diff_configs(_flat(first.config), _flat(second.config))
    for name in sorted(first.files.keys() | second.files.keys()):
        if name not in first.files or name not in second.files:
            has = [f"{len(side.files[name])} tensors" if name in side.files else None for side in (first, second)]
            found.append(Difference(name, "the whole file", has[0], has[1]))
            continue
        with TensorFile(ours / name) as a, TensorFile(theirs / name) as b:
            found += _diff_files(name, a, b)
    return found


def spans(numbers: tuple[int, ...]) -> str:
    """Numbers in a few characters.

    Example:
        >>> spans((0, 1, 2, 5))
        '0-2, 5'
    """
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _files(folder: Path, config: dict[str, Any]) -> list[Path]:
    if not is_checkpoint(folder):
        return tensor_files(folder)
    mapping = config.get("mapping") or {}
    ranks = int(mapping.get("tp_size", 1)) * int(mapping.get("pp_size", 1))
    paths = [folder / f"rank{rank}.safetensors" for rank in range(ranks)]
    for path in paths:
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing",
                why=f"mapping in config.json asks for {ranks} ranks",
                fix="convert the model again",
            )
    return paths


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _diff_configs(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(CONFIG, key, _shown(ours, key), _shown(theirs, key))
        for key in sorted(ours.keys() | theirs.keys())
        if _shown(ours, key) != _shown(theirs, key)
    ]


def _shown(flat: Mapping[str, Any], key: str) -> str | None:
    return repr(flat[key]) if key in flat else None


def _diff_files(where: str, ours: TensorFile, theirs: TensorFile) -> list[Difference]:
    found = []
    for name in sorted(ours.tensors.keys() | theirs.tensors.keys()):
        a, b = ours.tensors.get(name), theirs.tensors.get(name)
        shown = [f"{info.kind} {list(info.shape)}" if info else None for info in (a, b)]
        if a is None or b is None or a.shape != b.shape:
            found.append(Difference(where, name, shown[0], shown[1]))
            continue
        largest = _largest(name, ours, theirs)
        if a.kind != b.kind or largest:
            found.append(Difference(where, name, shown[0], shown[1], largest))
    return found


def _largest(name: str, ours: TensorFile, theirs: TensorFile) -> float:
    """The largest absolute difference; infinite where only one side is a number, or bytes of packed types differ."""
    a, b, largest = ours.tensors[name], theirs.tensors[name], 0.0
    if not {a.kind, b.kind} <= set(NAMES.values()):
        return 0.0 if a.kind == b.kind and np.array_equal(ours.rows(name), theirs.rows(name)) else float("inf")
    height = a.shape[0] if a.shape else 1
    top = 0
    with np.errstate(invalid="ignore"):
        for block in ours.blocks(name, 0, height):
            x, y = to_float32(block, a.kind), to_float32(theirs.rows(name, top, top + len(block)), b.kind)
            gap = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0, np.abs(x - y))
            largest = max(largest, float(np.nan_to_num(gap, nan=np.inf).max(initial=0)))
            top += len(block)
    return largest
