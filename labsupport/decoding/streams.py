"""Random streams: where a drawn token comes from.

The same seed cannot give the same text in two systems, because each has its own generator *and* its own way from random
numbers to a token. Both belong to a stream here.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Protocol

import numpy as np

from labsupport.decoding.steps import Array
from labsupport.errors import ParameterError

_WORD = 0xFFFFFFFF  # XORWOW works on 32-bit words


class Stream(Protocol):
    """A source of randomness that can choose a token."""

    def uniform(self) -> float:
        """The next number between 0 and 1."""
        ...

    def draw(self, probs: Array) -> int:
        """Choose an index of probs [V] with the given probabilities."""
        ...


class Xorwow:
    """The stream of TensorRT-LLM's C++ sampler: cuRAND XORWOW, ``curand_init(seed, 0, 0)``, one uniform per token.

    Bit-equal to cuRAND for every 64-bit seed. An unset seed is 0 there, so unseeded requests repeat each other.
    Source: cuRAND ``curand_kernel.h``; Marsaglia 2003, Xorshift RNGs; TensorRT-LLM ``kernels/decodingCommon.cu``.

    Args:
        seed: 0 to 2**64 - 1.

    Example:
        >>> stream = Xorwow(42)
        >>> [round(stream.uniform(), 6) for _ in range(4)]
        [0.070021, 0.550214, 0.186259, 0.53969]
    """

    def __init__(self, seed: int = 0) -> None:
        seed = _checked_seed(seed)
        low = 1099087573 * ((seed & _WORD) ^ 0xAAD26B49) & _WORD
        high = 2591861531 * ((seed >> 32) ^ 0xF7DCEFDD) & _WORD
        self._counter = (6615241 + high + low) & _WORD
        self._state = [
            (123456789 + low) & _WORD,
            362436069 ^ low,
            (521288629 + high) & _WORD,
            88675123 ^ high,
            (5783321 + low) & _WORD,
        ]

    def bits(self) -> int:
        """The next 32 random bits."""
        first, *rest = self._state
        last = rest[-1]
        mixed = first ^ (first >> 2)
        self._state = [*rest, last ^ (last << 4 & _WORD) ^ mixed ^ (mixed << 1 & _WORD)]
        self._counter = (self._counter + 362437) & _WORD
        return (self._state[-1] + self._counter) & _WORD

    def uniform(self) -> float:
        """The next float32 in (0, 1]: never 0, but 1 is possible."""
        step = np.float32(2.3283064e-10)  # 2**-32
        return float(np.float32(self.bits()) * step + step / np.float32(2))

    def draw(self, probs: Array) -> int:
        """Walk down the tokens, likeliest first, until the uniform is used up."""
        return inverse_cdf(probs, self.uniform())


class TorchStream:
    """The stream of PyTorch on the CPU: Mersenne Twister, V exponentials per token.

    ``draw`` equals ``torch.multinomial(probs, 1)`` for the same seed, and so what ``generate(do_sample=True)`` draws.

    Args:
        seed: 0 to 2**64 - 1; None takes one from the operating system, as an unseeded Hugging Face process does.
    """

    def __init__(self, seed: int | None = None) -> None:
        import torch

        self.seed = secrets.randbits(63) if seed is None else _checked_seed(seed)
        self._generator = torch.Generator().manual_seed(self.seed)

    def uniform(self) -> float:
        """The next float32 in [0, 1)."""
        import torch

        return float(torch.rand(1, generator=self._generator))

    def draw(self, probs: Array) -> int:
        """A race: token i arrives after an exponential time with rate p_i, the first one wins."""
        import torch

        weights = torch.from_numpy(np.ascontiguousarray(probs))
        exponentials = torch.empty_like(weights).exponential_(generator=self._generator)
        return int(torch.argmax(weights / exponentials))


def inverse_cdf(probs: Array, u: float) -> int:
    """The first token, likeliest first, at which the running sum of probs [V] reaches u in (0, 1].

    Equal probabilities are walked in the order of their ids.

    Example:
        >>> [inverse_cdf(np.array([0.1, 0.6, 0.3]), u) for u in (0.5, 0.7, 0.95)]
        [1, 2, 0]
    """
    possible = np.flatnonzero(probs)  # after a cut these are few, and sorting is what takes the time
    order = possible[np.argsort(-probs[possible], kind="stable")]
    sums = np.cumsum(probs[order], dtype=np.float64)
    return int(order[np.searchsorted(sums, u * sums[-1], side="left")])


def independent_seed(run: str, index: int) -> int:
    """A 63-bit seed for request ``index`` of ``run``: the same each time, unrelated to its neighbors.

    Seeds 0, 1, 2, ... are a trap: the first two XORWOW uniforms of neighboring seeds are related (over 20,000
    consecutive seeds a chi-squared test on 10 x 10 cells gives p < 1e-30), so a statistic over such requests is wrong
    even though each single stream is fine. Hashing removes the relation.
    """
    digest = hashlib.sha256(f"{run}:{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _checked_seed(seed: int) -> int:
    if not 0 <= seed < 2**64:
        raise ParameterError(
            f"seed {seed} is not a 64-bit unsigned integer",
            why="the request field is a uint64, so 0 to 18446744073709551615 fit",
            fix="use seed % 2**64",
        )
    return int(seed)
