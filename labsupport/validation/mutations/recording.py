"""Outcomes -> numbers: detection matrix, score, false alarms, localization, curves, cost; and the recording."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from labsupport.errors import ParameterError
from labsupport.validation.material import Budget
from labsupport.validation.mutations.baselines import BASELINES
from labsupport.validation.mutations.matrix import HARMLESS, SEEDS, Outcome
from labsupport.validation.statistics import clopper_pearson

LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7")


@dataclass(frozen=True)
class Rate:
    """A share with its exact 95 % interval (Clopper-Pearson)."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """From, to."""
        return clopper_pearson(self.count, self.of) if self.of else (0.0, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.of} (95 %: {low:.1%} to {high:.1%})"


@dataclass(frozen=True)
class Matrix:
    """All outcomes of a run, and what follows from them.

    Args:
        outcomes: of faults and of benign runs.
        about: how it came about: command, model, versions, machine, date, budget.
    """

    outcomes: tuple[Outcome, ...]
    about: Mapping[str, Any]

    @property
    def faults(self) -> list[Outcome]:
        """Those that count for the score."""
        return [outcome for outcome in self.outcomes if outcome.kind == "fault" and outcome.measured]

    @property
    def benign(self) -> list[Outcome]:
        """Runs that must raise no alarm."""
        return [outcome for outcome in self.outcomes if outcome.kind == "benign"]

    @property
    def score(self) -> Rate:
        """Faults that the ladder rejects."""
        return Rate(sum(outcome.killed for outcome in self.faults), len(self.faults))

    @property
    def localization(self) -> Rate:
        """Of the rejected faults, those whose component it blames."""
        killed = [outcome for outcome in self.faults if outcome.killed]
        return Rate(sum(outcome.localized for outcome in killed), len(killed))

    @property
    def false_alarms(self) -> Rate:
        """Benign runs that the ladder rejects."""
        return Rate(sum(outcome.killed for outcome in self.benign), len(self.benign))

    def baseline(self, name: str) -> tuple[Rate, Rate]:
        """Faults, and benign runs of the whole ladder, that a baseline rejects."""
        return _rate(self.faults, name), _rate([one for one in self.benign if one.baselines], name)

    def level(self, name: str) -> Rate:
        """Faults that a level rejects, whoever else does."""
        return Rate(sum(one.levels.get(name) == "fail" for one in self.faults), len(self.faults))

    def cheapest(self, share: float = 0.95) -> list[str]:
        """Levels that reject at least ``share`` of what all reject: always the one next that finds most in a second."""
        found = {name: {one.name for one in self.faults if one.levels.get(name) == "fail"} for name in LEVELS}
        left = set[str]().union(*found.values())
        enough, chosen = (1 - share) * len(left), list[str]()
        while len(left) > enough:
            best = max(LEVELS, key=lambda name: len(found[name] & left) / (self._seconds(name) + 1e-9))
            chosen.append(best)
            left -= found[best]
        return sorted(chosen)

    def _seconds(self, level: str) -> float:
        """Of that level, over all faults."""
        return sum(one.seconds.get(level, 0.0) for one in self.faults)

    def curves(self) -> dict[str, list[Outcome]]:
        """Faults of several sizes."""
        by_id: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            if outcome.kind == "fault":
                by_id.setdefault(outcome.name.split("@")[0], []).append(outcome)
        return {id: sizes for id, sizes in by_id.items() if len(sizes) > 1}

    def to_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return {"about": dict(self.about), "outcomes": [asdict(outcome) for outcome in self.outcomes]}


def _rate(outcomes: Sequence[Outcome], name: str) -> Rate:
    seen = [outcome.baselines[name] for outcome in outcomes if name in outcome.baselines]
    return Rate(sum(seen), len(seen))


def about(command: str, model: str, budget: Budget) -> dict[str, Any]:
    """Where, when and with what a run was made."""
    from importlib.metadata import version

    return {
        "command": command, "model": model,
        "budget": {"faults": vars(budget), "harmless": vars(HARMLESS), "seeds": vars(SEEDS)},
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _processor(), "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy", "scipy")},
    }  # fmt: skip


def _processor() -> str:
    try:
        found = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        found = []
    names = [line.partition(":")[2].strip() for line in found if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {len(names) or os.cpu_count()} cores"


def read_matrix(path: Path) -> Matrix:
    """A recording.

    Raises:
        ParameterError: it is none.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        outcomes = tuple(Outcome(**{**one, "failing": tuple(one["failing"])}) for one in raw["outcomes"])
        return Matrix(outcomes, raw["about"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ParameterError(
            f"{path} is no recording of a mutation matrix", why=str(problem), fix="labs mutation-matrix --output FILE"
        ) from None


SIGN = {"fail": "✗", "pass": "·", "insufficient": "?"}


def lines(matrix: Matrix) -> list[str]:
    """The matrix for a terminal: a row a fault; ✗ rejected, · passed, ? too little to decide by."""
    short = [name.split(" ")[0][:12] for name in BASELINES]
    head = f"{'fault':<14}{'':<42}{' '.join(LEVELS)}  named   {' '.join(short)}"
    rows = [head, *(_row(one) for one in matrix.outcomes if one.kind == "fault")]
    whole = [one for one in matrix.benign if one.baselines]
    runs = f"{len(whole)} whole ladders, {len(matrix.benign) - len(whole)} x L4 on fresh seeds"
    rows += ["", f"mutation score   {matrix.score}", f"localization     {matrix.localization}"]
    rows += [f"false alarms     {matrix.false_alarms}: {runs}"]
    rows += [f"{name:<24} rejects {matrix.baseline(name)[0]} faults, {matrix.baseline(name)[1]} benign runs"
             for name in BASELINES]  # fmt: skip
    for name in LEVELS:
        spent = [one for one in matrix.faults if name in one.levels]
        tokens, seconds = (sum(getattr(one, what).get(name, 0) for one in spent) for what in ("tokens", "seconds"))
        if spent:
            rows.append(f"{name}: rejects {matrix.level(name).count}, {tokens / len(spent):.0f} tokens and "
                        f"{seconds / len(spent):.1f} s a server")  # fmt: skip
    rows.append(f"cheapest levels for 95 % of the score: {', '.join(matrix.cheapest())}")
    rows += [f"{id}: " + ", ".join(f"{one.title} {'seen' if one.killed else 'not seen'}" for one in sizes)
             for id, sizes in matrix.curves().items()]  # fmt: skip
    return rows


def _row(one: Outcome) -> str:
    cells = "  ".join(SIGN[one.levels[name]] if name in one.levels else " " for name in LEVELS)
    named = f"{one.named or '-'}{'' if one.localized or not one.killed else f' ({one.primary})'}"
    widths = {name: len(name.split(" ")[0][:12]) for name in one.baselines}
    others = " ".join(f"{'✗' if one.baselines[name] else '·':<{width}}" for name, width in widths.items())
    return f"{one.name:<14}{one.title[:41]:<42}{cells}   {named:<8}{others}"
