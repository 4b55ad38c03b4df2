"""When requests are sent: as fast as answers come, by chance, or as a trace says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from labsupport.errors import ParameterError


@dataclass(frozen=True)
class Closed:
    """A closed loop: so many users, each of whom asks again once the answer is there.

    The server sets the pace, so a slow one is asked less: good for "how much can it do", wrong for "how long will my
    users wait".
    """

    users: int

    def __post_init__(self) -> None:
        if self.users < 1:
            raise _wrong(f"{self.users} users", "--concurrency 4")

    def __str__(self) -> str:
        return f"concurrency {self.users}"


@dataclass(frozen=True)
class Poisson:
    """An open loop: requests come by chance, ``rate`` a second on average, whatever the server does."""

    rate: float

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise _wrong(f"a rate of {self.rate}", "--rate 2")

    def __str__(self) -> str:
        return f"rate {self.rate:g}/s"

    def times(self, seed: int) -> Iterator[float]:
        """Seconds from the start at which requests are due: gaps are exponential, mean 1 / rate."""
        chance, now = np.random.default_rng(seed), 0.0
        while True:
            yield now
            now += float(chance.exponential(1 / self.rate))


@dataclass(frozen=True)
class Replay:
    """An open loop with the times of a trace."""

    def __str__(self) -> str:
        return "trace"


Arrivals = Closed | Poisson | Replay


def _wrong(what: str, fix: str) -> ParameterError:
    return ParameterError(f"{what} is no load", why="nothing would ever be sent", fix=fix)
