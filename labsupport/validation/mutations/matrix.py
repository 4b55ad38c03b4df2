"""Faults and harmless variations against the ladder and against the baselines: one result each, kept as it is made."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Literal

from labsupport.errors import EngineError
from labsupport.validation.diagnosis import guilty
from labsupport.validation.ladder import RUNGS, run
from labsupport.validation.material import Budget, Material
from labsupport.validation.mutations.baselines import BASELINES
from labsupport.validation.mutations.benign import BENIGN, Benign
from labsupport.validation.mutations.fault import Bench, Fault
from labsupport.validation.target import Target
from labsupport.validation.verdict import Decision, Level, Report, Verdict
from labsupport.workspace import atomic_text

FULL = Budget(6, 12, 10, 16, 4, 32, 16, 3, 0, 0, 0, 2, "matrix", crowd=300)
"""Small, for many servers: 72 greedy, 160 sampled and 128 flat tokens, 16 tasks, a crowd of 300."""
HARMLESS = Budget(3, 6, 5, 6, 5, 24, 6, 2, 0, 0, 0, 1, "harmless", crowd=16)
"""For variations that compute every token anew, some of them one by one."""
SEEDS = Budget(0, 1, 30, 1, 100, 1, 0, 1, 0, 0, 0, 0, "seeds", crowd=0)
"""One token an answer: all contexts are known, so a run costs no forward pass; 130 fresh draws."""


@dataclass(frozen=True)
class Outcome:
    """What the checks said of one server.

    Args:
        name: of the fault, with its size, or of the variation, with its number.
        kind: fault or benign.
        title, where, note: as in the catalogue.
        primary: the level that must name a fault; "" for a variation.
        measured: counts for the score.
        levels: what each level decided; those that did not run are missing.
        named: the level whose component the ladder blames; None where nothing failed.
        failing: the tests that failed, with their level.
        baselines: which of them would reject the server.
        tokens, seconds: of each level.
    """

    name: str
    kind: Literal["fault", "benign"]
    title: str
    where: str
    primary: str
    measured: bool
    levels: dict[str, Decision]
    named: str | None
    failing: tuple[str, ...]
    baselines: dict[str, bool] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def killed(self) -> bool:
        """Whether the ladder rejects the server."""
        return self.named is not None

    @property
    def localized(self) -> bool:
        """Whether it blames the component that is guilty."""
        return self.killed and self.named == self.primary


class Fixed(Material):
    """A material whose seeds of some purpose stay the same in all runs."""

    def seed(self, purpose: str, index: int) -> int:
        """Fresh ones for draws; the questions what a seed means are the same each time."""
        return super().seed(purpose, index) if purpose != "semantics" else 1000 + index


def run_fault(
    bench: Bench, fault: Fault, budget: Budget, *, only: Sequence[str] = (), baselines: bool = True
) -> Outcome:
    """One fault against everything.

    A fault that L2 must name stops at L5: its server's pieces and companies agree among themselves, all equally wrong.
    """
    only = only or [rung.name for rung in RUNGS if fault.level != "L2" or rung.name <= "L5"]
    with fault.plant(bench) as target:
        levels, named, others = _judge(bench, target, budget, only, baselines)
    return _outcome(
        fault.name, "fault", fault.title, fault.where, fault.level, fault.measured, levels, named, others, fault.note
    )


def run_benign(bench: Bench, benign: Benign, name: str, budget: Budget = HARMLESS) -> Outcome:
    """One harmless variation against everything."""
    with benign.make(bench) as target:
        levels, named, others = _judge(bench, target, budget, (), True)
    return _outcome(name, "benign", benign.title, "", "", False, levels, named, others, "")


def run_seeds(bench: Bench, number: int) -> Outcome:
    """B11: the healthy server with fresh seeds: L4 on draws whose contexts are all known."""
    material = Fixed(bench.target(), bench.reference, _named(SEEDS, f"seeds {number}"))
    [rung] = [rung for rung in RUNGS if rung.name == "L4"]
    level = run(rung, material)
    named = level.name if level.decision == "fail" else None
    return _outcome(f"B11-{number:03}", "benign", "new seeds", "", "", False, [level], named, {}, "")


def seeds(count: int) -> range:
    """Numbers of the B11 runs that make ``count`` benign runs with the others."""
    return range(max(0, count - len(BENIGN) + 1))  # one more, because B04 needs a compiled engine


def _judge(
    bench: Bench, target: Target, budget: Budget, only: Sequence[str], baselines: bool
) -> tuple[list[Level], str | None, dict[str, bool]]:
    material = Material(target, bench.reference, budget)
    levels = [_safely(rung, material) for rung in RUNGS if not only or rung.name in only]
    named = guilty(Report(material.facts.name, bench.reference.name, tuple(levels)), material)
    return levels, named, {name: _rejects(check, material) for name, check in BASELINES.items()} if baselines else {}


def _safely(rung: Any, material: Material) -> Level:
    """A level; one that breaks on what the target sent has seen that it is wrong."""
    try:
        return run(rung, material)
    except (ValueError, IndexError, FloatingPointError) as problem:
        told = f"{type(problem).__name__}: {problem}"
        return Level(rung.name, rung.title, rung.component, (Verdict(rung.name, "could be run", "fail", told),))


def _rejects(check: Callable[[Material], bool], material: Material) -> bool:
    try:
        return bool(check(material))
    except Exception:  # whatever stops a check, the server has not passed it
        return True


def _outcome(
    name: str, kind: Literal["fault", "benign"], title: str, where: str, primary: str, measured: bool,
    levels: Sequence[Level], named: str | None, baselines: dict[str, bool], note: str,
) -> Outcome:  # fmt: skip
    failing = tuple(f"{v.level} {v.test}" for level in levels for v in level.verdicts if v.decision == "fail")
    return Outcome(
        name, kind, title, where, primary, measured, {level.name: level.decision for level in levels}, named, failing,
        baselines, {level.name: level.tokens for level in levels},
        {level.name: round(level.seconds, 2) for level in levels}, note,
    )  # fmt: skip


def _named(budget: Budget, name: str) -> Budget:
    return replace(budget, run=name)


class Kept:
    """Outcomes in a folder, one file each, so that a run can stop and go on, and two can share the work.

    Args:
        folder: where.
        budget: of the ladder; outcomes of another budget are made again.
    """

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.folder = folder / hashlib.sha256(repr(budget).encode()).hexdigest()[:8]

    def get(self, name: str) -> Outcome | None:
        """An outcome that was made before."""
        path = self._path(name)
        if not path.is_file():
            return None
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(**{**raw, "failing": tuple(raw["failing"])})

    def put(self, outcome: Outcome) -> None:
        """Keep one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_text(self._path(outcome.name), json.dumps(asdict(outcome), indent=1) + "\n")

    def _path(self, name: str) -> Path:
        return self.folder / f"{name.replace('/', '_').replace('(', '').replace(')', '')}.json"


