"""Why does a tensor differ from the original? The usual mistakes, each tried out on the bytes.

Conversions fail in a few ways that many people repeat. Each has a function here that does the mistake on purpose: where
the result equals what the checkpoint holds, the mistake is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from labsupport.checkpoint.convert_source import FolderSource
from labsupport.checkpoint.findings import Opened
from labsupport.checkpoint.layout_cut import Origin, Piece, Target, origins, targets
from labsupport.checkpoint.tensor_bits import NAMES, Array, cast, to_float32


def box(whole: Array, piece: Piece) -> Array:
    """The part of a source tensor that a piece stands for, in the target's orientation (a view)."""
    rows = (whole.T if piece.transposed else whole)[slice(*piece.rows)]
    return rows if piece.columns is None else rows[:, slice(*piece.columns)]


def stored_rows(checkpoint: Opened, rank: int, name: str, start: int = 0, stop: int | None = None) -> Array:
    """Rows of a rank's tensor; a missing lm_head is the table of tokens, as TensorRT-LLM takes it."""
    file = checkpoint.ranks[rank]
    name = name if name in file.tensors else "transformer.vocab_embedding.weight"
    return file.rows(name, start % file.tensors[name].shape[0], stop)


@dataclass(frozen=True)
class Original:
    """A tensor of the Hugging Face folder, and its type as a safetensors header names it."""

    whole: Array
    kind: str

    @classmethod
    def read(cls, source: FolderSource, name: str) -> Original:
        """The whole tensor."""
        info = source.info(name)
        return cls(np.concatenate(list(source.blocks(name, 0, info.shape[0]))), info.kind)

    def meant(self, piece: Piece, dtype: str) -> Array:
        """What a checkpoint of ``dtype`` must hold for ``piece``."""
        return cast(box(self.whole, piece), self.kind, NAMES[dtype], plus_one=piece.plus_one)


@dataclass(frozen=True)
class Case:
    """One box of a checkpoint that is not what it should be, with all that is needed to find out why."""

    checkpoint: Opened
    source: FolderSource
    name: str
    origin: Origin
    target: Target
    stored: Array

    @classmethod
    def of(cls, checkpoint: Opened, source: FolderSource, name: str, origin: Origin) -> Case:
        """The case of ``origin``, which should hold a part of the Hugging Face tensor ``name``."""
        target = next(found for found in targets(checkpoint.config, origin.rank) if found.name == origin.target)
        bottom = origin.top + origin.piece.height
        stored = stored_rows(checkpoint, origin.rank, origin.target, origin.top, bottom)
        return cls(checkpoint, source, name, origin, target, stored)

    @property
    def whole(self) -> Array:
        """The rank's tensor, all pieces and padding."""
        return stored_rows(self.checkpoint, self.origin.rank, self.target.name)

    def meant(self, piece: Piece) -> Array:
        """What ``piece`` should look like in this checkpoint."""
        return Original.read(self.source, piece.source).meant(piece, self.checkpoint.config.dtype)

    def holds(self, piece: Piece) -> bool:
        """Whether the checkpoint has ``piece`` in the place of the right one."""
        shape = self.source.info(piece.source).shape
        if shape != self.source.info(self.name).shape:
            return False
        return bool(np.array_equal(_bits(self.meant(piece)), _bits(self.stored)))

    def distance(self) -> float:
        """The largest difference between what is stored and what should be."""
        return float(np.abs(self.values(self.stored) - self.values(self.meant(self.origin.piece))).max())

    def ratio(self) -> float | None:
        """The one factor between what is stored and what should be, or None where there is no such factor."""
        meant, stored = self.values(self.meant(self.origin.piece)), self.values(self.stored)
        factor = float((stored * meant).sum() / max(float((meant * meant).sum()), 1e-30))
        close = np.allclose(stored, factor * meant, rtol=1e-2, atol=1e-6 * float(np.abs(stored).max()))
        return factor if close and factor else None

    def values(self, bits: Array) -> NDArray[np.float32]:
        """Bits of this checkpoint's dtype as float32."""
        return to_float32(bits, NAMES[self.checkpoint.config.dtype])


@dataclass(frozen=True)
class Cause:
    """A mistake that explains the bytes: what was done, and why it is wrong."""

    what: str
    why: str


def explain(case: Case) -> Cause | None:
    """The first of ``MISTAKES`` that leads to exactly what the checkpoint holds, or None."""
    return next((cause for mistake in MISTAKES if (cause := mistake(case)) is not None), None)


def missing_one(case: Case) -> Cause | None:
    """Gemma's norm weights were copied as they are."""
    if case.origin.piece.plus_one and case.holds(replace(case.origin.piece, plus_one=False)):
        return Cause("the 1 is missing", "Gemma multiplies by 1 + w; the checkpoint holds the sum, Hugging Face only w")
    return None


