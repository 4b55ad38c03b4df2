"""The weights that are about to be quantized: read whole, and looked at before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, read_json
from labsupport.checkpoint.convert_joined import is_checkpoint
from labsupport.checkpoint.convert_source import Source
from labsupport.checkpoint.convert_write import piece_blocks
from labsupport.checkpoint.expected import QUANTIZED_MODULES
from labsupport.checkpoint.layout_cut import Target
from labsupport.errors import CheckpointError, ParameterError


@dataclass(frozen=True)
class Note:
    """Something odd about the weights that does not stop the work.

    Args:
        tensor: the TensorRT-LLM name.
        rows: how many of its output rows are zeros throughout.
    """

    tensor: str
    rows: int

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.tensor} are zeros throughout: their scale is set to 1, and they stay zero"


def require_float(folder: Path, *, calibrated: bool) -> None:
    """Quantizing starts from float weights; calibrating from a model that transformers can run.

    Raises:
        CheckpointError: the weights are quantized already.
        ParameterError: ``folder`` is a TensorRT-LLM checkpoint and texts have to be run through the model.
    """
    raw = read_json(folder / CONFIG)
    ours = (raw.get("quantization") or {}).get("quant_algo") if is_checkpoint(folder) else None
    found = ours or (raw.get("quantization_config") or {}).get("quant_method")
    if found and found != "NO_QUANT":
        raise CheckpointError(
            f"{folder} is quantized already ({found})",
            why="what its first rounding lost does not come back, and a second one adds its own error",
            fix="start from the model that it was made from",
        )
    if is_checkpoint(folder) and calibrated:
        raise ParameterError(
            f"{folder} is a TensorRT-LLM checkpoint",
            why="this recipe is calibrated, for which transformers runs the model with its tokenizer",
            fix="name the Hugging Face folder that it was made from",
        )


def is_quantizable(name: str) -> bool:
    """Whether a tensor is the weight of a layer that recipes quantize."""
    return name.endswith(tuple(f"{module}.weight" for module in QUANTIZED_MODULES))


def read_whole(source: Source, target: Target) -> Tensor:
    """A tensor put together from its pieces, float32."""
    whole = np.zeros(target.shape, np.float32)
    top = 0
    for piece in target.pieces:
        for block in piece_blocks(source, piece, "F32"):
            whole[top : top + len(block)] = block
            top += len(block)
    return torch.from_numpy(whole)


def look(source: Source, config: CheckpointConfig, targets: tuple[Target, ...]) -> Iterator[Note]:
    """Every weight that will be quantized, on one rank or whole.

    Raises:
        CheckpointError: one holds NaN or infinite values, or nothing but zeros.
    """
    for target in targets:
        if not is_quantizable(target.name):
            continue
        weight = read_whole(source, target)
        name = target.pieces[0].source
        if bad := int((~weight.isfinite()).sum()):
            raise CheckpointError(
                f"{name} holds {bad:,} values that are NaN or infinite",
                why=f"each would spoil the scale of all that share one with it; the model is a {config.architecture}",
                fix="get the model again, or look at how it was trained",
            )
        zeros = int((weight == 0).all(dim=1).sum())
        if zeros == len(weight):
            raise CheckpointError(
                f"{name} holds nothing but zeros",
                why="such a layer was never trained or never loaded, and has no scale",
                fix="get the model again",
            )
        if zeros:
            yield Note(target.name, zeros)
