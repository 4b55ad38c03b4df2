"""Is a quantized checkpoint right? Each weight is within half a step of the original's, and the model still speaks.

Of ``int8_gptq`` a weight may move by two steps, as its error makes up for another's; there the scale must be the
original's too. Which recipe wrote a W8A16 checkpoint is read from its ``labs.json``.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.convert_source import FolderSource
from labsupport.checkpoint.expected import QUANTIZED_AT_BUILD, is_quantized
from labsupport.checkpoint.findings import Finding
from labsupport.checkpoint.layout_cut import targets
from labsupport.checkpoint.network.build import read_rank
from labsupport.checkpoint.network.quantized import Stored
from labsupport.checkpoint.network.tensors import RankTensors
from labsupport.checkpoint.quantize.arithmetic import weight_only
from labsupport.checkpoint.quantize.compensate import REACH
from labsupport.checkpoint.quantize.quality import kl
from labsupport.checkpoint.quantize.source import read_whole
from labsupport.workspace import read_record

LOST = 1.5  # nats: a mean divergence that no recipe has; a wrong scale of activations or of the cache has more


def is_compensated(folder: Path) -> bool:
    """Whether ``labs quantize`` moved the floats of this W8A16 checkpoint so that their errors cancel."""
    identity = (read_record(folder) or {}).get("identity")
    options = identity.get("options") if isinstance(identity, dict) else None
    return isinstance(options, dict) and options.get("recipe") == "int8_gptq"


def is_rounded(config: CheckpointConfig, name: str, *, compensated: bool = False) -> bool:
    """Whether a weight is not the original's (with W8A16 and W4A16 it is, unless it was ``compensated``)."""
    as_it_was = config.quantization.quant_algo in QUANTIZED_AT_BUILD and not compensated
    return not as_it_was and name.endswith(".weight") and is_quantized(config, name.removesuffix(".weight"))


def check_rounding(folder: Path, config: CheckpointConfig, source: FolderSource) -> tuple[int, list[Finding]]:
    """Restore every rounded weight, its factors divided out, and hold it against the original.

    Returns:
        How many weights were compared, and what is wrong: a finding for each kind of layer.
    """
    compared, findings = 0, []
    alike: Counter[str] = Counter()
    compensated = is_compensated(folder)
    for rank in range(config.mapping.files):
        stored = read_rank(folder, rank, torch.float32)
        for target in targets(config, rank):
            if not is_rounded(config, target.name, compensated=compensated):
                continue
            original, module = read_whole(source, target), target.name.removesuffix(".weight")
            part = Stored(partial(_part_of, stored, module), config)
            steps = _steps(part, original)
            compared += original.numel()
            kind = module.rpartition(".")[2]
            if steps > 1 and not alike[kind]:
                findings.append(_beyond(target.name, rank, steps))
            alike[kind] += steps > 1
    return compared, findings


def check_divergence(folder: Path, ours: Tensor, theirs: Tensor) -> tuple[float, tuple[Finding, ...]]:
    """Mean divergence of a rounded network from the float one, nats a token, and whether rounding can explain it.

    Args:
        folder: the checkpoint, for the message.
        ours, theirs: logits, [batch, tokens, vocab].
    """
    p, q = (logits.flatten(0, 1).float().log_softmax(-1) for logits in (theirs, ours))
    lost = float(kl(p, q).mean())
    if lost <= LOST:
        return lost, ()
    return lost, (
        Finding(
            "execution",
            f"the network of {folder} has a mean KL of {lost:.3g} nats to the original",
            f"rounding costs less than {LOST} nats; the scale of an activation or of the KV cache may be wrong",
            "quantize the model again: labs quantize; with another recipe, if that does not help",
        ),
    )


def is_lossy(config: CheckpointConfig) -> bool:
    """Whether the engine computes with fewer bits than the model has: of weights, activations or the KV cache."""
    return config.quantization.quantized or config.quantization.kv_cache_quant_algo is not None


def _part_of(stored: RankTensors, module: str, part: str) -> Tensor:
    return stored.raw(f"{module}.{part}")


def _steps(stored: Stored, original: Tensor) -> float:
    """The largest distance to the original, in units of what rounding may do; above 1 something else did it."""
    if stored.config.quantization.quant_algo in QUANTIZED_AT_BUILD:
        meant = original.to(getattr(torch, stored.config.dtype)).float().abs().amax(1, keepdim=True)
        if not torch.equal(stored.get("weight").float().abs().amax(1, keepdim=True), meant):
            return float("inf")  # the kernel would find another scale
        scale = weight_only(stored.get("weight"), 8).scale
        return float(((stored.weight() - original).abs() / (REACH * scale * 1.05)).nan_to_num(float("inf")).max())
    prequant = stored.prequant()
    factors = torch.ones(original.shape[1]) if prequant is None else prequant
    distance = (stored.weight() * factors - original).abs()
    scale = stored.get("weights_scaling_factor").float()
    if stored.config.quantization.quant_algo == "FP8":  # three bits of fraction; the smallest numbers are 2^-9 apart
        half = (original.abs() / 16).maximum(scale * 2.0**-10)
    elif scale.dim() == 2:
        half = scale.repeat_interleave(original.shape[1] // scale.shape[1], dim=1) / 2 * factors
    else:
        half = scale[:, None] / 2 * factors
    # scales and factors were rounded to the checkpoint's dtype as well
    slack = 4 * torch.finfo(getattr(torch, stored.config.dtype)).eps * original.abs()
    return float((distance / (half * 1.001 + slack)).nan_to_num(float("inf")).max())


def _beyond(name: str, rank: int, steps: float) -> Finding:
    return Finding(
        "values",
        f"{name} of rank {rank} is up to {steps:.3g} times farther from the original than rounding explains",
        "a scale, a factor on the inputs, the order of the four-bit halves or the rows of the ranks is wrong",
        "quantize the model again: labs quantize",
    )
