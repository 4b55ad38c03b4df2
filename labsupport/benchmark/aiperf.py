"""A second opinion on the load generator: AIPerf, NVIDIA's, on the same server with the same prompts and users.

AIPerf speaks no gRPC of KServe, so both ask over HTTP (``generate_stream``, AIPerf with its ``template`` endpoint). It
runs in a Python of its own and is no dependency. Three of its ways are met here, since they say nothing of a server:

- With ``--concurrency`` alone its timing manager asks without a pause whether a user is free, for which it takes a
  whole core, which a server on the same machine then lacks. Given a rate out of reach too, it asks at that rate.
- It counts tokens on the text of an answer, which tokenized anew may be fewer. Here an answer has the tokens that were
  asked for, which is sure without an end token.
- Its ITL takes the first chunk for one token. So does the ITL here, of both; ``labs bench serve`` counts what came.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel

import labsupport
from labsupport.benchmark.arrivals import Closed
from labsupport.benchmark.catalogue import Peer
from labsupport.benchmark.installing import installed, python_of
from labsupport.benchmark.resample import Estimate, estimate, percentile
from labsupport.benchmark.serve import Plan, measure
from labsupport.benchmark.served import Point
from labsupport.benchmark.target_triton import HttpTarget
from labsupport.benchmark.workload import Lengths, jobs
from labsupport.errors import BenchmarkError
from labsupport.serving import Address

AIPERF = Peer("aiperf", "AIPerf", (), (("aiperf==0.13.0",),))
TIMEOUT_S = 300
CLOSE = 0.05
_TAIL = 800
ASKS_PER_S = 50  # whether a user is free: each costs CPU time, and 20 ms, at the most, until the next request
METRICS: dict[str, Callable[[Point], float]] = {
    "TTFT, ms": lambda one: 1e3 * one.ttft.p50.value,
    "ITL, ms": lambda one: (
        1e3 * statistics.median((run.latency - run.ttft) / (run.tokens - 1) for run in one.runs if run.is_good)
    ),
    "request latency, ms": lambda one: 1e3 * one.latency.p50.value,
    "output tokens/s": lambda one: one.output_rate.value,
    "requests/s": lambda one: one.request_rate.value,
}


class Theirs(BaseModel, frozen=True):
    """What AIPerf found in one round.

    Args:
        metrics: title -> value; of a token by the tokens that were asked for.
        counted: tokens of an answer as AIPerf counts them, median.
        itl, rate: ITL in ms and tokens/s by that count, as its own report says.
    """

    metrics: dict[str, float]
    counted: float
    itl: float
    rate: float

    @classmethod
    def read(cls, folder: Path, new: int) -> Theirs:
        """From the files that AIPerf 0.13 leaves: a record for each request, and a summary.

        Raises:
            BenchmarkError: they are not there.
        """
        records, report = (next(folder.rglob(f"profile_export{kind}"), None) for kind in (".jsonl", "_aiperf.json"))
        if records is None or report is None:
            raise BenchmarkError(
                "AIPerf left no report",
                why=f"there is none in {folder}",
                fix="labs bench agree --install   makes it anew",
            )
        summary = json.loads(report.read_text(encoding="utf-8"))
        lines = map(json.loads, records.read_text(encoding="utf-8").splitlines())
        kept = [one["metrics"] for one in lines if one["metadata"]["benchmark_phase"] == "profiling"]
        first, whole, counted = (
            [one[name]["value"] for one in kept if name in one]
            for name in ("time_to_first_token", "request_latency", "output_sequence_length")
        )
        gaps = [(end - start) / (new - 1) for start, end in zip(first, whole, strict=True)]
        requests = float(summary["request_throughput"]["avg"])
        found = [*map(statistics.median, (first, gaps, whole)), requests * new, requests]
        return cls(
            metrics=dict(zip(METRICS, found, strict=True)), counted=statistics.median(counted),
            itl=summary["inter_token_latency"]["p50"], rate=summary["output_token_throughput"]["avg"],
        )  # fmt: skip


class Agreement(BaseModel, frozen=True):
    """One metric by both tools, a value for each round: medians over requests for latencies.

    Args:
        ratio: theirs by ours: the median over the rounds, with its interval of 95 %.
        repeat: the factor by which a run of one and the same tool differs from its run before, at the most.
    """

    metric: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    ratio: Estimate
    repeat: float

    @classmethod
    def of(cls, metric: str, ours: Sequence[float], theirs: Sequence[float]) -> Agreement:
        """Compare the rounds of both, which belong together in pairs."""
        ratio = estimate([other / own for own, other in zip(ours, theirs, strict=True)], percentile(50))
        repeats = [max(after / before, before / after) for one in (ours, theirs) for before, after in pairwise(one)]
        return cls(
            metric=metric, ours=tuple(ours), theirs=tuple(theirs), ratio=ratio, repeat=max(repeats, default=1.0)
        )  # fmt: skip

    @property
    def verdict(self) -> str:
        """``agree`` within 5 %; else whether one tool alone differs from itself as much."""
        if abs(self.ratio.value - 1) <= CLOSE:
            return "agree"
        if len(self.ours) < 2:
            return "apart in one round, which knows no noise"
        near = 1 / self.repeat <= self.ratio.value <= self.repeat
        return "as far apart as two runs of one tool" if near else "differ"


class Agreements(BaseModel, frozen=True):
    """All metrics, and what was run on what.

    Args:
        cpu_s: CPU seconds of a round, median: of ours as it measured, and of AIPerf with its start and its report.
    """

    date: str
    cpu: str
    target: str
    settings: dict[str, object]
    versions: dict[str, str]
    cpu_s: tuple[float, float]
    metrics: tuple[Agreement, ...]
    theirs: tuple[Theirs, ...]


def agree(
    address: Address, model: str, tokenizer: Path, *, users: int, requests: int, given: int, new: int, rounds: int = 1,
    cpu: str = "", server: str = "", progress: Callable[[str], object] = lambda what: None,  # noqa: ARG005
) -> Iterator[Agreements]:  # fmt: skip
    """Measure with both in each round, and turn their order from round to round: drift hurts both alike.

    Args:
        cpu, server: the processor and what is served, for the record.

    Yields:
        What is known after each round; the last is of all.

    Raises:
        BenchmarkError: AIPerf is not installed, or failed.
    """
    if not installed(AIPERF):
        raise BenchmarkError(
            "AIPerf is not installed", why="it has a Python of its own", fix="labs bench agree --install   makes it"
        )
    lengths = Lengths(given, given), Lengths(new, new)
    target = HttpTarget(address, model)
    ours, theirs, used = list[Point](), list[Theirs](), list[float]()
    for number in range(rounds):
        plan = Plan((Closed(users),), requests, None, users, *lengths, seed=2 * number)
        for who in ("ours", "AIPerf") if number % 2 else ("AIPerf", "ours"):
            progress(f"round {number + 1} of {rounds}: {who}")
            if who == "ours":
                ours += measure(target, plan, tokenizer).points
                continue
            # its warm-up takes prompts from the same file: as many more, else the prefix cache knows the first ones
            shapes = plan.shapes(requests + users, plan.seed + 1)
            prompts = [job.text for job in jobs(tokenizer, shapes, plan.seed + 1)]
            before = _children_cpu()
            theirs.append(_aiperf(address, model, tokenizer, prompts, users=users, requests=requests, new=new))
            used.append(_children_cpu() - before)
        own = [(one.client.cores or 0.0) * one.seconds for one in ours]
        yield Agreements(
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"), cpu=cpu, target=f"{server}: {target.title}",
            settings={"users": users, "requests": requests, "tokens in": given, "tokens out": new, "rounds": len(ours)},
            versions={"labs": labsupport.__version__, "aiperf": AIPERF.pip[0][0].partition("==")[2]},
            cpu_s=(statistics.median(own), statistics.median(used)), metrics=tuple(compared(ours, theirs)),
            theirs=tuple(theirs),
        )  # fmt: skip


def compared(ours: Sequence[Point], theirs: Sequence[Theirs]) -> list[Agreement]:
    """Each metric of our runs beside AIPerf's of the same rounds."""
    return [
        Agreement.of(title, [of(one) for one in ours], [other.metrics[title] for other in theirs])
        for title, of in METRICS.items()
    ]


