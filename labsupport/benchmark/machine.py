"""What this machine can do at most: bytes read from memory, and multiplications, in a second."""

from __future__ import annotations

import ctypes
import ctypes.util
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

BYTES = 512 << 20  # far beyond any cache
SIDE = 1024  # of the square matrices: 4 MB each, and 2.1 GFLOP a product
REPEATS = 7


@dataclass(frozen=True)
class Limits:
    """The two ceilings of a roofline, each the best of several runs: a ceiling that was not reached is none.

    Args:
        read: bytes a second, all threads together.
        flops: float32 operations a second, a multiplication and an addition counted as two.
        read_median: bytes a second of the middle run; far below ``read`` on a machine that is busy otherwise.
    """

    read: float
    flops: float
    read_median: float


def measure_limits(threads: int, *, size: int = BYTES, repeats: int = REPEATS) -> Limits:
    """Read ``size`` bytes ``repeats`` times with ``threads`` threads, and multiply matrices as often."""
    rates = read_rates(threads, size=size, repeats=repeats)
    return Limits(max(rates), max(flop_rates(threads, repeats=repeats)), statistics.median(rates))


def read_rates(threads: int, *, size: int = BYTES, repeats: int = REPEATS) -> list[float]:
    """Bytes a second of each run: each thread holds one half of its share against the other with ``memcmp``.

    The C library compares 32 bytes an instruction, so memory is what it waits for, and two streams a core keep more
    lines on their way than one; a sum in PyTorch or numpy waits for its additions too. ctypes releases the
    interpreter's lock, so the threads read side by side.
    """
    compare = ctypes.CDLL(ctypes.util.find_library("c")).memcmp
    compare.argtypes, compare.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_int
    block = np.ones(size, np.uint8)  # written, so that every page is there
    half = size // threads // 2
    starts = [block.ctypes.data + 2 * half * one for one in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _times(lambda: list(pool.map(lambda at: compare(at, at + half, half), starts)), repeats)
    return [2 * half * threads / one for one in seconds]


def flop_rates(threads: int, *, side: int = SIDE, repeats: int = REPEATS) -> list[float]:
    """Float32 operations a second of each run: a product of two square matrices in PyTorch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        left, right = torch.ones(side, side), torch.ones(side, side)
        return [2 * side**3 / seconds for seconds in _times(lambda: torch.mm(left, right), repeats)]
    finally:
        torch.set_num_threads(before)


def _times(work: Callable[[], object], repeats: int) -> list[float]:
    work()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds
