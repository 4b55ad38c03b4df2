"""The work of a conversion: pieces of source tensors into rank files, a block at a time.

What keeps its type and its shape is copied inside the kernel and never enters this process.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np

from labsupport.checkpoint.convert_plan import Plan
from labsupport.checkpoint.convert_source import Source
from labsupport.checkpoint.layout_cut import Piece, Target
from labsupport.checkpoint.tensor_bits import HELD, Array, cast, to_float32
from labsupport.checkpoint.tensor_file import BLOCK, PAGE, header_bytes
from labsupport.errors import CheckpointError

Progress = Callable[[int], object]
_THREADS = 2
_IN_KERNEL = sys.platform == "linux"  # only there does sendfile write to files
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EXDEV)


def write_rank(source: Source, plan: Plan, rank: int, path: Path, progress: Progress) -> None:
    """Write one rank file.

    Args:
        progress: called with the number of bytes just written, from either of two threads.

    Raises:
        CheckpointError: a value does not fit float16.
        OSError: the disk is full, among others; the caller removes what was written.
    """
    header = header_bytes(plan.infos(rank), start=_page_offset(source, plan, rank))
    path.write_bytes(header)
    ends = [len(header) + end for end in accumulate(info.bytes for info in plan.infos(rank).values())]
    os.truncate(path, ends[-1])

    def one(target: Target, start: int) -> None:
        with path.open("r+b", buffering=0) as file:
            file.seek(start)
            _write_target(source, target, plan.kind, file, progress)

    with ThreadPoolExecutor(_THREADS) as pool:  # every place is known, and reading, casting and writing free Python
        try:
            for _ in pool.map(one, plan.ranks[rank], [len(header), *ends]):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _write_target(source: Source, target: Target, kind: str, file: BinaryIO, progress: Progress) -> None:
    for piece in target.pieces:
        if (run := _run(source, piece, kind)) is not None and _copy(*run, file, progress):
            continue
        for block in piece_blocks(source, piece, kind):
            progress(_write(file, np.ascontiguousarray(block).reshape(-1).view(np.uint8).data))
    progress(_zeros(file, target, kind))


def piece_blocks(source: Source, piece: Piece, kind: str) -> Iterator[Array]:
    """The values of a piece, from its first row to its last, in type ``kind`` (as ``tensor_bits.HELD`` holds it)."""
    has = source.info(piece.source).kind
    for block in _turned(source, piece) if piece.transposed else _straight(source, piece):
        try:
            with np.errstate(over="raise"):
                yield cast(block, has, kind, plus_one=piece.plus_one)
        except FloatingPointError:
            raise CheckpointError(
                f"tensor {piece.source} holds {np.abs(to_float32(block, has)).max():.4g}, more than float16 can",
                why="float16 ends at 65504; the value would become infinite",
                fix="use --dtype bfloat16 or float32",
            ) from None


def _straight(source: Source, piece: Piece) -> Iterator[Array]:
    for block in source.blocks(piece.source, *piece.rows):
        yield block if piece.columns is None else block[:, slice(*piece.columns)]


def _turned(source: Source, piece: Piece) -> Iterator[Array]:
    """Rows of the transposed tensor: columns of the source, as many at a time as fit in a block."""
    left, right = piece.columns or (0, 0)
    each = max(1, BLOCK // (4 * max(1, right - left)))
    for top in range(piece.rows[0], piece.rows[1], each):
        bottom = min(top + each, piece.rows[1])
        yield np.concatenate([block[:, top:bottom] for block in source.blocks(piece.source, left, right)]).T


def _run(source: Source, piece: Piece, kind: str) -> tuple[int, int, int] | None:
    """(descriptor, first byte, bytes) where a piece is one unchanged run of a file, else None."""
    info = source.info(piece.source)
    whole_rows = piece.columns is None or piece.columns == (0, info.shape[-1])
    if not _IN_KERNEL or info.kind != kind or piece.transposed or piece.plus_one or not whole_rows:
        return None
    if (span := source.span(piece.source)) is None:
        return None
    row = info.bytes // max(1, info.shape[0])
    return span[0], span[1] + piece.rows[0] * row, piece.height * row


def _page_offset(source: Source, plan: Plan, rank: int) -> int | None:
    """Where in a page the data should start so that most bytes keep their place in a page: copying is faster then."""
    weights: Counter[int] = Counter()
    offset = 0
    for target, info in zip(plan.ranks[rank], plan.infos(rank).values(), strict=True):
        if (run := _run(source, target.pieces[0], plan.kind)) is not None and (run[1] - offset) % 8 == 0:
            weights[(run[1] - offset) % PAGE] += run[2]
        offset += info.bytes
    return weights.most_common(1)[0][0] if weights else None


def _copy(descriptor: int, start: int, count: int, file: BinaryIO, progress: Progress) -> bool:
    """Copy a run inside the kernel; False, with nothing copied, where the file system cannot."""
    left = count
    while left:
        try:
            copied = os.sendfile(file.fileno(), descriptor, start, min(left, 16 * BLOCK))
        except OSError as problem:
            if left == count and problem.errno in _CANNOT:
                return False
            raise
        if not copied:
            raise CheckpointError(
                "a source file became shorter while it was read", why="something else writes to it", fix="run it again"
            )
        start, left = start + copied, left - copied
        progress(copied)
    return True


def _zeros(file: BinaryIO, target: Target, kind: str) -> int:
    shape = (target.zero_rows, *target.shape[1:])
    return _write(file, np.zeros(shape, HELD[kind]).reshape(-1).view(np.uint8).data) if target.zero_rows else 0


def _write(file: BinaryIO, data: bytes | memoryview) -> int:
    """All of it: a raw file may take less at a time than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    return len(data)
