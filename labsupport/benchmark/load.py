"""The load loop: sends requests at their times, notes what comes, and watches itself.

A closed loop has so many users; an open loop follows a schedule and does not wait for answers. In the open loop a
request counts from when it was due. A client that sent late, because the server or itself was slow, would otherwise
leave the bad times out of the record ("coordinated omission", Tene 2013).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labsupport.benchmark.arrivals import Arrivals, Closed, Poisson
from labsupport.benchmark.target import Arrival, Target, now
from labsupport.benchmark.timeline import Chunk, Timeline
from labsupport.benchmark.workload import Job
from labsupport.errors import LabError, ParameterError

TICK_S = 0.005


@dataclass(frozen=True)
class Raw:
    """A request that was sent, before anything is read: times of the run's clock."""

    job: Job
    due: float
    sent: float
    arrivals: Sequence[Arrival]
    error: str | None = None


@dataclass(frozen=True)
class Watched:
    """What the client itself did meanwhile.

    Args:
        cores: CPU seconds of this process by seconds of the run.
        lags: seconds by which a timer of 5 ms rang late: whoever waits for the event loop waits that long.
    """

    cores: float
    lags: tuple[float, ...]


async def run(target: Target, jobs: Sequence[Job], arrivals: Arrivals, *, seconds: float | None = None, seed: int = 0
              ) -> tuple[list[Raw], Watched]:  # fmt: skip
    """Send ``jobs``; all that were sent are waited for.

    Args:
        target: entered already.
        seconds: after these nothing more is sent; without them, all jobs are. A closed loop begins the jobs anew where
            they do not last so long.

    Raises:
        ParameterError: a trace without times was to be replayed.
    """
    prepared = [(job, await target.prepare(job)) for job in jobs]
    watching = asyncio.create_task(_watch())
    began, used = now(), time.process_time()
    until = began + seconds if seconds else None
    if isinstance(arrivals, Closed):
        raws = await _closed(target, prepared, arrivals.users, until)
    else:
        raws = await _open(target, _schedule(prepared, arrivals, seed), until)
    cores = (time.process_time() - used) / (now() - began)
    watching.cancel()
    lags = await asyncio.gather(watching, return_exceptions=True)
    return raws, Watched(cores, tuple(lags[0]) if isinstance(lags[0], list) else ())


async def _closed(target: Target, prepared: Sequence[tuple[Job, Any]], users: int, until: float | None) -> list[Raw]:
    left = iter(prepared) if until is None else itertools.cycle(prepared)
    raws = list[Raw]()

    async def user() -> None:
        for job, request in left:  # one iterator for all: each takes the next
            due = now()
            if until is not None and due >= until:
                return
            raws.append(await _one(target, job, request, due))

    await asyncio.gather(*(user() for _ in range(users)))
    return raws


async def _open(target: Target, schedule: Iterator[tuple[Job, Any, float]], until: float | None) -> list[Raw]:
    tasks, start = list[asyncio.Task[Raw]](), now()
    for job, request, at in schedule:
        due = start + at
        if until is not None and due >= until:
            break
        if (wait := due - now()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(_one(target, job, request, due)))
    return list(await asyncio.gather(*tasks))


async def _one(target: Target, job: Job, request: Any, due: float) -> Raw:
    sent = now()
    try:
        return Raw(job, due, sent, await target.send(request))
    except LabError as problem:
        return Raw(job, due, sent, (), f"{problem.what}: {problem.why}")


def _schedule(prepared: Sequence[tuple[Job, Any]], arrivals: Arrivals, seed: int) -> Iterator[tuple[Job, Any, float]]:
    if isinstance(arrivals, Poisson):
        times = arrivals.times(seed)
    else:
        if any(job.at is None for job, _ in prepared):
            raise ParameterError(
                "this trace cannot be replayed",
                why="a line of it has no timestamp",
                fix="give --concurrency or --rate, and only its lengths are used",
            )
        times = itertools.chain(float(job.at or 0) for job, _ in prepared)
    return ((job, request, at) for (job, request), at in zip(prepared, times, strict=False))


async def _watch() -> list[float]:
    lags = list[float]()
    try:
        while True:
            before = now()
            await asyncio.sleep(TICK_S)
            lags.append(now() - before - TICK_S)
    except asyncio.CancelledError:
        return lags


def timelines(target: Target, raws: Sequence[Raw], count_text: Any = None, *, fixed: bool = True) -> list[Timeline]:
    """Read what came, with times from the first request on.

    Args:
        count_text: text -> number of tokens, for answers that end when they like.
        fixed: answers have the length that was asked for, since the end token was switched off.
    """
    zero = min((raw.due for raw in raws), default=0.0)
    return [
        _timeline(target, raw, zero, None if fixed else count_text) for raw in sorted(raws, key=lambda raw: raw.due)
    ]


def _timeline(target: Target, raw: Raw, zero: float, count_text: Any) -> Timeline:
    given, error = len(raw.job.ids), raw.error
    chunks, tokens = list[Chunk](), 0
    if error is None:
        try:
            found = target.read(raw.arrivals)
            tokens = left = len(found.ids) or (count_text(found.text) if count_text else raw.job.new)
            for chunk in found.chunks:  # a last response may flush text that was held back, and bring no token
                chunks.append(Chunk(chunk.at - zero, min(chunk.tokens, left)))
                left -= chunks[-1].tokens
            if not chunks:
                error = "an answer without content"
        except LabError as problem:
            error = f"{problem.what}: {problem.why}"
    return Timeline(raw.due - zero, raw.sent - zero, tuple(chunks), tokens, given, error)
