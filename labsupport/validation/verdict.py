"""What a check answers: pass, fail or insufficient, always with the numbers that it was decided by."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Decision = Literal["pass", "fail", "insufficient"]
Source = Literal["exact", "theory", "noise floor", "guard"]
SYMBOL: dict[Decision, str] = {"pass": "✓", "fail": "✗", "insufficient": "?"}
EXIT_CODE: dict[Decision, int] = {"pass": 0, "fail": 1, "insufficient": 2}
SCHEMA = "trtllm-lab/verdict/1"


@dataclass(frozen=True)
class Verdict:
    """The answer of one test.

    Args:
        level: L0 to L7.
        test: its name.
        decision: ``insufficient`` where there was too little to decide by; never a silent pass.
        detail: one sentence for people.
        n: observations: tokens, requests or conversations, as ``detail`` says.
        statistic, threshold: fail is ``statistic > threshold``, or for tests with a p-value ``p < alpha``.
        source: where the threshold comes from: logic, a distribution, a measured noise floor, or a table of guards.
        p, alpha: of a statistical test; alpha is its share of the false-alarm budget.
        power: which fault it sees, and how surely, at this n.
        evidence: what to look at: places, tokens, values.
        needed: False where another test of the level covers the same; then ``insufficient`` does not spread.
    """

    level: str
    test: str
    decision: Decision
    detail: str
    n: int = 0
    statistic: float | None = None
    threshold: float | None = None
    source: Source = "exact"
    p: float | None = None
    alpha: float | None = None
    power: str = ""
    evidence: tuple[str, ...] = ()
    needed: bool = True


@dataclass(frozen=True)
class Level:
    """A rung: its tests, and the component that is guilty when one of them fails.

    Args:
        name, title, component: e.g. L4, "sampler", "the sampler".
        verdicts: in the order in which the tests ran.
        tokens: tokens that the target wrote for this level.
        seconds: wall time.
    """

    name: str
    title: str
    component: str
    verdicts: tuple[Verdict, ...]
    tokens: int = 0
    seconds: float = 0.0

    @property
    def decision(self) -> Decision:
        """A failed test fails the level; a needed test without an answer leaves it open."""
        return _worst([v.decision for v in self.verdicts if v.needed or v.decision != "insufficient"])


@dataclass(frozen=True)
class Report:
    """The ladder's answer.

    Args:
        target, reference: what was asked, and what it was held against.
        levels: in order; those after a failed one are missing unless all were asked for.
    """

    target: str
    reference: str
    levels: tuple[Level, ...]

    @property
    def decision(self) -> Decision:
        """Of all levels together."""
        return _worst([level.decision for level in self.levels])

    @property
    def first_failure(self) -> Level | None:
        """The level that names the guilty component: every one below it holds."""
        return next((level for level in self.levels if level.decision == "fail"), None)

    @property
    def conclusion(self) -> str:
        """What it means, in one sentence; "" where all is well."""
        guilty = self.first_failure
        if guilty is not None:
            holds = "" if guilty is self.levels[0] else ", and what is below it holds"
            return f"{guilty.name} fails{holds}: look at {guilty.component}"
        if self.decision == "insufficient":
            unsure = ", ".join(level.name for level in self.levels if level.decision == "insufficient")
            return f"nothing failed, and {unsure or 'every level'} had too little to decide by"
        return ""

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 2 insufficient."""
        return EXIT_CODE[self.decision]

    def to_json(self) -> dict[str, Any]:
        """As it is kept and sent: plain values, with the conclusions first."""
        guilty = self.first_failure
        conclusion = {"decision": self.decision, "guilty": guilty and guilty.component}
        levels = [{"decision": level.decision, **asdict(level)} for level in self.levels]
        return {"schema": SCHEMA, **conclusion, "target": self.target, "reference": self.reference, "levels": levels}


def _worst(decisions: list[Decision]) -> Decision:
    if "fail" in decisions:
        return "fail"
    return "insufficient" if "insufficient" in decisions or not decisions else "pass"