def lines(found: Agreements) -> list[str]:
    """A line for each metric: both medians, the ratio with its interval, and how far one tool is from itself."""
    asked = ", ".join(f"{value} {name}" for name, value in found.settings.items())
    text = [f"{found.target}; {found.cpu}; {asked}; AIPerf {found.versions['aiperf']}; {found.date}"]
    text.append(f"{'':22}{'ours':>9}{'AIPerf':>9}{'ratio':>8}{'interval of 95 %':>18}{'one tool twice':>16}")
    for one in found.metrics:
        cells = f"{statistics.median(one.ours):9.2f}{statistics.median(one.theirs):9.2f}{one.ratio.value:8.3f}"
        span = f"{one.ratio.low:.3f} to {one.ratio.high:.3f}"
        text.append(f"{one.metric:22}{cells}{span:>18}{one.repeat:>16.3f}  {one.verdict}")
    own, other = found.cpu_s
    counted, itl, rate = (
        statistics.median(getattr(one, name) for one in found.theirs) for name in ("counted", "itl", "rate")
    )
    return [
        *text,
        f"AIPerf counts {counted:.0f} tokens on an answer's text, and by these ITL {itl:.2f} ms, {rate:.2f} tokens/s",
        f"CPU seconds of a round: ours {own:.1f}, AIPerf {other:.1f} with its start and its report",
    ]


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _aiperf(
    address: Address, model: str, tokenizer: Path, prompts: Sequence[str], *, users: int, requests: int, new: int
) -> Theirs:
    body = '{"text_input": {{ text|tojson }}, "max_tokens": ' + str(new) + ', "stream": true, "end_id": -1}'
    extra = json.dumps({"payload_template": body, "response_field": "text_output"})
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "prompts.jsonl"
        file.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
        command = [
            str(python_of(AIPERF).with_name("aiperf")), "profile", "-m", model, "--url", f"http://{address.http}",
            "--endpoint-type", "template", "--custom-endpoint", f"/v2/models/{model}/generate_stream", "--streaming",
            "--extra-inputs", extra, "--tokenizer", str(tokenizer), "--input-file", str(file),
            "--custom-dataset-type", "single_turn", "--concurrency", str(users), "--request-rate",
            str(ASKS_PER_S), "--request-rate-mode", "constant", "--request-count", str(requests),
            "--num-warmup-requests", str(users), "--ui", "none", "--artifact-dir", place, "--workers-max", "1",
            "--record-processors", "1", "--no-gpu-telemetry", "--no-server-metrics",  # beside the server, on its cores
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False,
                              stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)  # fmt: skip
        if done.returncode:
            raise BenchmarkError(
                "AIPerf failed",
                why=(done.stderr.strip() or done.stdout.strip())[-_TAIL:],
                fix="labs bench agree --install   makes its Python anew",
            )
        return Theirs.read(Path(place), new)
