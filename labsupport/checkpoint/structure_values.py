"""The rules of :mod:`structure` that read values: finite numbers, and what the ranks must agree on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

import numpy as np

from labsupport.checkpoint.findings import Finding, Opened
from labsupport.checkpoint.layout_cut import Origin, origins
from labsupport.checkpoint.tensor_bits import to_float32
from labsupport.checkpoint.tensor_file import TensorFile

_FLOATS = ("F32", "F16", "BF16")
_ROW_LINEAR_BIAS = ("attention.dense.bias", "mlp.proj.bias")


def finite(checkpoint: Opened) -> Iterator[Finding]:
    """No weight is NaN or infinite."""
    for file in checkpoint.ranks.values():
        for name, info in file.tensors.items():
            if info.kind not in _FLOATS or not info.shape:
                continue
            bad = sum(
                int(np.count_nonzero(~np.isfinite(to_float32(block, info.kind))))
                for block in file.blocks(name, 0, info.shape[0])
            )
            if bad:
                yield Finding(
                    "finite",
                    f"{name} in {file.path} holds {bad:,} values that are NaN or infinite",
                    "the training diverged, or a weight was too large for the dtype (float16 ends at 65,504)",
                    "look at the same tensor of the original model; where that is sound, convert with --dtype bfloat16",
                )


def positive_scales(checkpoint: Opened) -> Iterator[Finding]:
    """Every scale is above zero: numbers are divided by it, here or at build time."""
    for file in checkpoint.ranks.values():
        for name, info in file.tensors.items():
            if name.endswith("_scaling_factor") and (to_float32(file.rows(name), info.kind) <= 0).any():
                yield Finding(
                    "scales",
                    f"{name} in {file.path} is not above zero",
                    "what it scales is divided by it",
                    "calibrate again, with text that reaches every layer: labs quantize",
                )


def replicas(checkpoint: Opened) -> Iterator[Finding]:
    """What several tensor-parallel ranks hold whole, or as copies of one KV head, is the same bytes on each."""
    copies: dict[tuple[str, object, object], list[Origin]] = defaultdict(list)
    for origin in chain.from_iterable(origins(checkpoint.config).values()):
        tensor = checkpoint.ranks[origin.rank].tensors.get(origin.target) if origin.rank in checkpoint.ranks else None
        if tensor is not None and tensor.kind in _FLOATS and not _reshaped(checkpoint, origin):
            copies[origin.piece.source, origin.piece.rows, origin.piece.columns].append(origin)
    told = set()
    for held in copies.values():
        first, group = held[0], [other for other in held[1:] if other.target == held[0].target]
        for other in group:
            if first.target in told or _same(checkpoint.ranks, first, other) or _zeroed(checkpoint, other):
                continue
            told.add(first.target)
            why = "every tensor-parallel rank must hold the same copy of it"
            if first.target.endswith(_ROW_LINEAR_BIAS):
                why = "this bias is added once, after the ranks' parts are summed, so each rank holds it whole"
            yield Finding(
                "replicas",
                f"{first.target} is not the same on rank {first.rank} and rank {other.rank}",
                why,
                "convert the model again: labs convert",
            )


def _reshaped(checkpoint: Opened, origin: Origin) -> bool:
    """Whether the tensor is too small to hold the box that it should: rule ``shapes`` tells that."""
    shape = checkpoint.ranks[origin.rank].tensors[origin.target].shape
    return shape[0] < origin.top + origin.piece.height or shape[1:] != origin.piece.shape[1:]


def _same(ranks: dict[int, TensorFile], one: Origin, other: Origin) -> bool:
    boxes = [ranks[at.rank].rows(at.target, at.top, at.top + at.piece.height) for at in (one, other)]
    return boxes[0].tobytes() == boxes[1].tobytes()


def _zeroed(checkpoint: Opened, other: Origin) -> bool:
    """AWQ and GPTQ write zeros for these biases on all ranks but the first: their kernels add it before the sum."""
    algo = checkpoint.config.quantization.quant_algo or ""
    allowed = algo.endswith(("_AWQ", "_GPTQ")) and other.target.endswith(_ROW_LINEAR_BIAS)
    return allowed and not checkpoint.ranks[other.rank].rows(other.target).any()
