"""safetensors, read and written a block at a time: the memory used does not depend on the size of the model.

A file is eight bytes that say how long the header is, the header (JSON: each tensor's type, shape and place), and the
bytes of the tensors one after the other. Mapping the file into memory would be shorter, but every page touched counts
as memory of the process; ``pread`` into a small buffer does not.

Source: the safetensors format description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from labsupport.checkpoint.tensor_bits import HELD, Array
from labsupport.errors import CheckpointError

BLOCK = 8 << 20  # bytes held at a time
PAGE = 4096  # bytes in a page of the operating system's file cache
_LONGEST_HEADER = 100 << 20  # the limit that the safetensors library has, too


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: its type (F32, ...), shape, and first byte in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * HELD[self.kind].itemsize


class TensorFile:
    """A safetensors file, open for reading. Use it in a ``with`` block, or close it.

    Raises:
        CheckpointError: the file is missing, is not safetensors, or ends before its tensors do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as problem:
            raise CheckpointError(
                f"{path} cannot be opened: {problem.strerror}",
                why="a file of the model is missing; a download may have stopped early",
                fix="get the model again, or correct the index that names the file",
            ) from None
        try:
            self.tensors = _header(path, self._file.fileno())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(self, _k: type[BaseException] | None, _v: BaseException | None, _t: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fileno(self) -> int:
        """The descriptor, for copies inside the kernel."""
        return self._file.fileno()

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Whole rows of a tensor (of a vector: elements), as ``tensor_bits.HELD`` says."""
        info = self.tensors[name]
        held, inner = HELD[info.kind], math.prod(info.shape[1:])
        height = (info.shape[0] if info.shape else 1) if stop is None else stop
        wanted = np.empty((height - start, *info.shape[1:]), held)
        view = wanted.reshape(-1).view(np.uint8).data
        offset = info.start + start * inner * held.itemsize
        while view:
            if not (count := os.preadv(self.fileno(), [view], offset)):
                raise _cut_short(self.path)
            view, offset = view[count:], offset + count
        return wanted

    def blocks(self, name: str, start: int, stop: int) -> Iterator[Array]:
        """Rows ``start`` to ``stop``, as many at a time as fit in a block."""
        info = self.tensors[name]
        each = max(1, BLOCK // max(1, math.prod(info.shape[1:]) * HELD[info.kind].itemsize))
        for top in range(start, stop, each):
            yield self.rows(name, top, min(top + each, stop))


def write_tensors(path: Path, tensors: Mapping[str, TensorInfo], data: Iterable[Iterable[Array]]) -> None:
    """Write a safetensors file whose header is known before its data.

    Args:
        path: the file; an old one is overwritten.
        tensors: name -> type and shape, in the order of ``data``. ``start`` is ignored.
        data: for each tensor its blocks, from the first byte to the last.
    """
    with path.open("wb") as file:
        file.write(header_bytes(tensors))
        for blocks in data:
            for block in blocks:
                file.write(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)


def header_bytes(tensors: Mapping[str, TensorInfo], *, start: int | None = None) -> bytes:
    """The length and the header of a file that holds ``tensors`` in this order; data starts at a multiple of 8.

    Args:
        start: where in a page of ``PAGE`` bytes the data is to start, a multiple of 8; anywhere where it is missing.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, info in tensors.items():
        spot = [offset, offset + info.bytes]
        header[name] = {"dtype": info.kind, "shape": list(info.shape), "data_offsets": spot}
        offset += info.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8 if start is None else (start - 8 - len(text)) % PAGE)
    return struct.pack("<Q", len(text)) + text


def _header(path: Path, descriptor: int) -> dict[str, TensorInfo]:
    size = os.fstat(descriptor).st_size
    length = struct.unpack("<Q", start)[0] if len(start := os.pread(descriptor, 8, 0)) == 8 else size
    if length > min(size - 8, _LONGEST_HEADER):
        raise _cut_short(path) if size < 8 else _not_safetensors(path, "its first 8 bytes are no header length")
    try:
        header = json.loads(os.pread(descriptor, length, 8))
        header.pop("__metadata__", None)
        found = {
            name: TensorInfo(entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            for name, entry in header.items()
        }
        ends = {name: 8 + length + entry["data_offsets"][1] for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise _not_safetensors(path, "its header cannot be read") from None
    for name, info in found.items():
        if info.kind not in HELD:
            raise _not_safetensors(path, f"tensor {name} has the unknown type {info.kind}")
        if ends[name] > size:
            raise _cut_short(path)
        if ends[name] - info.start != info.bytes:
            raise _not_safetensors(path, f"tensor {name} has {ends[name] - info.start} bytes, not {info.bytes}")
    return found


def _cut_short(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is cut short: it has {path.stat().st_size:,} bytes, and its header names more",
        why="a download or a copy stopped before its end",
        fix="get the file again",
    )


def _not_safetensors(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a safetensors file", why=reason, fix="get the file again")
