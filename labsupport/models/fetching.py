"""``fetch``: a catalogue name, a hub id or a folder becomes a Hugging Face folder on this disk."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from labsupport.errors import ModelError
from labsupport.models.catalogue import CATALOGUE
from labsupport.models.from_wheels import fetch_catalogue
from labsupport.models.local import validate_folder

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
        return fetch_catalogue(CATALOGUE[name], accept_terms=accept_terms, progress=progress)
    if name and (name[0] in "./~" or Path(name).is_dir()):
        return validate_folder(Path(name).expanduser().resolve())
    if HUB_ID.fullmatch(name):
        from labsupport.models.hub import fetch_hub

        return fetch_hub(name, progress=progress)
    close = difflib.get_close_matches(name.lower(), CATALOGUE, n=1, cutoff=0.4)
    raise ModelError(
        f"no model {name!r}",
        why=f"it is none of {', '.join(CATALOGUE)}, no folder here, and no hub id (organization/name)",
        fix=f"labs fetch {close[0]}" if close else "labs models",
    )
