"""The engine folder: ``config.json``, and for each rank ``rank<r>.engine`` with its weights beside it.

``rank<r>.engine`` is a zip: ``engine.json`` (what it is bound to, and how the parts fit together) and the compiled
graphs. All ranks run in one process, so the graphs lie with rank 0. ``rank<r>_managed_weights.safetensors`` has the
name that ``trtllm-build --fast_build`` gives to weights outside an engine; it is mapped into memory and not read in.

Source of the layout: TensorRT-LLM 0.20, ``tensorrt_llm/builder.py``, ``Engine.save``.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from labsupport import __version__
from labsupport.checkpoint.config import CONFIG, CheckpointConfig, parse_config
from labsupport.engine.build_config import BuildConfig
from labsupport.errors import EngineError
from labsupport.workspace import atomic_text

MANIFEST, REPORT = "engine.json", "build_report.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """``engine.json``.

    Args:
        bound_to: see :func:`labsupport.engine.machine.fingerprint`.
        graphs: names of the compiled graphs.
        layers: for each layer the kind of its graphs, its window, and its pools, [heads, size] for each rank.
        names: weights that the graphs of a kind take, in order.
        same: a weight that is stored once under another's name (a tied head).
    """

    bound_to: dict[str, Any]
    graphs: list[str]
    layers: list[dict[str, Any]]
    names: dict[str, list[str]]
    same: dict[str, str]


def write_config(folder: Path, model: CheckpointConfig, options: BuildConfig) -> None:
    """Write ``config.json``: version, pretrained_config, build_config."""
    written = {
        "version": f"labs-{__version__}",
        "pretrained_config": model.to_json(),
        "build_config": options.model_dump(mode="json"),
    }
    atomic_text(folder / CONFIG, json.dumps(written, indent=4) + "\n")


def write_engine(path: Path, manifest: Manifest, graphs: Mapping[str, Path]) -> None:
    """Write ``rank<r>.engine``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(MANIFEST, json.dumps({"format": FORMAT, **vars(manifest)}, indent=2))
        for name, graph in graphs.items():
            archive.write(graph, f"{name}.pt2")


def read_config(folder: Path) -> tuple[CheckpointConfig, BuildConfig]:
    """The two halves of an engine's ``config.json``.

    Raises:
        EngineError: there is none, or it is that of something else.
    """
    try:
        raw = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return parse_config(raw["pretrained_config"], str(folder / CONFIG)), BuildConfig(**raw["build_config"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise EngineError(
            f"{folder} holds no engine",
            why=f"config.json with pretrained_config and build_config cannot be read from it: {problem}",
            fix="name a folder that `labs build` wrote; a checkpoint becomes one by: labs build CHECKPOINT",
        ) from None


def read_manifest(folder: Path, rank: int = 0) -> Manifest:
    """``engine.json`` of a rank.

    Raises:
        EngineError: the file is missing, cut short, or of another format.
    """
    path = folder / f"rank{rank}.engine"
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(archive.read(MANIFEST))
    except (OSError, KeyError, zipfile.BadZipFile, ValueError) as problem:
        raise EngineError(
            f"{path} cannot be read",
            why=f"{problem}; an engine of TensorRT itself opens in its container alone",
            fix="build the checkpoint again: labs build --force",
        ) from None
    if found.pop("format", None) != FORMAT:
        raise EngineError(
            f"{path} has another format", why="another version of labs wrote it", fix="labs build --force"
        )
    return Manifest(**found)


@contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """The compiled graphs as files, as long as the block runs; a loaded graph needs its file no more."""
    with TemporaryDirectory(prefix="engine-") as place, zipfile.ZipFile(folder / "rank0.engine") as archive:
        archive.extractall(place, [name for name in archive.namelist() if name.endswith(".pt2")])
        yield Path(place)


def weights_file(folder: Path, rank: int) -> Path:
    """Where the weights of a rank lie."""
    return folder / f"rank{rank}_managed_weights.safetensors"


def read_weights(folder: Path, ranks: int) -> dict[str, Tensor]:
    """The weights of all ranks, mapped into memory: name -> tensor.

    Raises:
        EngineError: a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, Tensor] = {}
    for rank in range(ranks):
        path = weights_file(folder, rank)
        try:
            with safe_open(path, framework="pt") as file:
                found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as problem:
            raise EngineError(
                f"{path} cannot be read", why=str(problem), fix="build the checkpoint again: labs build --force"
            ) from None
    return found
