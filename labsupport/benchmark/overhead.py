"""What serving costs: the engine in this process beside the same engine behind Triton, gRPC and the BLS, in turn.

One request at a time. Each prompt goes to both, once, and which of them goes first alternates, so that whatever else
this machine does meets both. Both write the same number of tokens and ignore the end token. A figure is the median over
the prompts of a difference or ratio within one prompt, with its interval of 95 % (:mod:`resample`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labsupport.benchmark.resample import Estimate, estimate, percentile
from labsupport.benchmark.workload import Job, jobs
from labsupport.engine.runner import Runner
from labsupport.errors import BenchmarkError
from labsupport.serving import Client, Sampling, Server

NO_END = -1  # the end id that no token has
WARM_UP = 2  # prompts that are not counted
MEDIAN = percentile(50)


@dataclass(frozen=True)
class Run:
    """One answer: seconds to its first token, and tokens a second from there on."""

    ttft: float
    rate: float


@dataclass(frozen=True)
class Overhead:
    """Both sides, prompt by prompt.

    Args:
        engine, served: the runs, in the same order.
        model: the served model that was asked.
    """

    engine: tuple[Run, ...]
    served: tuple[Run, ...]
    model: str

    @property
    def kept(self) -> Estimate:
        """The share of the engine's tokens a second that the client sees."""
        return estimate([ours.rate / own.rate for own, ours in self._pairs()], MEDIAN)

    @property
    def added(self) -> Estimate:
        """Seconds that serving adds to the time to first token."""
        return estimate([ours.ttft - own.ttft for own, ours in self._pairs()], MEDIAN)

    def _pairs(self) -> Iterator[tuple[Run, Run]]:
        return zip(self.engine, self.served, strict=True)

    def lines(self) -> list[str]:
        """A table for people."""
        rows = [f"{'':34}{'TTFT, ms':>10}{'tokens/s':>10}"]
        for title, runs in (("the engine, in this process", self.engine), (f"{self.model}, gRPC", self.served)):
            ttft, rate = (float(np.median([getattr(run, name) for run in runs])) for name in ("ttft", "rate"))
            rows.append(f"{title:34}{1000 * ttft:10.1f}{rate:10.1f}")
        kept, added = self.kept, self.added
        rows.append(f"tokens/s kept     {100 * kept.value:5.1f} %   [{100 * kept.low:.1f}, {100 * kept.high:.1f}]")
        rows.append(
            f"TTFT added        {1000 * added.value:5.1f} ms  [{1000 * added.low:.1f}, {1000 * added.high:.1f}]"
        )
        rows.append(f"medians of {len(self.engine)} prompts, in brackets their 95 % interval; measured here")
        return rows


def measure(
    repository: Path,
    *,
    prompts: int = 20,
    given: int = 64,
    new: int = 64,
    model: str = "tensorrt_llm_bls",
    progress: Callable[[str], object] = lambda what: None,  # noqa: ARG005
) -> Overhead:
    """Serve a repository, and ask it and its engine in turn.

    Args:
        repository: as ``labs assemble`` writes it, with our engine inside.
        prompts: how many are counted.
        given, new: tokens of a prompt, and of an answer.
        model: whom to ask.
        progress: called with what is being done.

    Raises:
        BenchmarkError: there is no engine in the repository.
        ServerError: it cannot be served here.
    """
    engine = next(repository.glob("_assets/*/engines/config.json"), None)
    if engine is None:
        raise BenchmarkError(
            f"{repository} holds no engine of its own",
            why="the engine is to run beside the server, in this process",
            fix="a repository that labs assemble wrote",
        )
    work = jobs(engine.parents[1] / "tokenizer", [(given, new, None)] * (prompts + WARM_UP), seed=0)
    progress("load the engine")
    runner = Runner(engine.parent)
    progress("start the server")
    with _client(repository, model) as client:
        ask = (lambda job: _engine(runner, job)), (lambda job: _served(client, job))
        runs: tuple[list[Run], list[Run]] = ([], [])
        for number, job in enumerate(work):
            progress(f"prompt {number + 1} of {len(work)}")
            for side in (0, 1) if number % 2 else (1, 0):
                runs[side].append(ask[side](job))
    return Overhead(tuple(runs[0][WARM_UP:]), tuple(runs[1][WARM_UP:]), model)


@contextmanager
def _client(repository: Path, model: str) -> Iterator[Client]:
    with Server(repository) as server, Client(server.address, model=model) as client:
        yield client


def _engine(runner: Runner, job: Job) -> Run:
    sent = time.perf_counter()
    at = [time.perf_counter() for _ in runner.stream(job.ids, max_new_tokens=job.new, end_ids=[])]
    return Run(at[0] - sent, (job.new - 1) / (at[-1] - at[0]))


def _served(client: Client, job: Job) -> Run:
    answer = client.stream(job.text, Sampling(job.new, end_id=NO_END)).answer()
    return Run(answer.ttft, (job.new - 1) / (answer.chunks[-1].at - answer.sent - answer.ttft))