def not_transposed(case: Case) -> Cause | None:
    """GPT-2's weights were copied as they are, or others were transposed."""
    if case.origin.piece.columns is None:
        return None
    turned = replace(case.origin.piece, transposed=not case.origin.piece.transposed)
    shape = case.source.info(case.name).shape
    if shape[0] != shape[1] or not case.holds(turned):
        return None
    return Cause(
        "it is transposed", "weights are stored (out, in); GPT-2's Conv1D keeps (in, out), all others (out, in)"
    )


def other_tensor(case: Case) -> Cause | None:
    """Another tensor of the same layer stands in its place."""
    layer = _layer(case.name)
    for name in origins(case.checkpoint.config):
        if name != case.name and _layer(name) == layer and case.holds(replace(case.origin.piece, source=name)):
            why = "the names say which branch is which, and these two were swapped"
            if "mlp" in name:
                why = "fc is the branch with the activation, which Hugging Face calls gate_proj; gate is up_proj"
            return Cause(f"it is {name}", why)
    return None


def other_layer(case: Case) -> Cause | None:
    """The same tensor of another layer stands in its place."""
    for name in origins(case.checkpoint.config):
        alike = re.sub(r"\.\d+\.", ".*.", name) == re.sub(r"\.\d+\.", ".*.", case.name)
        if name != case.name and alike and case.holds(replace(case.origin.piece, source=name)):
            return Cause(
                f"it is that of layer {_layer(name)}",
                f"layer {_layer(case.name)} of the model belongs here; each pipeline stage counts its layers from 0,"
                " and holds those that follow on the stage before",
            )
    return None


def stacked_in_another_order(case: Case) -> Cause | None:
    """q, k and v are stacked in another order than q, k, v."""
    if len(case.target.pieces) != 3:
        return None
    parts = [case.meant(piece) for piece in case.target.pieces]
    for order in permutations(range(3)):
        stacked = np.concatenate([parts[part] for part in order])
        if order != (0, 1, 2) and np.array_equal(_bits(stacked), _bits(case.whole)):
            found = ", ".join("qkv"[part] for part in order)
            return Cause(f"the order is {found}", "each rank stacks its own q, then its k, then its v")
    return None


def stacked_before_cut(case: Case) -> Cause | None:
    """q, k and v were stacked whole and then cut into equal parts, so that one rank has only queries."""
    tp_size = case.checkpoint.config.mapping.tp_size
    if len(case.target.pieces) != 3 or tp_size == 1:
        return None
    whole = [Original.read(case.source, piece.source) for piece in case.target.pieces]
    kind = NAMES[case.checkpoint.config.dtype]
    if len({piece.source for piece in case.target.pieces}) == 1:  # GPT-2 keeps the three as one tensor
        whole = whole[:1]
    turned = case.origin.piece.transposed
    stack = np.concatenate([cast(one.whole.T if turned else one.whole, one.kind, kind) for one in whole])
    part = np.array_split(stack, tp_size)[case.checkpoint.config.mapping.tp_rank(case.origin.rank)]
    if np.array_equal(_bits(part), _bits(case.whole)):
        return Cause("it was stacked first and cut then", "q, k and v are each cut over the ranks, and then stacked")
    return None


def interleaved(case: Case) -> Cause | None:
    """Queries or keys have the two halves of a head interleaved, the order of ``rope_gptj``."""
    size, rows = case.checkpoint.config.head_size, case.meant(case.origin.piece)
    if not re.search(r"\.[qk]_proj\.", case.name):
        return None
    heads = rows.reshape(-1, 2, size // 2, *rows.shape[1:])
    if not np.array_equal(_bits(heads.swapaxes(1, 2)), _bits(case.stored.reshape(heads.swapaxes(1, 2).shape))):
        return None
    why = "Meta's files and GGUF keep the two numbers of a rotation side by side, Hugging Face half a head apart"
    return Cause("the rows of each head are interleaved", why)


def scaled(case: Case) -> Cause | None:
    """All values are the right ones times one factor, as where Gemma's embedding was scaled ahead."""
    factor = case.ratio()
    if factor is None or abs(factor - 1) < 1e-3:
        return None
    return Cause(
        f"every value is {factor:.4g} times too large", "the checkpoint holds the weights as the original has them"
    )


def not_rounded_alike(case: Case) -> Cause | None:
    """The values went through a narrower type on the way, or were cut off instead of rounded."""
    meant = case.values(case.meant(case.origin.piece))
    if np.allclose(case.values(case.stored), meant, rtol=2**-7, atol=1e-7):
        return Cause(
            f"the values are rounded differently, by up to {case.distance():.2g}",
            "they went through a type of fewer bits on the way, or the original is another version of the model",
        )
    return None


def _layer(name: str) -> int | None:
    found = re.search(r"\.(\d+)\.", name)
    return int(found[1]) if found else None


def _bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(np.uint8)  # NaN equals NaN, and -0 differs from 0


MISTAKES: tuple[Callable[[Case], Cause | None], ...] = (
    missing_one, not_transposed, stacked_in_another_order, stacked_before_cut, interleaved, other_tensor,
    other_layer, not_rounded_alike, scaled,
)  # fmt: skip
