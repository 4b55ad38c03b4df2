"""How much the load generator can take in, with a server that answers at once: it must never be what is measured."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from labsupport.benchmark.arrivals import Closed
from labsupport.benchmark.instant import MODEL
from labsupport.benchmark.load import run, timelines
from labsupport.benchmark.target_triton import GrpcTarget, HttpTarget
from labsupport.benchmark.timeline import output_rate
from labsupport.benchmark.workload import Job
from labsupport.errors import BenchmarkError
from labsupport.serving.address import Address, free_address

TOKENS = 128


@dataclass(frozen=True)
class Capacity:
    """What the generator took in.

    Args:
        rate: tokens a second, one a response.
        cores: CPU seconds of the generator by seconds; the server had what is left of the machine.
        per_token: CPU seconds of the generator for a token.
    """

    protocol: str
    users: int
    tokens: int
    rate: float
    cores: float

    @property
    def per_token(self) -> float:
        """CPU seconds of the generator for one token: sending, receiving, and its share of everything else."""
        return self.cores / self.rate


def capacity(protocol: str, users: int, requests: int) -> Capacity:
    """Receive ``requests`` streams of 128 tokens with ``users`` at once, over ``grpc`` or ``http``.

    Raises:
        BenchmarkError: the instant server did not start.
    """
    with instant_server() as address:
        target = (GrpcTarget if protocol == "grpc" else HttpTarget)(address, MODEL)
        return asyncio.run(_measure(target, protocol, users, requests))


async def _measure(target: GrpcTarget | HttpTarget, protocol: str, users: int, requests: int) -> Capacity:
    jobs = [Job((1,), "a prompt", TOKENS)] * requests
    async with target:
        await run(target, jobs[: 2 * users], Closed(users))
        raws, watched = await run(target, jobs, Closed(users))
    runs = timelines(target, raws)
    broken = [one.error for one in runs if one.error or len(one.chunks) != TOKENS]
    if broken and protocol == "grpc":
        raise BenchmarkError(
            f"{len(broken)} of {len(runs)} streams were not whole",
            why=str(broken[0]),
            fix="labs bench generator, once more on a quiet machine",
        )
    return Capacity(protocol, users, sum(one.tokens for one in runs), output_rate(runs), watched.cores)


@contextmanager
def instant_server() -> Iterator[Address]:
    """The server of :mod:`labsupport.benchmark.instant` in a process of its own."""
    address = free_address()
    command = [sys.executable, "-m", "labsupport.benchmark.instant", str(address.port), str(TOKENS)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise BenchmarkError("the instant server did not start", why="it ended at once", fix=" ".join(command))
        yield address
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
