"""Load the tokenizer that a model's config names, and read which tokens end an answer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def string(parameters: dict[str, Any], key: str, default: str = "") -> str:
    """A string parameter of Triton's model config; the default where it is missing, empty or an unfilled ``${...}``."""
    value = str(parameters.get(key, {}).get("string_value", "")).strip()
    return default if not value or value.startswith("${") else value


def flag(parameters: dict[str, Any], key: str, default: bool) -> bool:
    """A yes-or-no parameter, in the spellings that NVIDIA's preprocessing takes."""
    value = string(parameters, key).lower()
    known = {
        **dict.fromkeys(("true", "1", "t", "y", "yes"), True),
        **dict.fromkeys(("false", "0", "f", "n", "no"), False),
    }
    return known.get(value, default)


def asset(model_folder: str, path: str) -> Path:
    """A path of the config; a relative one starts at the repository, the folder above the model's own."""
    return Path(os.path.normpath(Path(model_folder).parent / path))


GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the same class, before and since transformers 5


def load_tokenizer(folder: Path) -> Any:
    """The Hugging Face tokenizer in ``folder``; never from the hub, and no program of the model's maker is run.

    A tokenizer that is all in ``tokenizer.json`` is read without AutoTokenizer, which would import torch: seconds.

    Raises:
        ValueError: there is no such folder (transformers would take the path for a name on the hub).
    """
    if not folder.is_dir():
        raise ValueError(f"tokenizer_dir: there is no folder {folder}")
    settings = folder / "tokenizer_config.json"
    kind = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") if settings.is_file() else None
    if kind in GENERIC and (folder / "tokenizer.json").is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def end_ids(tokenizer: Any, folder: Path) -> list[int]:
    """All tokens that end an answer: the tokenizer's own, then those of ``generation_config.json``."""
    path = folder / "generation_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
    also = named if isinstance(named, list) else [] if named is None else [named]
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return list(dict.fromkeys(int(id) for id in [*own, *also]))
