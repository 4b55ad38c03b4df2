"""Checks of lab 11, benchmarking."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from labsupport.benchmark.timeline import Chunk, Timeline
from labsupport.labs.checks import Wrong, exercise, expect, expect_close

FAULTS = frozenset("bcegi")  # of exercise 11.5, below
LETTERS = "abcdefghij"
FINE = {
    "a": "model, precision and machine are named, and equal for both",
    "d": "a fixed output length with the end token switched off makes runs comparable, and it is said",
    "f": "temperature changes which tokens come, hardly how fast; and it is the same for both",
    "h": "versions are exactly what a reader needs to repeat it",
    "j": "tokens a second of all users together is a fair figure, as long as it is called that",
}


def metrics(due: float, times: Sequence[float]) -> tuple[float, float, float]:
    """TTFT, ITL and latency of a request that was due at ``due``, a token at each of ``times``."""
    one = Timeline(due, due, tuple(map(Chunk, times)), len(times))
    return one.ttft, one.itl or 0.0, one.latency


def p99_of_all(servers: Sequence[Sequence[float]]) -> float:
    """The 99th percentile over the requests of all servers: pool first, then sort."""
    return float(np.percentile(np.concatenate([np.asarray(one, dtype=np.float64) for one in servers]), 99))


def goodput(requests: Sequence[tuple[float, float]], ttft: float, itl: float, seconds: float) -> float:
    """Requests a second that keep both limits; a request is (TTFT, ITL)."""
    return sum(first <= ttft and gap <= itl for first, gap in requests) / seconds


def output_limit(weight_bytes: float, kv_bytes: float, batch: int, context: int, bandwidth: float) -> float:
    """Tokens a second of ``batch`` sequences that no server beats: a step reads the weights once, each cache whole."""
    return batch * bandwidth / (weight_bytes + batch * context * kv_bytes)


@exercise("11.1", reference=metrics)
def read_a_timeline(attempt: Callable[..., tuple[float, float, float]]) -> None:
    """A steady stream, one that starts late, two tokens, one that pauses."""
    for due, times in [(0.0, [0.5, 0.6, 0.7]), (10.0, [10.5, 10.6]), (1.0, [4.0, 4.1, 4.2, 6.2])]:
        got = attempt(due, list(times))
        expect(isinstance(got, tuple) and len(got) == 3, "Return three numbers: TTFT, ITL, latency")
        for name, mine, right in zip(("TTFT", "ITL", "latency"), got, metrics(due, times), strict=True):
            expect_close(mine, right, given=f"due={due}, times={times}, {name}")


@exercise("11.2", reference=p99_of_all)
def many_servers(attempt: Callable[[list[list[float]]], float]) -> None:
    """Equal servers, one that is slow, one that is slow and small, one that is slow and large."""
    calm, slow = [0.1 + 0.001 * number for number in range(100)], [2.0] * 50
    for name, servers in (
        ("two calm servers", [calm, calm]),
        ("99 calm servers' requests beside 50 slow ones", [calm * 20, slow]),
        ("a slow server with a handful of requests", [calm * 10, [2.0] * 3]),
        ("a large slow server", [calm, slow * 10]),
    ):
        expect_close(attempt([list(one) for one in servers]), p99_of_all(servers), given=name)


@exercise("11.3", reference=goodput)
def good_requests(attempt: Callable[..., float]) -> None:
    """All good, one limit missed by half, exactly at the limit, none."""
    cases = [
        ([(0.1, 0.02), (0.2, 0.03)], 0.5, 0.05, 4.0),
        ([(0.6, 0.02), (0.2, 0.09), (0.3, 0.03), (0.9, 0.9)], 0.5, 0.05, 2.0),
        ([(0.5, 0.05)], 0.5, 0.05, 10.0),
        ([(0.9, 0.01), (0.1, 0.2)], 0.5, 0.05, 1.0),
    ]
    for requests, ttft, itl, seconds in cases:
        given = f"requests={requests}, ttft={ttft}, itl={itl}, seconds={seconds}"
        expect_close(attempt(list(requests), ttft, itl, seconds), goodput(requests, ttft, itl, seconds), given=given)


@exercise("11.4", reference=output_limit)
def physics(attempt: Callable[..., float]) -> None:
    """One user, many, a long context, no cache at all."""
    for batch, context, kv in [
        (1, 0, 1000.0),
        (8, 0, 1000.0),
        (1, 2000, 1000.0),
        (8, 2000, 1000.0),
        (64, 500, 131072.0),
    ]:
        given = f"weights 1e8 bytes, {kv:g} bytes a cached token, batch={batch}, context={context}, 1e10 bytes/s"
        expect_close(attempt(1e8, kv, batch, context, 1e10), output_limit(1e8, kv, batch, context, 1e10), given=given)


@exercise("11.5", reference="".join(sorted(FAULTS)))
def five_faults(attempt: str | Iterable[str]) -> None:
    """A set of letters; the reasons do not give the missing ones away."""
    chosen = {letter.strip().lower() for letter in attempt} - {"", ","}
    if unknown := sorted(chosen - set(LETTERS)):
        raise Wrong(f"{unknown[0]!r} is none of the lines; they go from a to j")
    for letter in sorted(chosen - FAULTS):
        raise Wrong(f"{letter!r} is fine: {FINE[letter]}")
    expect(len(chosen) == len(FAULTS), f"{len(chosen)} of 5 faults found, all of them right; look at the others again")
