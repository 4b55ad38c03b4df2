"""What a rule is, and what it finds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from labsupport.repository.lint.repo import Repo
from labsupport.workspace import data_folder

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Hit:
    """One place that breaks a rule.

    Args:
        where: file and line, or a folder, relative to the repository.
        cause: what stands there, and why that leads to the symptom.
        mend: what to do.
        fix: does it, on the configs in memory or on the folder; None where only a person can decide.
    """

    where: str
    cause: str
    mend: str
    fix: Callable[[], object] | None = None


@dataclass(frozen=True)
class Rule:
    """A pain, and how to see it coming.

    Args:
        name: what to call it.
        pain: its number in the list of pains that the labs collect (``data/pains.json`` tells them).
        level: an ``error`` will show itself; a ``warning`` may, or shows itself as a worse answer.
        symptom: what the user would see.
        check: finds the places.
    """

    name: str
    pain: int
    level: Level
    symptom: str
    check: Callable[[Repo], Iterator[Hit]]


@dataclass(frozen=True)
class Finding:
    """A rule and a place that breaks it."""

    rule: Rule
    hit: Hit

    def __str__(self) -> str:
        mark = "  (--fix does it)" if self.hit.fix else ""
        return (
            f"{self.rule.level}: {self.hit.where}: {self.rule.name}\n  you would see: {self.rule.symptom}\n"
            f"  because: {self.hit.cause}\n  try: {self.hit.mend}{mark}\n"
            f"  as in: {', '.join(threads(self.rule.pain)[:3])}"
        )

    def to_json(self) -> dict[str, object]:
        """As plain data."""
        return {
            "rule": self.rule.name,
            "pain": self.rule.pain,
            "threads": threads(self.rule.pain),
            "level": self.rule.level,
            "where": self.hit.where,
            "symptom": self.rule.symptom,
            "cause": self.hit.cause,
            "mend": self.hit.mend,
            "fixable": self.hit.fix is not None,
        }


@cache
def threads(pain: int) -> list[str]:
    """Where people tell of a pain, as ``owner/repository#number``."""
    pains = json.loads((data_folder() / "pains.json").read_text(encoding="utf-8"))["pains"]
    return [str(thread) for one in pains if one["number"] == pain for thread in one["threads"]]


RULES: list[Rule] = []


def rule(
    name: str, *, pain: int, symptom: str, level: Level = "error"
) -> Callable[[Callable[[Repo], Iterator[Hit]]], None]:
    """Register the function below as a rule."""

    def register(check: Callable[[Repo], Iterator[Hit]]) -> None:
        RULES.append(Rule(name, pain, level, symptom, check))

    return register
