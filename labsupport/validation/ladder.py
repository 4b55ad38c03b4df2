"""The ladder: levels in order, each trusting those below; the first that fails names the guilty component."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module

from labsupport.errors import LabError, RequestError, ServerError
from labsupport.validation.material import Material
from labsupport.validation.verdict import Level, Report, Verdict


@dataclass(frozen=True)
class Rung:
    """A level before it runs."""

    name: str
    title: str
    module: str

    @property
    def component(self) -> str:
        """What is guilty when it fails."""
        return str(import_module(self.module).COMPONENT)

    @property
    def check(self) -> Callable[[Material], list[Verdict]]:
        """The level's function."""
        found: Callable[[Material], list[Verdict]] = import_module(self.module).check
        return found


_HOME = "labsupport.validation.levels"
RUNGS = (
    Rung("L0", "parameters", f"{_HOME}.l0_parameters"),
    Rung("L1", "template and tokens", f"{_HOME}.l1_template"),
    Rung("L2", "logits", f"{_HOME}.l2_logits"),
    Rung("L3", "greedy choices", f"{_HOME}.l3_greedy"),
    Rung("L4", "sampler", f"{_HOME}.l4_sampler"),
    Rung("L5", "tasks", f"{_HOME}.l5_task"),
    Rung("L6", "streaming", f"{_HOME}.l6_streaming"),
    Rung("L7", "relations", f"{_HOME}.l7_metamorphic"),
)


def climb(material: Material, *, every: bool = False, only: Sequence[str] = ()) -> Report:
    """Run the ladder.

    Args:
        material: a target with its reference and budget.
        every: go on after a failed level, as one does to measure which levels see a fault.
        only: names of levels to run.
    """
    return Report(material.facts.name, material.reference.name, tuple(steps(material, every=every, only=only)))


def steps(material: Material, *, every: bool = False, only: Sequence[str] = ()) -> Iterator[Level]:
    """The levels as they are done."""
    for rung in RUNGS:
        if only and rung.name not in only:
            continue
        level = run(rung, material)
        yield level
        if level.decision == "fail" and not every:
            return


def run(rung: Rung, material: Material) -> Level:
    """One level. What stops it, such as a target that refuses, is a failure of that level."""
    began, tokens = time.perf_counter(), material.tokens
    try:
        verdicts = rung.check(material)
    except LabError as problem:
        if isinstance(problem, ServerError) and not isinstance(problem, RequestError):
            raise  # nobody is there: that says nothing of the target
        verdicts = [Verdict(rung.name, "could be run", "fail", problem.what, evidence=(problem.why,))]
    seconds = time.perf_counter() - began
    return Level(rung.name, rung.title, rung.component, tuple(verdicts), material.tokens - tokens, seconds)
