"""A folder that somebody brings: is it a model that the labs can use? Checked without loading it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from labsupport.errors import ModelError

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
INDEX = "model.safetensors.index.json"


def validate_folder(folder: Path) -> Path:
    """Return ``folder`` if it holds config.json, whole safetensors files and a tokenizer.

    Raises:
        ModelError: what is missing or damaged, and the way out. A folder with pickled weights only is refused,
            because reading a pickle runs whatever program its maker put inside.
    """
    if not folder.is_dir():
        raise ModelError(
            f"no folder {folder}", why="a name that begins with . / or ~ is read as a folder", fix="ls, or: labs models"
        )
    config = read_json(folder / "config.json")
    if "model_type" not in config:
        raise ModelError(
            f"{folder / 'config.json'} has no model_type",
            why="it is not the configuration of a Hugging Face model",
            fix="save the model with model.save_pretrained(folder)",
        )
    for shard in shards(folder):
        require_whole(shard)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(
            f"{folder} has no tokenizer",
            why=f"none of {', '.join(TOKENIZERS)} is there",
            fix="save it beside the model with tokenizer.save_pretrained(folder)",
        )
    return folder


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a model, as its index names them, or the single one.

    Raises:
        ModelError: there is none, or one that the index names is missing.
    """
    if (folder / INDEX).is_file():
        named = sorted({folder / name for name in read_json(folder / INDEX).get("weight_map", {}).values()})
        missing = [path.name for path in named if not path.is_file()]
        if missing:
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(named)} shards: {', '.join(missing[:3])}",
                why=f"{INDEX} names them",
                fix="copy the missing files, or fetch the model again",
            )
        return named
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        raise pickle_only(str(folder), pickles) if pickles else _no_weights(folder)
    return found


def pickle_only(model: str, pickles: list[str]) -> ModelError:
    """The error for a model whose weights come as pickles only."""
    return ModelError(
        f"{model} has its weights only as pickle ({', '.join(pickles[:3])})",
        why="reading a pickle runs whatever program its maker put inside, so the labs never do",
        fix="where you trust its maker, rewrite it once: AutoModelForCausalLM.from_pretrained(folder, "
        "use_safetensors=False).save_pretrained(new_folder)",
    )


def _no_weights(folder: Path) -> ModelError:
    return ModelError(
        f"{folder} has no weights",
        why="no *.safetensors file is there",
        fix="save the model with model.save_pretrained(folder)",
    )


def require_whole(path: Path) -> None:
    """Check that a safetensors file is as long as its header says.

    Source: the safetensors format: 8 bytes little-endian header length, a JSON header with ``data_offsets``, the data.

    Raises:
        ModelError: it is shorter, longer, or not a safetensors file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length < size else {}
        expected = (
            8 + length + max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        )
    except (struct.error, ValueError, AttributeError, KeyError, TypeError) as problem:
        raise ModelError(
            f"{path} is not a safetensors file", why="its header cannot be read", fix="fetch or save it again"
        ) from problem
    if size != expected:
        raise ModelError(
            f"{path} has {size:,} bytes, and its header promises {expected:,}",
            why="the file was cut off on its way, or damaged",
            fix="fetch or copy it again",
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ModelError: the file is missing, or holds no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise ModelError(
            f"{path.parent} has no {path.name}",
            why="it is not the folder of a Hugging Face model",
            fix="name the folder that holds config.json, or save the model with model.save_pretrained(folder)",
        ) from problem
    except ValueError as problem:
        raise ModelError(f"{path} is not JSON", why=str(problem), fix="fetch or save it again") from problem
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object", why=f"it holds {found!r:.40}", fix="fetch or save it again")
    return found
