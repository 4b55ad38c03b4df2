"""Where models lie in the workspace, and whether they are whole. Imports nothing heavy: a second fetch is instant."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from labsupport.models.catalogue import CATALOGUE
from labsupport.workspace import RECORD, Workspace, read_record, sha256, write_record

RECIPE = 2  # raise it when the folder made from the same file changes: folders of an older recipe are made again


@dataclass(frozen=True)
class ModelState:
    """One line of ``labs models``.

    Args:
        name: catalogue name or hub id.
        title: one line on what it is.
        present: whether it lies in the workspace, whole.
        download_bytes: what a fetch brings over the network; None where only the hub knows.
        disk_bytes: the folder's size, as it is or as it will be, nearly.
        license: the license's short name.
        terms: where terms that must be accepted can be read, or None.
        precision: the precision of the published weights.
    """

    name: str
    title: str
    present: bool
    download_bytes: int | None
    disk_bytes: int
    license: str
    terms: str | None
    precision: str


def list_models() -> list[ModelState]:
    """The catalogue, and then what else was fetched into this workspace."""
    return [_catalogue_state(name) for name in CATALOGUE] + _fetched_from_hub()


def model_folder(name: str) -> Path:
    """Where a catalogue model or a hub model lies, or will lie, in the workspace."""
    return Workspace.current().checkpoints / name.replace("/", "--")


def is_present(name: str) -> bool:
    """Whether a model is in the workspace, whole: every file that its record names has the size it had."""
    folder = model_folder(name)
    try:
        record = read_record(folder)
    except ValueError:  # a record that somebody damaged: make the folder again
        return False
    if record is None or record.get("recipe") != RECIPE:
        return False
    files: dict[str, dict[str, Any]] = record["files"]
    return all(_size(folder / file) == facts["bytes"] for file, facts in files.items())


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the folder's record: ``facts``, and each file's size and SHA-256."""
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors writes private files; a workspace may be shared
        files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_record(folder, {**facts, "recipe": RECIPE, "files": files})


def only_one(name: str) -> FileLock:
    """A lock on a model's folder across processes: who comes second waits, and finds the model made."""
    folder = model_folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.parent / f".{folder.name}.lock")


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written beside ``folder``. The caller holds the lock."""
    half_written = re.compile(rf"\.{re.escape(folder.name)}\.(old\.)?\w{{8}}")
    for path in folder.parent.iterdir():
        if path.is_dir() and half_written.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _catalogue_state(name: str) -> ModelState:
    model, present = CATALOGUE[name], is_present(name)
    return ModelState(
        name=name,
        title=model.title,
        present=present,
        download_bytes=model.download_size,
        disk_bytes=_bytes_in(model_folder(name)) if present else model.folder_size,
        license=model.license,
        terms=model.terms,
        precision=model.precision,
    )


def _fetched_from_hub() -> list[ModelState]:
    states = []
    for record_file in sorted(Workspace.current().checkpoints.glob(f"*/{RECORD}")):
        record = read_record(record_file.parent) or {}
        if record.get("model") in CATALOGUE or "hub" not in record:
            continue
        states.append(
            ModelState(
                name=record["model"],
                title=f"from the hub, revision {record['hub']['revision'][:8]}",
                present=is_present(record["model"]),
                download_bytes=None,
                disk_bytes=_bytes_in(record_file.parent),
                license=record["license"],
                terms=None,
                precision=record["published_precision"],
            )
        )
    return states


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
