"""Engines side by side: all loaded, one at work at a time, in turn; medians and ranges over the rounds."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from labsupport.benchmark.catalogue import OURS, WORKER, Peer
from labsupport.benchmark.installing import files_of, python_of
from labsupport.benchmark.limits import Work, doubt, work_of
from labsupport.benchmark.machine import Limits, measure_limits
from labsupport.benchmark.process import Worker, busy_seconds
from labsupport.errors import BenchmarkError
from labsupport.workspace import Workspace, atomic_text

REST = 0.3  # seconds between engines: the threads of the one before may still spin
SHOWN = 8  # first tokens of a row
BUSY = 0.1  # cores; with more taken by others, a rate says little about the engine
Done = TypeVar("Done")


@dataclass(frozen=True)
class Settings:
    """What every engine is asked for.

    Args:
        prompt: tokens of each prompt; each round has another, so that no cache of prefixes helps.
        new: tokens to generate, the end token being ignored.
        threads: of each engine.
        rounds: counted ones, after one that is not.
    """

    prompt: int = 64
    new: int = 128
    threads: int = 2
    rounds: int = 5


@dataclass(frozen=True)
class Spread:
    """The middle of several runs, with the lowest and the highest, and all of them in their order."""

    median: float
    low: float
    high: float
    rounds: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values), tuple(values))


@dataclass(frozen=True)
class Row:
    """One engine at one precision.

    Args:
        prefill: tokens a second: those of the prompt by the time to the first new token.
        decode: tokens a second: the other new tokens by the time that they took.
        load_s: seconds from asking for the model to having it; starting Python is not in it.
        first_s: seconds of the round that is not counted, in which many engines still prepare.
        peak: bytes of resident memory at the most, with pages of mapped files.
        share: decode as a share of what the memory bandwidth allows at this precision.
        others: cores that other programs used, the median round; a quiet machine has less than a tenth.
        same: new tokens of the last round before the first that differs from the reference's.
        tokens: the first new tokens of the last round.
    """

    peer: str
    title: str
    precision: str
    prefill: Spread
    decode: Spread
    load_s: float
    first_s: float
    peak: int
    share: float
    others: float
    same: int
    tokens: tuple[int, ...]
    versions: dict[str, str]
    note: str


@dataclass(frozen=True)
class Ratio:
    """Ours by the best other engine of a precision, medians of one run; above 1 ours is faster."""

    precision: str
    decode: float
    decode_best: str
    prefill: float
    prefill_best: str


@dataclass(frozen=True)
class Found:
    """All rows of a run, with what the machine could do at most in the same minutes.

    Args:
        reference: the row that tokens are compared with: the first at the highest precision.
        doubts: results that beat a limit or stay far below it.
        left_out: engines that failed, and at what.
    """

    model: str
    date: str
    cpu: str
    settings: Settings
    limits: Limits
    weights: int
    reference: str
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    doubts: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass
class Contender:
    """A loaded engine and its rounds so far."""

    peer: Peer
    precision: str
    worker: Worker
    loaded: dict[str, Any]
    rounds: list[dict[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.peer.title} {self.precision}"


def measure(
    model: Path,
    entries: Sequence[tuple[Peer, str]],
    prompts: Sequence[list[int]],
    settings: Settings,
    *,
    cpu: str,
    progress: Callable[[str], object] = lambda what: None,  # noqa: ARG005
) -> Found:
    """Run all ``entries`` and write ``work/runs/engines-<model>.json``. Another engine that fails is left out.

    Args:
        model: a Hugging Face folder.
        entries: peer and precision, in the order of the rows.
        prompts: token ids of each round, the first for the round that is not counted.
        cpu: the processor's name, for the record.
        progress: told what happens next.

    Raises:
        BenchmarkError: ours, or every engine, is not installed, cannot make its files, ends, or gives too few tokens.
    """
    failed: list[tuple[str, BenchmarkError]] = []

    def tried(peer: Peer, precision: str, work: Callable[[], Done]) -> Done | None:
        try:
            return work()
        except BenchmarkError as problem:
            if peer.name == OURS:
                raise
            failed.append((f"{peer.title} {precision}", problem))
            progress(f"left out: {peer.title} {precision}: {problem.why}")
            return None

    files = []
    for peer, precision in entries:
        progress(f"files of {peer.title} {precision}")
        files.append(tried(peer, precision, partial(files_of, peer, model, precision)))
    before = measure_limits(settings.threads)
    with ExitStack() as stack:
        contenders = []
        for (peer, precision), folder in zip(entries, files, strict=True):
            if folder:
                progress(f"load {peer.title} {precision}")
                contenders.append(tried(peer, precision, partial(start, stack, peer, precision, folder, settings)))
        running = [one for one in contenders if one]
        for number in range(settings.rounds + 1):
            progress(f"round {number} of {settings.rounds}" if number else "a round that is not counted")
            for one in tuple(running):
                time.sleep(REST)
                answer = tried(one.peer, one.precision, partial(play, one, prompts[number], settings.new))
                if answer:
                    one.rounds.append(answer)
                else:
                    running.remove(one)
        peaks = [one.worker.peak for one in running]
    if not running:
        raise failed[-1][1]
    limits = better(before, measure_limits(settings.threads))
    found = summary(model.name, running, peaks, work_of(model), limits, settings, cpu)
    found = replace(found, left_out=tuple(f"{name}: {problem.what} ({problem.why})" for name, problem in failed))
    target = Workspace.current().runs / f"engines-{model.name}.json"
    atomic_text(target, json.dumps(asdict(found), indent=2) + "\n")
    return found


def start(stack: ExitStack, peer: Peer, precision: str, files: Path, settings: Settings) -> Contender:
    """Start the worker of ``peer`` and let it load."""
    command = [str(python_of(peer)), str(WORKER), str(peer.script), "serve"]
    worker = stack.enter_context(Worker(f"{peer.name} {precision}", command, settings.threads))
    context = settings.prompt + settings.new
    asked = {"files": str(files), "precision": precision, "threads": settings.threads, "context": context}
    return Contender(peer, precision, worker, worker.ask(asked), [])


def play(one: Contender, ids: list[int], new: int) -> dict[str, Any]:
    """One round; an engine that stops early is an error, since its rate would be of another task."""
    began, busy, own = time.perf_counter(), busy_seconds(), one.worker.cpu_seconds()
    answer = one.worker.ask({"ids": ids, "new": new})
    others = busy_seconds() - busy - (one.worker.cpu_seconds() - own)
    answer["others"] = max(0.0, others / (time.perf_counter() - began))
    if len(answer["tokens"]) != new:
        raise BenchmarkError(
            f"{one.name} gave {len(answer['tokens'])} tokens where {new} were asked for",
            why="it stopped at an end token, or its context is too short",
            fix="leave it out with --peers and report it",
        )
    return answer


def better(one: Limits, other: Limits) -> Limits:
    """The higher ceiling of two measurements."""
    return replace(one, read=max(one.read, other.read), flops=max(one.flops, other.flops),
                   read_median=statistics.median([one.read_median, other.read_median]))  # fmt: skip


def summary(
    model: str, contenders: Sequence[Contender], peaks: Sequence[int], work: Work, limits: Limits, settings: Settings,
    cpu: str,
) -> Found:  # fmt: skip
    """Rows, ratios and doubts of rounds that have been run."""
    order = sorted(contenders, key=lambda one: list(_PRECISION_ORDER).index(one.precision))
    reference = next((one for one in order if one.peer.name != OURS), order[0])
    rows = tuple(
        _row(one, peak, reference, work, limits, settings) for one, peak in zip(contenders, peaks, strict=True)
    )
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Found(model, date, cpu, settings, limits, work.weights, reference.name, rows, ratios(rows),
                 tuple(doubts(rows, work, limits)))  # fmt: skip


_PRECISION_ORDER = ("fp32", "bf16", "int8", "int4")


def _row(one: Contender, peak: int, reference: Contender, work: Work, limits: Limits, settings: Settings) -> Row:
    first, *counted = one.rounds
    prefill = Spread.of([settings.prompt / run["times"][0] for run in counted])
    decode = Spread.of([(settings.new - 1) / (run["times"][-1] - run["times"][0]) for run in counted])
    tokens = counted[-1]["tokens"]
    return Row(
        one.peer.name, one.peer.title, one.precision, prefill, decode, one.loaded["load_s"], first["times"][-1], peak,
        decode.median / work.decode_limit(one.precision, limits), statistics.median(run["others"] for run in counted),
        leading(tokens, reference.rounds[-1]["tokens"]), tuple(tokens[:SHOWN]), one.loaded["versions"],
        one.loaded["note"],
    )  # fmt: skip


def leading(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many tokens are equal before the first difference.

    Example:
        >>> leading([5, 6, 7], [5, 6, 9])
        2
    """
    same = [a == b for a, b in zip(tokens, others, strict=False)]
    return same.index(False) if False in same else len(same)


