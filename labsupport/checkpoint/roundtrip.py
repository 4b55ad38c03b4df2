"""The way back: every Hugging Face tensor is put together again from the ranks and compared byte by byte.

Two changes are meant and are made on the original's side before comparing, since neither can be undone exactly: the
cast to the checkpoint's dtype, and the 1 that is added to Gemma's norms.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labsupport.checkpoint.convert_source import FolderSource
from labsupport.checkpoint.diagnosis import Case, Original, box, explain, stored_rows
from labsupport.checkpoint.findings import Finding, Opened, opened
from labsupport.checkpoint.layout_cut import Origin, origins, source_shapes, targets
from labsupport.checkpoint.quantize.compensate import REACH
from labsupport.checkpoint.quantize.proof import check_rounding, is_compensated, is_rounded
from labsupport.checkpoint.tensor_bits import NAMES, Array, to_float32
from labsupport.errors import CheckpointError


@dataclass(frozen=True)
class RoundTrip:
    """What the comparison covered, and what it found.

    Args:
        tensors: Hugging Face tensors that were compared.
        bytes: of the checkpoint that were compared, copies on several ranks included.
        findings: one for each kind of tensor that differs; empty when all are equal.
        rounded: weights of a quantized checkpoint, which were held against ``reach``.
        reach: how far rounding may have moved them.
    """

    tensors: int
    bytes: int
    findings: tuple[Finding, ...]
    rounded: int = 0
    reach: str = "half a step"


def check_round_trip(folder: Path, reference: Path) -> RoundTrip:
    """Compare a checkpoint with the Hugging Face folder it was made from.

    Args:
        folder: the checkpoint; its structure should be sound (see :mod:`structure`).
        reference: the Hugging Face folder.

    Raises:
        CheckpointError: either cannot be read.
    """
    with opened(folder) as checkpoint, FolderSource(reference) as source:
        compared, findings, places = 0, list(_padding(checkpoint)), origins(checkpoint.config)
        compensated = is_compensated(folder)
        alike: Counter[str] = Counter()  # the same tensor of other layers and ranks is counted, not told again
        for name, held in places.items():
            original = Original.read(source, name)
            for origin in held:
                if is_rounded(checkpoint.config, origin.target, compensated=compensated):
                    continue
                stored, meant = _stored(checkpoint, origin), original.meant(origin.piece, checkpoint.config.dtype)
                compared += stored.nbytes
                if stored.tobytes() != meant.tobytes():
                    kind = _without_layer(origin.target)
                    if not alike[kind]:
                        findings.append(_differs(checkpoint, source, name, origin))
                    alike[kind] += 1
        if left := source.leftovers(set(places)):
            findings.append(_left_out(reference, left))
        rounded, beyond = check_rounding(folder, checkpoint.config, source)
        reach = f"{REACH} steps" if compensated else "half a step"
        return RoundTrip(len(places), compared, tuple(findings + beyond), rounded, reach)


def restore(folder: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The Hugging Face tensors of a checkpoint, one at a time, widened to float32 (which is exact).

    Rows that the conversion left out (the first two positions of OPT) are zeros. Gemma's norms lose their 1 again;
    that, and a cast to fewer bits, is why such a tensor may differ from the original.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    with opened(folder) as checkpoint:
        if checkpoint.unreadable:
            first = checkpoint.unreadable[0]
            raise CheckpointError(first.what, why=first.why, fix=first.fix)
        shapes, kind = source_shapes(checkpoint.config), NAMES[checkpoint.config.dtype]
        for name, found in origins(checkpoint.config).items():
            whole = np.zeros(shapes[name], np.float32)
            for origin in found:
                values = to_float32(_stored(checkpoint, origin), kind)
                box(whole, origin.piece)[...] = values - np.float32(1) if origin.piece.plus_one else values
            yield name, whole


def _stored(checkpoint: Opened, origin: Origin) -> Array:
    return stored_rows(checkpoint, origin.rank, origin.target, origin.top, origin.top + origin.piece.height)


def _differs(checkpoint: Opened, source: FolderSource, name: str, origin: Origin) -> Finding:
    case = Case.of(checkpoint, source, name, origin)
    cause = explain(case)
    return Finding(
        "values",
        f"{origin.target} of rank {origin.rank} is not {name} of the original" + (f": {cause.what}" if cause else ""),
        cause.why if cause else f"the two differ by up to {case.distance():.3g}, and no usual mistake explains it",
        "convert the model again: labs convert",
    )


def _padding(checkpoint: Opened) -> Iterator[Finding]:
    """Rows past the vocabulary are zeros."""
    for rank in checkpoint.ranks:
        for target in targets(checkpoint.config, rank):
            if target.zero_rows and stored_rows(checkpoint, rank, target.name, -target.zero_rows).any():
                yield Finding(
                    "values",
                    f"the last {target.zero_rows} rows of {target.name} on rank {rank} are not zeros",
                    "they pad the vocabulary so that the ranks are equal, and belong to no token",
                    "convert the model again: labs convert",
                )


def _left_out(reference: Path, left: list[str]) -> Finding:
    return Finding(
        "values",
        f"{len(left)} tensors of {reference} have no place in the checkpoint: {', '.join(left[:3])}",
        "the checkpoint computes another model than the original",
        "merge adapters first, or name the folder that the checkpoint was made from",
    )


def _without_layer(target: str) -> str:
    return re.sub(r"\.\d+\.", ".*.", target)
