"""The sizes that decide how much memory a model takes, from the published table or from any Hugging Face folder."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from labsupport.errors import ModelError, ParameterError
from labsupport.workspace import Workspace, data_folder

FILE = "hardware_and_shapes.json"
PLAIN_MLP = ("GPT2LMHeadModel", "OPTForCausalLM")  # up and down; all other families have a gate as well


@dataclass(frozen=True)
class Shape:
    """What the memory of a decoder depends on.

    Args:
        title: the name to print.
        parameters: number of weights, a tensor that is used twice (tied) counted once.
        kv_heads: heads of keys and values; fewer than ``heads`` in grouped-query attention.
        tied: True where the output head is the embedding table.
        context: the longest sequence, in tokens, that the model was published for.
    """

    title: str
    architecture: str
    parameters: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    intermediate: int
    vocab: int
    tied: bool
    context: int

    @property
    def table_parameters(self) -> int:
        """Weights of the embedding table and the output head, which weight-only quantization leaves alone."""
        return self.vocab * self.hidden * (1 if self.tied else 2)


@dataclass(frozen=True)
class Device:
    """Where the model is to run. ``bandwidth_gb_s`` is None where it is not known (this machine's RAM)."""

    title: str
    memory_mib: int
    bandwidth_gb_s: float | None
    compute_capability: str | None
    data_center: bool = False

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes; nvidia-smi and the operating system count in MiB."""
        return self.memory_mib * 1024**2


@cache
def known_shapes() -> dict[str, Shape]:
    """The published shapes, by name."""
    return {name: Shape(**row) for name, row in _table()["models"].items()}


@cache
def known_gpus() -> dict[str, Device]:
    """The GPUs of the table, by name."""
    return {name: Device(**row) for name, row in _table()["gpus"].items()}


def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads((data_folder() / FILE).read_text(encoding="utf-8"))
    return table


def find_gpu(name: str) -> Device:
    """The GPU ``name`` of the table; capitals, blanks and ``rtx`` do not matter.

    Raises:
        ParameterError: the table has no such GPU.
    """
    plain = name.lower().replace("nvidia", "").replace("rtx", "").replace("geforce", "").strip(" -_").replace(" ", "-")
    if plain not in known_gpus():
        raise ParameterError(
            f"no GPU {name!r} in the table",
            why=f"it holds {', '.join(known_gpus())}",
            fix="name one of these, or leave --gpu out to take what this machine has",
        )
    return known_gpus()[plain]


def find_shape(name: str) -> Shape:
    """The shape of a published model, of a model in the workspace, or of a Hugging Face folder.

    Raises:
        ParameterError: nothing of that name is known here.
        ModelError: the folder's config.json cannot be used.
    """
    if name.lower() in known_shapes():
        return known_shapes()[name.lower()]
    for folder in (Path(name).expanduser(), Workspace.current().checkpoints / name):
        if (folder / "config.json").is_file():
            return shape_of_folder(folder)
    raise ParameterError(
        f"no shape is known for {name!r}",
        why=f"it is neither a folder with a config.json, nor in the workspace, nor one of: {', '.join(known_shapes())}",
        fix="give a Hugging Face folder, or fetch the model first: labs fetch <model>",
    )


def shape_of_folder(folder: Path) -> Shape:
    """Read the shape from ``config.json``; count the weights in the safetensors headers where there are any.

    Raises:
        ModelError: config.json is not JSON, or lacks a size.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        config: dict[str, Any] = raw.get("text_config", raw)  # models that also see keep the decoder's sizes one down
        architecture = (config.get("architectures") or raw.get("architectures") or ["unknown"])[0]
        hidden = int(_first(config, "hidden_size", "n_embd"))
        heads = int(_first(config, "num_attention_heads", "n_head"))
        shape = Shape(
            title=folder.resolve().name,
            architecture=architecture,
            parameters=0,
            layers=int(_first(config, "num_hidden_layers", "n_layer")),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or hidden // heads),
            hidden=hidden,
            intermediate=int(_first(config, "intermediate_size", "ffn_dim", "n_inner", default=4 * hidden)),
            vocab=int(config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", _tied_by_default(architecture))),
            context=int(_first(config, "max_position_embeddings", "n_positions", default=2048)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise ModelError(
            f"{path} does not describe a decoder",
            why=f"{type(problem).__name__}: {problem}",
            fix="fetch the model again, or give the folder that holds its config.json",
        ) from problem
    counted = count_safetensors(folder)
    return Shape(**{**vars(shape), "parameters": counted or count_parameters(shape)})


def _first(config: dict[str, Any], *names: str, default: int | None = None) -> Any:
    for name in names:
        if config.get(name) is not None:
            return config[name]
    if default is None:
        raise KeyError(" or ".join(names))
    return default


def _tied_by_default(architecture: str) -> bool:
    """transformers writes ``tie_word_embeddings`` only where it differs from the family's default."""
    return architecture.startswith(("Gemma", "GPT2", "OPT"))


def count_parameters(shape: Shape) -> int:
    """Weights of a decoder from its sizes: tables, attention and MLP; norms and biases (under 0.2 %) are left out.

    Example:
        >>> round(count_parameters(known_shapes()["llama-2-7b"]) / 1e9, 2)
        6.74
    """
    attention = shape.hidden * shape.head_size * (2 * shape.heads + 2 * shape.kv_heads)
    mlp = shape.hidden * shape.intermediate * (2 if shape.architecture in PLAIN_MLP else 3)
    positions = shape.context * shape.hidden if shape.architecture in PLAIN_MLP else 0
    return shape.table_parameters + positions + shape.layers * (attention + mlp)


def count_safetensors(folder: Path) -> int:
    """Elements in all safetensors files of ``folder``, read from their headers; 0 where there are none.

    Source of the layout: safetensors README (8 bytes, little endian: length of the JSON header that follows).

    Raises:
        ModelError: a file is cut off or is not safetensors.
    """
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header: dict[str, Any] = json.loads(file.read(length))
            total += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (struct.error, ValueError, KeyError, TypeError, OverflowError, MemoryError) as problem:
            raise ModelError(
                f"{path} is not a whole safetensors file",
                why=f"its header cannot be read ({type(problem).__name__}: {problem})",
                fix="delete the folder and fetch the model again",
            ) from problem
    return total
