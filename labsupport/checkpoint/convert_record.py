"""``labs.json`` of a checkpoint: what it was made from, and whether making it again would change anything."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from labsupport import __version__
from labsupport.checkpoint.convert_plan import Options
from labsupport.workspace import read_record

STEP = "convert"
RECIPE = 1  # raise it when the same input and options give other bytes: older checkpoints are then made again
_WHOLE, _STRIDE, _SAMPLE = 16 << 20, 1 << 20, 4 << 10


def record(options: Options, inputs: Sequence[Path], folder: Path) -> dict[str, Any]:
    """The record of a checkpoint that has just been written to ``folder``."""
    return {
        "step": STEP,
        "recipe": RECIPE,
        "options": asdict(options),
        "inputs": {path.name: {"key": key(path), "sha256": _known_sha256(path)} for path in inputs},
        "outputs": {path.name: path.stat().st_size for path in sorted(folder.glob("*.safetensors"))},
        "versions": {"labs": __version__, "numpy": np.__version__, "python": platform.python_version()},
    }


def made_by_us(folder: Path) -> bool:
    """Whether ``folder`` was written by ``labs convert``."""
    return (read_record(folder) or {}).get("step") == STEP


def is_done(folder: Path, options: Options, inputs: Sequence[Path]) -> bool:
    """Whether ``folder`` holds just what converting ``inputs`` with ``options`` would write."""
    found = read_record(folder) or {}
    if found.get("step") != STEP or found.get("recipe") != RECIPE or found.get("options") != asdict(options):
        return False
    if found["inputs"].keys() != {path.name for path in inputs}:
        return False
    whole = all((folder / name).is_file() and (folder / name).stat().st_size == size
                for name, size in found["outputs"].items())  # fmt: skip
    return whole and all(found["inputs"][path.name]["key"] == key(path) for path in inputs)


def key(path: Path) -> str:
    """A fingerprint of a file: SHA-256 of its size and its bytes; of a large file, of 4 kB in every MB.

    Training, merging or quantizing changes every tensor, so samples see it. Hashing all of a model would take longer
    than converting it.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest = hashlib.sha256(str(size).encode())
        step, each = (_STRIDE, _SAMPLE) if size > _WHOLE else (_STRIDE, _STRIDE)
        for offset in range(0, size, step):
            digest.update(os.pread(file.fileno(), each, offset))
    return digest.hexdigest()


def _known_sha256(path: Path) -> str | None:
    """The SHA-256 of the whole file, where ``labs fetch`` took it down and the size is still the same."""
    known = ((read_record(path.parent) or {}).get("files") or {}).get(path.name) or {}
    return known.get("sha256") if known.get("bytes") == path.stat().st_size else None
