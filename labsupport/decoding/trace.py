"""The record of a beam search: what ran, what was kept, what finished and what was pruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from labsupport.decoding.steps import Array

Fate = Literal["kept", "finished", "pruned"]


@dataclass(frozen=True)
class Beam:
    """A running sequence: its output ids, ln p under the model, and the total that it is ranked by.

    ``total`` is ``logprob`` less the diversity penalties paid on the way; without groups the two are equal.
    """

    tokens: tuple[int, ...] = ()
    logprob: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Candidate(Beam):
    """A beam continued by one token, and what became of it.

    Args:
        parent: index of the beam that it continues, in the step's ``beams``.
        fate: ``kept`` runs on; ``finished`` ended (end token or length) among the best; ``pruned`` is dropped.
    """

    parent: int = 0
    fate: Fate = "pruned"

    @property
    def token(self) -> int:
        """The id that it added."""
        return self.tokens[-1]


@dataclass(frozen=True)
class Hypothesis(Candidate):
    """A finished sequence; ``score`` is total / length ** length_penalty, its length counting the end token."""

    score: float = 0.0
    group: int = 0


@dataclass(frozen=True)
class BeamStep:
    """One step of one group.

    Args:
        number: the length of the candidates, from 1.
        group: the group, from 0.
        beams: what ran into the step, best first.
        candidates: those that competed, best first: (1 + number of end ids) * width, at least 2 * width.
        totals: [len(beams), V], the ranking total of *every* continuation; all that are no candidate were pruned.
    """

    number: int
    group: int
    beams: tuple[Beam, ...]
    candidates: tuple[Candidate, ...]
    totals: Array = field(repr=False, compare=False)

    def with_fate(self, fate: Fate) -> list[Candidate]:
        """The candidates with this fate, best first."""
        return [candidate for candidate in self.candidates if candidate.fate == fate]


@dataclass(frozen=True)
class BeamTrace:
    """A whole search: its steps, what it found (best score first), and why each group stopped."""

    prompt: tuple[int, ...]
    steps: tuple[BeamStep, ...]
    hypotheses: tuple[Hypothesis, ...]
    stopped: tuple[str, ...]

    @property
    def best(self) -> Hypothesis:
        """The hypothesis with the highest score."""
        return self.hypotheses[0]
