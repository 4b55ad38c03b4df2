"""The result of a load test, as JSON and back: settings, metrics with intervals, and every request's timeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from labsupport.benchmark.resample import Distribution, Estimate, distribution, grouped, interval, rate_samples
from labsupport.benchmark.timeline import Slo, Timeline, goodput, output_rate, request_rate, window
from labsupport.errors import BenchmarkError

FORMAT = 1
FEW = 20  # requests; with fewer, the 99th percentile is the slowest one by another name
LAG = 0.1  # of the gap between tokens; a client that is later than this measures itself
FEWER = 0.8  # responses by tokens; the last ones may show nothing and are not counted
BUSY = 0.9  # of a core: the client's one thread has no air left


class Client(BaseModel, frozen=True):
    """What the load generator did itself.

    Args:
        cores: CPU seconds a second; None where the engine runs in the same process.
        lag_p99: seconds by which its event loop was late. With an engine in the same process that is the engine's
            share of the interpreter, and no doubt follows: arrivals are noted in threads.
        late_p99: seconds from when a request was due to when it was sent.
    """

    cores: float | None
    lag_p99: float
    late_p99: float


class Share(BaseModel, frozen=True):
    """How near a result comes to what this machine can do at most.

    Args:
        output: output tokens a second as a share of their limit.
        ttft: the shortest possible time to the first token as a share of the median one.
        output_limit: tokens a second; ttft_limit: seconds.
    """

    output: float
    ttft: float
    output_limit: float
    ttft_limit: float


class Point(BaseModel, frozen=True):
    """One load level. Times are in seconds, rates a second.

    Args:
        load: in words: ``concurrency 4``, ``rate 2/s``.
        in_flight: requests that were open at the same time, on average.
        runs: the timelines of all requests, failed ones too.
    """

    load: str
    requests: int
    failed: int
    seconds: float
    in_flight: float
    input_tokens: int
    output_tokens: int
    ttft: Distribution
    ttst: Distribution | None
    itl: Distribution | None
    inter_chunk: Distribution | None
    latency: Distribution
    per_user: Distribution | None
    output_rate: Estimate
    request_rate: Estimate
    goodput: Estimate | None
    client: Client
    share: Share | None
    doubts: list[str]
    runs: list[Timeline]


class Report(BaseModel, frozen=True):
    """A load test: what was asked of whom, and a point for each load level."""

    format: int = FORMAT
    date: str
    cpu: str
    target: str
    settings: dict[str, Any]
    slo: Slo
    points: list[Point]


def read_report(path: Path) -> Report:
    """A report that was written before.

    Raises:
        BenchmarkError: the file is missing, or holds something else.
    """
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise BenchmarkError(f"cannot read {path}", why=str(problem), fix="labs bench serve --output FILE") from None
    except ValidationError as problem:
        raise BenchmarkError(
            f"{path} is no result of labs bench serve",
            why=str(problem.errors()[0]["msg"]),
            fix="name the JSON file that its --output wrote",
        ) from None


def point(load: str, runs: Sequence[Timeline], slo: Slo, client: Client, share: Share | None = None, seed: int = 0
          ) -> Point:  # fmt: skip
    """All metrics of one load level.

    Raises:
        BenchmarkError: no request gave an answer.
    """
    good = [one for one in runs if one.is_good]
    if not good:
        raise BenchmarkError(
            f"none of {len(runs)} requests was answered ({load})",
            why=runs[0].error or "no content came" if runs else "none was sent",
            fix="try one request alone: labs chat, or curl; then measure",
        )
    begin, end = window(good)
    tokens = [(chunk.at, chunk.tokens) for one in good for chunk in one.chunks]
    measures = [(one.ended, 1.0) for one in good]
    met = [(one.ended, float(slo.met_by(one))) for one in good]

    def rate(value: float, events: Sequence[tuple[float, float]]) -> Estimate:
        low, high = interval(rate_samples(events, begin, end, seed))
        return Estimate(value=value, low=low, high=high)

    def over(name: str) -> Distribution | None:
        values = [value for one in good if (value := getattr(one, name)) is not None]
        return distribution(values, seed) if values else None

    gaps = [one.gaps for one in good if one.gaps]
    made = Point(
        load=load, requests=len(good), failed=len(runs) - len(good), seconds=end - begin,
        in_flight=sum(one.latency for one in good) / (end - begin),
        input_tokens=sum(one.input_tokens for one in good), output_tokens=sum(one.tokens for one in good),
        ttft=distribution([one.ttft for one in good], seed), ttst=over("ttst"), itl=over("itl"),
        inter_chunk=grouped(gaps, seed) if gaps else None,
        latency=distribution([one.latency for one in good], seed), per_user=over("per_user"),
        output_rate=rate(output_rate(good), tokens), request_rate=rate(request_rate(good), measures),
        goodput=None if slo == Slo() else rate(goodput(good, slo), met),
        client=client, share=share, doubts=[], runs=list(runs),
    )  # fmt: skip
    return made.model_copy(update={"doubts": doubts(made)})


def doubts(one: Point) -> list[str]:
    """A sentence for each reason not to trust a point, or not all of it."""
    found = []
    if one.failed:
        found.append(f"{one.failed} of {one.requests + one.failed} requests failed: {_first_error(one)}")
    if one.requests < FEW:
        found.append(f"{one.requests} requests: percentiles beyond the median are guesses, see their intervals")
    gap = one.itl.p50.value if one.itl else one.ttft.p50.value
    if one.client.cores is not None and one.client.lag_p99 > LAG * gap:
        found.append(
            f"the client's event loop was {one.client.lag_p99 * 1e3:.1f} ms late (99th percentile), "
            f"and a token takes {gap * 1e3:.1f} ms: some of that time is the client's own"
        )
    if one.client.cores is not None and one.client.cores > BUSY:
        found.append(f"the client used {one.client.cores:.2f} cores: it may be what was measured")
    good = [run for run in one.runs if run.is_good]
    short = sum(sum(chunk.tokens for chunk in run.chunks) < FEWER * run.tokens for run in good)
    if short > len(good) / 10:
        found.append(
            f"{short} answers came in far fewer responses than tokens were asked for, and tokens are counted as asked: "
            "several tokens a response, or an end that the server did not ignore"
        )
    if _grows(one):
        found.append("the last third of the requests waited far longer than the first: the queue grows without end")
    if one.share and one.share.output > 1:
        found.append(f"{one.share.output:.2f} times the limit of this machine: a number that beats physics is a bug")
    if one.share and one.share.ttft > 1:
        said = f"a first token in {1 / one.share.ttft:.2f} of the least time that its prompt takes: a prefix cache?"
        found.append(said)
    if one.share and one.share.output < 0.1:
        found.append(f"{one.share.output:.3f} of the limit of this machine: look for what it waits for")
    return found


def _first_error(one: Point) -> str:
    return next((run.error for run in one.runs if run.error), "no content came")


def _grows(one: Point) -> bool:
    """In an open loop: later requests wait longer and longer."""
    if one.load.startswith("concurrency"):
        return False
    waits = [run.ttft for run in one.runs if run.is_good]
    third = len(waits) // 3
    return third >= 5 and float(np.median(waits[-third:])) > 3 * float(np.median(waits[:third]))