def ratios(rows: Sequence[Row]) -> tuple[Ratio, ...]:
    """Ours by the best other engine, for each precision that both sides ran."""
    found = []
    for ours in (row for row in rows if row.peer == OURS):
        others = [row for row in rows if row.precision == ours.precision and row.peer != OURS]
        if others:
            fast = max(others, key=lambda row: row.decode.median)
            early = max(others, key=lambda row: row.prefill.median)
            found.append(
                Ratio(ours.precision, ours.decode.median / fast.decode.median, fast.title,
                      ours.prefill.median / early.prefill.median, early.title)
            )  # fmt: skip
    return tuple(found)


def doubts(rows: Sequence[Row], work: Work, limits: Limits) -> list[str]:
    """A line for each result that its limit makes doubtful; fp32 alone is held against the float32 rate."""
    found = []
    for row in rows:
        name = f"{row.title} {row.precision}"
        found.append(doubt(f"{name} decode tok/s", row.decode.median, work.decode_limit(row.precision, limits)))
        if row.precision == "fp32":
            found.append(doubt(f"{name} prefill tok/s", row.prefill.median, work.prefill_limit(limits)))
        if row.others > BUSY:
            found.append(f"{name}: other programs used {row.others:.1f} cores beside it: stop them and measure again")
        if row.same == 0 and row.precision != "int4":  # four bits may change the very first token
            found.append(f"{name}: its first token is not the reference's: is it the same model?")
    return [one for one in found if one]
