"""Seed replay: the tokens of a seeded answer, one by one, from the reference's logits and the system's random stream.

TensorRT-LLM draws one XORWOW uniform u per token and walks down the sorted probabilities until their sum reaches u. So
a token says where u must have been: in its own interval of the running sum. Hugging Face lets all tokens race, with
one exponential each; so a token says that its arrival was the first. The same seed gives two unrelated streams, read in
two unrelated ways: :func:`why_seeds_differ` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from labsupport.decoding import Array, TorchStream, Xorwow, inverse_cdf, stream_for

TINY = 1e-6  # the kernels divide by a sum that is larger by this


@dataclass(frozen=True)
class Replayed:
    """One token, replayed.

    Args:
        token: what the stream draws from these probabilities.
        miss: how far the emitted token is from being drawn, beyond what noise explains; 0 is a hit. For an interval
            in units of probability, for a race in nats.
    """

    token: int
    miss: float


class Replay(Protocol):
    """A random stream that is held against emitted tokens."""

    def next(self, probs: Array, emitted: int, reach: float) -> Replayed:
        """Draw from probs [V] and compare with the emitted token.

        Args:
            reach: how far the logarithm of a ratio of two probabilities may be off.
        """
        ...


class IntervalReplay:
    """TensorRT-LLM's C++ sampler: one uniform, inverse CDF over sorted probabilities."""

    def __init__(self, seed: int | None) -> None:
        self._stream = Xorwow(seed or 0)

    def next(self, probs: Array, emitted: int, reach: float) -> Replayed:
        """Whether u lies in the emitted token's interval; tokens nearly as likely may stand before or after it."""
        u = self._stream.uniform()
        low, high = interval(probs, emitted, reach)
        slack = TINY + reach  # more than a sum of probabilities moves, cut at top_p or not
        return Replayed(inverse_cdf(probs, u), max(low - slack - u, u - high - slack, 0.0))


class RaceReplay:
    """Hugging Face on a CPU: an exponential arrival time for every token, the first one wins."""

    def __init__(self, seed: int) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(seed)

    def next(self, probs: Array, emitted: int, reach: float) -> Replayed:
        """Whether the emitted token arrives first, or as good as first."""
        import torch

        weights = torch.from_numpy(np.ascontiguousarray(probs))
        arrivals = torch.empty_like(weights).exponential_(generator=self._generator)
        speed = (weights / arrivals).numpy()
        winner = int(speed.argmax())
        with np.errstate(divide="ignore"):
            behind = float(np.log(speed[winner]) - np.log(speed[emitted]))
        return Replayed(winner, max(0.0, behind - reach - TINY))


def replay_for(dialect: str, seed: int | None) -> Replay | None:
    """The replay of a dialect's stream, or None where it cannot be known."""
    if dialect == "trtllm-cpp":
        return IntervalReplay(seed)
    return RaceReplay(seed) if dialect == "hf" and seed is not None else None


def interval(probs: Array, token: int, reach: float = 0.0) -> tuple[float, float]:
    """Where the running sum of probs [V], likeliest first, enters and leaves a token.

    Args:
        reach: tokens whose log-probability is this near may stand on either side, so the interval takes them in.

    Example:
        >>> [round(edge, 6) for edge in interval(np.array([0.1, 0.6, 0.3]), 2)]
        [0.6, 0.9]
    """
    p, wide = float(probs[token]), np.asarray(probs, np.float64)
    if reach:
        low = wide[wide > p * np.exp(reach)].sum()
        high = wide[wide >= p * np.exp(-reach)].sum() if p else wide.sum()
    else:
        low = wide[wide > p].sum() + wide[:token][wide[:token] == p].sum()
        high = low + p
    total = wide.sum()
    return float(low / total), float(high / total)


@dataclass(frozen=True)
class SeedStory:
    """Why the same seed gives two texts.

    Args:
        seed: of both.
        xorwow, torch: the first uniforms of each generator.
        same_numbers: what TensorRT-LLM's way and a race make of the same distribution, token by token, each with its
            own stream: the numbers differ.
        swapped: what the inverse CDF draws when it is fed torch's uniforms: even with one generator the two ways
            of reading it give other tokens than torch's race.
    """

    seed: int
    xorwow: tuple[float, ...]
    torch: tuple[float, ...]
    same_numbers: tuple[tuple[int, int], ...]
    swapped: tuple[tuple[int, int], ...]


def why_seeds_differ(probs: Array, seed: int, tokens: int = 8) -> SeedStory:
    """Draw ``tokens`` times from probs [V] with one seed in both systems, and exchange their parts.

    Three things differ, and each alone is enough: the generator, how many numbers a token takes (1 against V), and how
    numbers become a token (walk down a sum, or win a race). Besides, Hugging Face's stream belongs to the process, so
    that a batch shares it, and torch's generator on a CPU reads 32 of the seed's 64 bits.
    """
    cpp, hf = stream_for("trtllm-cpp", seed), stream_for("hf", seed)
    pairs = tuple((cpp.draw(probs), hf.draw(probs)) for _ in range(tokens))
    uniforms, race = TorchStream(seed), TorchStream(seed)
    swapped = tuple((inverse_cdf(probs, uniforms.uniform() or TINY), race.draw(probs)) for _ in range(tokens))
    first = [stream_for(name, seed) for name in ("trtllm-cpp", "hf")]
    numbers = [tuple(stream.uniform() for _ in range(4)) for stream in first]
    return SeedStory(seed, numbers[0], numbers[1], pairs, swapped)
