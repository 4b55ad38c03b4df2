"""Any model of the hub, by its id: the safetensors, the configuration and the tokenizer, and nothing else.

A token for models with terms is read from the environment (``HF_TOKEN``) by the hub's own client; nothing here takes,
prints or stores one. Files that arrived stay in ``work/downloads/`` until all are there, so a broken fetch goes on.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from labsupport.errors import DownloadError, LicenseError, ModelError
from labsupport.models.download import require_checksum
from labsupport.models.local import PICKLES, pickle_only, read_json, validate_folder
from labsupport.models.place import is_present, model_folder, only_one, seal, sweep
from labsupport.workspace import Workspace, atomic_folder, full_disk, require_space

WANTED = ("*.safetensors", "*.json", "tokenizer.model", "merges.txt", "*.jinja", "LICENSE*", "NOTICE*")


def fetch_hub(name: str, *, progress: bool = True) -> Path:
    """Return the folder of a hub model, downloaded first where it is missing.

    Args:
        name: ``organization/name``.
        progress: show the download as text on stderr.

    Raises:
        ModelError: the hub has no such model, or its weights come as pickle only.
        LicenseError: the model has terms that this account has not accepted.
        DownloadError: the hub cannot be reached. ChecksumError, SpaceError: as they say.
    """
    folder = model_folder(name)
    if is_present(name):
        return folder
    with only_one(name):
        if not is_present(name):
            sweep(folder)
            with _hub_errors(name):
                _download(name, folder, progress=progress)
    return folder


def _download(name: str, folder: Path, *, progress: bool) -> None:
    from huggingface_hub import HfApi, snapshot_download
    from tqdm.asyncio import tqdm_asyncio

    class Bar(tqdm_asyncio):  # type: ignore[type-arg]
        """The hub's bars, on stderr, or none."""

        def __init__(self, *args: Any, **settings: Any) -> None:
            settings.pop("name", None)
            super().__init__(*args, **{**settings, "disable": not progress})

    info = HfApi().model_info(name, files_metadata=True)
    files = _choose(name, info.siblings or [])
    require_space(folder, sum(file.size or 0 for file in files))
    staging = Workspace.current().downloads / folder.name
    chosen = [file.rfilename for file in files]
    snapshot_download(name, revision=info.sha, local_dir=staging, allow_patterns=chosen, tqdm_class=Bar)
    for file in files:
        if file.lfs is not None:
            require_checksum(staging / file.rfilename, file.lfs.sha256, source=name)
    validate_folder(staging)
    with atomic_folder(folder) as making:
        for path in chosen:
            (staging / path).replace(making / path)
        seal(making, _facts(name, info, making))
    shutil.rmtree(staging)


def _choose(name: str, siblings: list[Any]) -> list[Any]:
    """The files at the top of the repository that a model is loaded from; never a pickle."""
    top = [file for file in siblings if "/" not in file.rfilename]
    if not any(file.rfilename.endswith(".safetensors") for file in top):
        pickles = [file.rfilename for file in top if any(fnmatch(file.rfilename, pattern) for pattern in PICKLES)]
        if pickles:
            raise pickle_only(name, pickles)
        raise ModelError(
            f"{name} has no safetensors on the hub",
            why="it is not a transformers model, or it is published in another form (GGUF, adapters, ONNX)",
            fix="look on the model's page for the model that it was made from, and fetch that",
        )
    return [file for file in top if any(fnmatch(file.rfilename, pattern) for pattern in WANTED)]


def _facts(name: str, info: Any, folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    return {
        "model": name,
        "license": (info.card_data or {}).get("license") or "see the model's page",
        "hub": {"id": name, "revision": info.sha},
        "published_precision": config.get("dtype") or config.get("torch_dtype") or "not said in config.json",
    }


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Say what the hub's client says in our words."""
    from huggingface_hub import constants, errors

    transport_error: type[Exception] = vars(errors)["HTTPError"]  # of whichever HTTP library the client is built on
    page = f"{constants.ENDPOINT}/{name}"
    try:
        yield
    except errors.GatedRepoError as problem:
        raise LicenseError(
            f"{name} comes under terms that you have to accept on the hub first",
            why="the hub gives its files only to an account that has accepted them",
            fix=f"accept them at {page}, then run again with HF_TOKEN set to a read token of that account",
        ) from problem
    except errors.RepositoryNotFoundError as problem:
        raise ModelError(
            f"the hub has no model {name}, or it is private",
            why=f"nothing is shown at {page} without permission",
            fix="check the spelling; for a private model set HF_TOKEN to a read token",
        ) from problem
    except (transport_error, OSError) as problem:
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full_disk(model_folder(name)) from problem
        raise DownloadError(
            f"{name} could not be fetched from the hub",
            why=f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else 'no answer'}",
            fix=f"check the network and the proxy, and run it again (it goes on where it stopped); "
            f"or copy the model's folder here by hand and name that folder. The page: {page}",
        ) from problem
