"""A load test: warm up, then each load level in turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from labsupport.benchmark.arrivals import Arrivals, Closed, Poisson
from labsupport.benchmark.load import Watched, run, timelines
from labsupport.benchmark.served import Client, Point, Report, Share, point
from labsupport.benchmark.target import Target
from labsupport.benchmark.timeline import Slo, Timeline
from labsupport.benchmark.workload import Job, Lengths, drawn, jobs, read_tokenizer
from labsupport.errors import ParameterError

DISTINCT = 500  # prompts where a duration, not a count, says how many are sent


@dataclass(frozen=True)
class Plan:
    """What is asked.

    Args:
        loads: the levels, one point each.
        requests: of a level; seconds: until then, whatever the count. One of the two.
        warm_up: requests before each level that are not counted.
        inputs, outputs: lengths; or
        trace: lengths, and times for ``Replay``.
        fixed: answers have the length that was asked for: the end token is switched off.
        slo: what a good request keeps.
    """

    loads: Sequence[Arrivals] = (Closed(1),)
    requests: int | None = 50
    seconds: float | None = None
    warm_up: int = 5
    inputs: Lengths = field(default_factory=lambda: Lengths(64, 64))
    outputs: Lengths = field(default_factory=lambda: Lengths(32, 32))
    trace: Sequence[tuple[int, int, float | None]] | None = None
    fixed: bool = True
    slo: Slo = field(default_factory=Slo)
    seed: int = 0

    def __post_init__(self) -> None:
        both = (self.requests is None) == (self.seconds is None)
        if both or (self.requests is not None and self.requests < 1) or self.warm_up < 0:
            raise ParameterError(
                f"{self.requests} requests and {self.seconds} seconds, {self.warm_up} to warm up",
                why="a level ends after a count or after a time, and has at least one request",
                fix="--requests 50, or --seconds 30",
            )

    def shapes(self, count: int, seed: int) -> list[tuple[int, int, float | None]]:
        """``count`` lengths, from the trace where there is one."""
        if self.trace is None:
            return drawn(self.inputs, self.outputs, count, seed)
        return list(itertools.islice(itertools.cycle(self.trace), count))


def measure(
    target: Target,
    plan: Plan,
    tokenizer: Path,
    *,
    cpu: str = "",
    settings: dict[str, object] | None = None,
    limit: Callable[[Point], Share] | None = None,
    progress: Callable[[str], object] = lambda what: None,  # noqa: ARG005
) -> Report:
    """Run the plan.

    Args:
        tokenizer: the folder of the model's tokenizer: prompts are cut with it, and texts counted.
        cpu: the processor's name, for the record.
        settings: what was asked, for the record.
        limit: adds the share of the machine's limits to a point.

    Raises:
        BenchmarkError: no request was answered.
        ServerError: the server is not there, or has no such model.
    """
    points = _finished(_measure(target, plan, tokenizer, progress))
    if limit:
        points = [point(one.load, one.runs, plan.slo, one.client, limit(one), plan.seed) for one in points]
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Report(date=date, cpu=cpu, target=target.title, settings=dict(settings or {}), slo=plan.slo, points=points)


def _finished(work: Coroutine[Any, Any, list[Point]]) -> list[Point]:
    """Run to the end; in a thread of its own where this one has an event loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _measure(target: Target, plan: Plan, tokenizer: Path, progress: Callable[[str], object]) -> list[Point]:
    points = []
    async with target:
        words = read_tokenizer(tokenizer)
        for number, load in enumerate(plan.loads):
            progress(f"{target.title}: {load}")
            seed = plan.seed + 1000 * number
            work = _jobs(plan, load, tokenizer, seed)
            if plan.warm_up:
                users = min(plan.warm_up, load.users if isinstance(load, Closed) else 1)
                await run(target, work[-plan.warm_up :], Closed(users))
            raws, watched = await run(target, work[: len(work) - plan.warm_up], load, seconds=plan.seconds, seed=seed)
            runs = timelines(
                target, raws, lambda text: len(words.encode(text, add_special_tokens=False).ids), fixed=plan.fixed
            )
            points.append(point(str(load), runs, plan.slo, _client(target, watched, runs), seed=plan.seed))
    return points


def _jobs(plan: Plan, load: Arrivals, tokenizer: Path, seed: int) -> list[Job]:
    """The jobs of a level, and after them those of its warm-up."""
    if plan.requests is not None:
        count = min(plan.requests, len(plan.trace)) if plan.trace else plan.requests
    elif isinstance(load, Poisson):
        count = int(2 * load.rate * (plan.seconds or 0)) + 20
    else:
        count = len(plan.trace) if plan.trace else DISTINCT
    return jobs(tokenizer, plan.shapes(count + plan.warm_up, seed), seed)


def _client(target: Target, watched: Watched, runs: Sequence[Timeline]) -> Client:
    late = [one.sent - one.due for one in runs]
    return Client(
        cores=watched.cores if target.own_process else None,
        lag_p99=float(np.percentile(watched.lags, 99)) if watched.lags else 0.0,
        late_p99=float(np.percentile(late, 99)) if late else 0.0,
    )
