"""The weights of an engine on disk: what the graphs take, once each, in the file of the rank that they came from."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from labsupport.engine.folder import weights_file
from labsupport.engine.parts import Parts


def named_weights(parts: Parts) -> dict[str, Tensor]:
    """Every weight of the network: ``inputs.<name>``, ``layers.<i>.<name>``, ``head.<name>``."""
    found = {f"inputs.{name}": tensor for name, tensor in parts.inputs.state_dict().items()}
    for index, part in enumerate(parts.layers):
        found |= {f"layers.{index}.{name}": tensor for name, tensor in zip(part.names, part.weights(), strict=True)}
    return found | {f"head.{name}": tensor for name, tensor in zip(parts.head.names, parts.head.weights(), strict=True)}


def write_weights(parts: Parts, folder: Path) -> dict[str, str]:
    """Write ``rank<r>_managed_weights.safetensors`` for every rank.

    Returns:
        Weights that are stored under another's name: a head that is tied to the embedding.
    """
    from safetensors.torch import save_file

    weights = named_weights(parts)
    same = _tied(weights)
    files: list[dict[str, Tensor]] = [{} for _ in range(parts.config.mapping.files)]
    for name, tensor in weights.items():
        if name not in same:
            files[_rank_of(name, parts)][name] = tensor.detach().cpu().contiguous()
    for rank, tensors in enumerate(files):
        save_file(tensors, weights_file(folder, rank))
    return same


def _tied(weights: dict[str, Tensor]) -> dict[str, str]:
    tables = {name: tensor for name, tensor in weights.items() if name.startswith("inputs.tokens.")}
    return {
        name: table
        for name, tensor in weights.items()
        if name.startswith("head.") and tensor.dim() == 2
        for table, other in tables.items()
        if tensor.dtype == other.dtype and tensor.shape == other.shape and torch.equal(tensor, other)
    }


def _rank_of(name: str, parts: Parts) -> int:
    """The rank whose checkpoint file held a weight: its stage's first, plus its place among the shards."""
    mapping, config = parts.config.mapping, parts.config
    stage = mapping.pp_size - 1 if name.startswith("head.") else 0
    if layer := re.match(r"layers\.(\d+)\.", name):
        first_ranks = range(0, mapping.files, mapping.tp_size)
        stage = next(place for place, rank in enumerate(first_ranks) if int(layer[1]) in config.layers_of(rank))
    shard = re.search(r"\.(?:shards|tables)\.(\d+)", name)
    return stage * mapping.tp_size + (int(shard[1]) if shard else 0)
