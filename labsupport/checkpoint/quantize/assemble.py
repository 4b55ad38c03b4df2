"""The tensors of a quantized checkpoint: every weight whole, in its form, and then cut for each rank."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan
from pathlib import Path

import torch
from torch import Tensor

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.convert_plan import Plan
from labsupport.checkpoint.convert_source import Source
from labsupport.checkpoint.expected import QUANTIZED_AT_BUILD
from labsupport.checkpoint.layout import joined_rows, rows
from labsupport.checkpoint.layout_cut import Target, targets
from labsupport.checkpoint.quantize.calibrate import Calibration, Inputs, merge
from labsupport.checkpoint.quantize.compensate import compensated
from labsupport.checkpoint.quantize.forms import Form, cache_scale, fp8_form, int4_form, int8_smooth_form
from labsupport.checkpoint.quantize.source import is_quantizable, read_whole
from labsupport.errors import CheckpointError

CUT_BY_INPUTS = ("attention.dense.weight", "mlp.proj.weight")  # each rank holds some of the inputs of every row


def write_ranks(source: Source, whole: Plan, config: CheckpointConfig, calibration: Calibration, folder: Path) -> None:
    """Write ``rank<r>.safetensors`` of every rank.

    Args:
        whole: how the model lies on one rank, unquantized.
        config: of the checkpoint, quantization and ranks settled.
        calibration: what the layers were given; empty where nothing is calibrated.
    """
    from safetensors.torch import save_file

    tensors = _whole_tensors(source, whole, config, calibration)
    for rank in range(config.mapping.files):
        path = folder / f"rank{rank}.safetensors"
        save_file(_rank_tensors(config, rank, tensors, calibration), path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors writes private files; a workspace may be shared


def _whole_tensors(
    source: Source, whole: Plan, config: CheckpointConfig, calibration: Calibration
) -> dict[str, Form | Tensor]:
    """Every tensor of the model, uncut: as a form where it is stored in fewer bits, else in the checkpoint's dtype."""
    dtype = getattr(torch, config.dtype)
    held = {target.name: target for target in whole.ranks[0]}
    found: dict[str, Form | Tensor] = {}
    at_build = config.quantization.quant_algo in (None, *QUANTIZED_AT_BUILD)
    for name, target in held.items():
        if name in found:
            continue
        if at_build or not is_quantizable(name):
            floats = _narrow(read_whole(source, target), dtype, target)
            gram = _given(whole.config, [name], calibration).gram if is_quantizable(name) else None
            ranks = config.mapping.tp_size if name.endswith(CUT_BY_INPUTS) else 1
            found[name] = floats if gram is None else compensated(floats, gram, ranks=ranks).to(dtype)
            continue
        names = [one for one in _share_a_scale(config, name) if one in held]
        given = _given(whole.config, names, calibration)
        weights = [read_whole(source, held[one]) for one in names]
        found |= dict(zip(names, _forms(config, weights, given), strict=True))
    return found


def _given(config: CheckpointConfig, names: list[str], calibration: Calibration) -> Inputs:
    if not calibration.inputs:
        return Inputs(nan)
    return merge([calibration.inputs[module] for name in names for module in _modules(config, name)])


def _forms(config: CheckpointConfig, weights: list[Tensor], given: Inputs) -> list[Form]:
    quantization, dtype = config.quantization, getattr(torch, config.dtype)
    if quantization.quant_algo == "W4A16_AWQ":
        return int4_form(weights, given, quantization.group_size, dtype)
    if quantization.quant_algo == "W8A8_SQ_PER_CHANNEL":
        return int8_smooth_form(weights, given, dtype)
    return fp8_form(weights, given)


def _narrow(whole: Tensor, dtype: torch.dtype, target: Target) -> Tensor:
    made = whole.to(dtype)
    if not bool(made.isfinite().all()):
        raise CheckpointError(
            f"tensor {target.pieces[0].source} holds {float(whole.abs().max()):.4g}, which {dtype} cannot",
            why="float16 ends at 65504; beyond it, and where the model holds NaN, a value is lost",
            fix="use --dtype bfloat16 or float32, or look at the original model",
        )
    return made


def _share_a_scale(config: CheckpointConfig, name: str) -> list[str]:
    """fc and gate read one input, and FP8 gives them one scale, so that the engine may multiply both at once."""
    module = next((one for one in (".mlp.fc.", ".mlp.gate.") if one in name), None)
    if module is None or config.quantization.quant_algo != "FP8":
        return [name]
    return [name.replace(module, ".mlp.fc."), name.replace(module, ".mlp.gate.")]


def _modules(config: CheckpointConfig, name: str) -> Iterator[str]:
    """The Hugging Face modules that a weight is stacked from."""
    row = next(row for row in rows(config) if row.name == _starred(name))
    yield from dict.fromkeys(source.removesuffix(".weight") for source in row.sources(_layer(name)))


def _rank_tensors(
    config: CheckpointConfig, rank: int, whole: dict[str, Form | Tensor], calibration: Calibration
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for target in targets(config, rank, joined_rows(config)):
        held = whole[target.pieces[0].source]
        if isinstance(held, Form):
            module = target.name.removesuffix(".weight")
            found |= {f"{module}.{part}": tensor for part, tensor in held.cut(target.pieces).items()}
        else:
            found[target.name] = _cut(held, target)
    if algo := config.quantization.kv_cache_quant_algo:
        for local, layer in enumerate(config.layers_of(rank)):
            name = f"transformer.layers.{local}.attention.kv_cache_scaling_factor"
            found[name] = cache_scale(calibration.caches[layer], algo)
    return found


def _cut(whole: Tensor, target: Target) -> Tensor:
    boxes = [whole[slice(*piece.rows)] for piece in target.pieces]
    boxes = [box if piece.columns is None else box[:, slice(*piece.columns)]
             for box, piece in zip(boxes, target.pieces, strict=True)]  # fmt: skip
    zeros = whole.new_zeros(target.zero_rows, *boxes[0].shape[1:])
    return torch.cat([*boxes, zeros]).contiguous()


def _starred(name: str) -> str:
    return name.replace(f".{_layer(name)}.", ".*.", 1)


def _layer(name: str) -> int:
    return int(name.split(".")[2])