def jobs(faults: Sequence[Fault], benign: int, budget: Budget) -> list[tuple[str, Callable[[Bench], Outcome]]]:
    """What is to be run, each with its name."""
    todo: list[tuple[str, Callable[[Bench], Outcome]]] = []
    todo += [(fault.name, partial(run_fault, fault=fault, budget=budget)) for fault in faults]
    named = [(f"{one.id} {one.title}", one) for one in BENIGN[:benign]]
    todo += [(name, partial(run_benign, benign=one, name=name)) for name, one in named]
    return todo + [(f"B11-{number:03}", partial(run_seeds, number=number)) for number in seeds(benign)]


def work(
    bench: Bench, todo: Sequence[tuple[str, Callable[[Bench], Outcome]]], kept: Kept, limit: float,
    say: Callable[[str], None],
) -> int:  # fmt: skip
    """Run what is not kept yet, for at most ``limit`` seconds -> how many are left.

    Harmless runs come in an order of this process's own, so that two that share a folder seldom do the same.
    """
    began, left, dice = time.perf_counter(), 0, Random(os.getpid())
    for name, job in sorted(todo, key=lambda one: dice.random() if one[0].startswith("B") else -1.0):
        if kept.get(name) is not None:
            continue
        if time.perf_counter() - began > limit:
            left += 1
            continue
        started = time.perf_counter()
        try:
            outcome = job(bench)
        except EngineError as absent:
            say(f"{name}: not run: {absent.what}")
            continue
        kept.put(outcome)
        say(f"{name}: {outcome.named or 'nothing fails'} ({time.perf_counter() - started:.1f} s)")
    return left
