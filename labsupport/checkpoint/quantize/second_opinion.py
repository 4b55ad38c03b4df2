"""A second opinion on quantized tensors: ModelOpt calibrates, and exports by itself; the two are compared."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from labsupport.checkpoint.config import read_config
from labsupport.checkpoint.config_families import family_of
from labsupport.checkpoint.quantize.arithmetic import unpack_int4
from labsupport.checkpoint.quantize.calibrate import observed, read_pieces
from labsupport.checkpoint.quantize.recipes import QuantizeOptions
from labsupport.checkpoint.second_opinion import DECODER_TYPES
from labsupport.errors import CheckpointError


@dataclass(frozen=True)
class Agreement:
    """One tensor of both checkpoints.

    Args:
        name: with its rank, ``rank0 transformer.layers.0.mlp.fc.weight``.
        equal: share of its numbers that are the same bits (four-bit numbers are unpacked first).
        largest: largest difference; of whole numbers in steps, of others relative to the largest number.
    """

    name: str
    equal: float
    largest: float


@dataclass(frozen=True)
class QuantizedOpinion:
    """How ModelOpt's export differs from our checkpoint.

    Args:
        tensors: that both have.
        only_ours, only_theirs: names that one of them lacks.
    """

    tensors: tuple[Agreement, ...]
    only_ours: tuple[str, ...]
    only_theirs: tuple[str, ...]


def quantized_opinion(
    checkpoint: Path, model: Path, options: QuantizeOptions, folder: Path, text: Path | None = None
) -> QuantizedOpinion:
    """Let ModelOpt quantize and export ``model`` and compare the tensors of quantized layers and caches.

    Args:
        checkpoint: ours, float16 or bfloat16, made with the same ``options`` and ``text``.
        folder: where ModelOpt's export goes.

    Raises:
        CheckpointError: ModelOpt does not export the family.
    """
    from safetensors.torch import load_file

    config = read_config(checkpoint)
    decoder_type = DECODER_TYPES.get(family_of(config.architecture).name)
    if decoder_type is None:
        raise CheckpointError(
            f"ModelOpt does not export {config.architecture}",
            why=f"its TensorRT-LLM export knows {', '.join(DECODER_TYPES)}",
            fix="labs verify   proves the checkpoint without a second opinion",
        )
    network, _ = observed(model, options, config.quantization.group_size, read_pieces(model, text))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        from modelopt.torch.export import export_tensorrt_llm_checkpoint

        export_tensorrt_llm_checkpoint(
            network,
            decoder_type,
            dtype=getattr(torch, config.dtype),
            export_dir=folder,
            inference_tensor_parallel=config.mapping.tp_size,
            inference_pipeline_parallel=config.mapping.pp_size,
        )
    found, ours, theirs = [], set(), set()
    for rank in range(config.mapping.files):
        mine, other = (_of_layers(load_file(home / f"rank{rank}.safetensors")) for home in (checkpoint, folder))
        found += [_agreement(f"rank{rank} {name}", mine[name], other[name]) for name in mine if name in other]
        ours |= mine.keys() - other.keys()
        theirs |= other.keys() - mine.keys()
    return QuantizedOpinion(tuple(found), tuple(sorted(ours)), tuple(sorted(theirs)))


def _of_layers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if ".layers." in name}


def _agreement(name: str, ours: Tensor, theirs: Tensor) -> Agreement:
    packed = ours.dtype == torch.int8 and name.endswith(".weight")
    one, other = (unpack_int4(each) if packed else each for each in (ours, theirs.view(ours.dtype)))
    if one.shape != other.shape:
        return Agreement(name, 0.0, float("inf"))
    equal = float((one.float() == other.float()).double().mean())
    distance = float((one.double() - other.double()).abs().max())
    return Agreement(
        name, equal, distance if ours.dtype == torch.int8 else distance / float(other.double().abs().max())
    )
