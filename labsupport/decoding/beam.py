"""Beam search, with every decision on record.

A beam is a running sequence. At each step every beam is continued by every token; of all these candidates the
likeliest survive. The trace keeps what was kept, what finished and what was pruned, so that the search can be drawn
and checked.

Source: the rules are those of transformers 5.23 ``_beam_search`` (TensorRT-LLM's ``early_stopping`` 1, 0 and other
stand for True, False and "never"); diverse groups follow Vijayakumar et al. 2016, arXiv 1610.02424, with the penalty
kept in the score, as transformers had it before 5.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from labsupport.decoding.steps import Array
from labsupport.decoding.trace import Beam, BeamStep, BeamTrace, Candidate, Fate, Hypothesis
from labsupport.errors import ParameterError

NextLogprobs = Callable[[list[list[int]]], Array]
"""n sequences of ids, all of the same length -> ln p of the next token, [n, V]."""


@dataclass(frozen=True)
class BeamSettings:
    """The settings of a search; see ``beam_search``."""

    width: int
    max_new_tokens: int
    end_ids: tuple[int, ...] = ()
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    groups: int = 1
    diversity_penalty: float = 0.0

    def __post_init__(self) -> None:
        rules = [
            (self.width >= 1, f"width {self.width}", "a search needs at least one beam", "use 1 (greedy) or more"),
            (self.max_new_tokens >= 1, f"max_new_tokens {self.max_new_tokens}", "nothing to write", "use 1 or more"),
            (
                self.early_stopping in (True, False, "never"),
                f"early_stopping {self.early_stopping!r}",
                "there are three rules to stop",
                'use True, False or "never"',
            ),
            (
                self.groups >= 1 and self.width % self.groups == 0,
                f"{self.groups} groups for width {self.width}",
                "each group gets the same number of beams",
                "use a number of groups that divides the width",
            ),
            (
                self.diversity_penalty >= 0 and (self.groups > 1 or self.diversity_penalty == 0),
                f"diversity_penalty {self.diversity_penalty} with {self.groups} group(s)",
                "a group pays, never earns, for tokens of the groups before it; one group has none before it",
                "use groups=2 or more with a penalty of 0 or more",
            ),
        ]
        for holds, what, why, fix in rules:
            if not holds:
                raise ParameterError(what, why=why, fix=fix)

    def score(self, total: float, length: int) -> float:
        """The score that finished sequences are compared by."""
        return total / math.pow(length, self.length_penalty)


def beam_search(
    next_logprobs: NextLogprobs,
    prompt: Sequence[int],
    *,
    width: int,
    max_new_tokens: int,
    end_ids: Sequence[int] = (),
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    groups: int = 1,
    diversity_penalty: float = 0.0,
) -> BeamTrace:
    """Search for likely continuations of a prompt.

    Args:
        next_logprobs: the model; see ``NextLogprobs``.
        prompt: the ids to continue.
        width: running beams, over all groups together.
        max_new_tokens: a sequence of this length counts as finished.
        end_ids: a sequence that ends in one of these is finished.
        length_penalty: exponent of the length that scores are divided by; 0 compares plain sums, above 0 favors long.
        early_stopping: True stops when ``width`` sequences have finished; False when the best running beam, scored at
            its present length, cannot enter; "never" scores it at the length that suits it best.
        groups: search in so many groups, one after the other, each paying for repeating the others.
        diversity_penalty: what a group pays per beam of an earlier group that chose the same token in this step.

    Returns:
        The trace, with at most ``width`` hypotheses.

    Raises:
        ParameterError: a setting out of range, or no continuation is possible.
    """
    settings = BeamSettings(
        width, max_new_tokens, tuple(end_ids), length_penalty, early_stopping, groups, diversity_penalty
    )
    lanes = [Lane(settings, group) for group in range(groups)]
    steps: list[BeamStep] = []
    while running := [lane for lane in lanes if not lane.stopped]:
        sequences = [[*prompt, *beam.tokens] for lane in running for beam in lane.beams]
        rows = iter(_checked_rows(np.asarray(next_logprobs(sequences)), len(sequences)))
        taken: dict[int, int] = {}
        for lane in running:
            logprobs = np.stack([next(rows) for _ in lane.beams])
            steps.append(lane.advance(logprobs, taken))
            for candidate in steps[-1].with_fate("kept"):
                taken[candidate.token] = taken.get(candidate.token, 0) + 1
    found = sorted((h for lane in lanes for h in lane.finished), key=lambda hypothesis: -hypothesis.score)
    if not found:
        raise ParameterError(
            "the search found no sequence", why="every continuation has probability 0", fix="loosen the constraints"
        )
    return BeamTrace(tuple(prompt), tuple(steps), tuple(found), tuple(lane.stopped for lane in lanes))


def _checked_rows(rows: Array, sequences: int) -> Array:
    if rows.ndim != 2 or len(rows) != sequences:
        raise ParameterError(
            f"next_logprobs returned the shape {rows.shape} for {sequences} sequences",
            why="the search needs one row of log-probabilities per sequence",
            fix=f"return an array [{sequences}, V]",
        )
    return rows


class Lane:
    """One group of beams on its way; without diverse groups there is only one.

    Whoever runs the model itself drives it step by step: ``advance`` while ``stopped`` is empty, then ``finished``.
    """

    def __init__(self, settings: BeamSettings, group: int = 0) -> None:
        self.settings, self.group = settings, group
        self.width = settings.width // settings.groups
        self.beams: tuple[Beam, ...] = (Beam(),)
        self.finished: list[Hypothesis] = []
        self.stopped = ""

    def advance(self, logprobs: Array, taken: Mapping[int, int]) -> BeamStep:
        """Continue all beams by one token, [len(beams), V] -> the record of it.

        Args:
            logprobs: ln p of each beam's next token.
            taken: how many beams of earlier groups chose which token in this step.
        """
        penalty = np.zeros(logprobs.shape[-1])
        penalty[list(taken)] = self.settings.diversity_penalty * np.array(list(taken.values()))
        totals = np.array([beam.total for beam in self.beams])[:, None] + logprobs - penalty
        number = len(self.beams[0].tokens) + 1
        candidates = tuple(self._judged(self._candidates(logprobs, totals), number))
        step = BeamStep(number, self.group, self.beams, candidates, totals)
        self._finish(step)
        self.beams = tuple(Beam(c.tokens, c.logprob, c.total) for c in step.with_fate("kept"))
        self.stopped = self._reason_to_stop(number)
        return step

    def _candidates(self, logprobs: Array, totals: Array) -> list[Candidate]:
        # Enough to keep `width` beams running even if every beam's best continuation is an end token.
        competing = max(2, 1 + len(self.settings.end_ids)) * self.width
        best = np.argsort(-totals, axis=None, kind="stable")[:competing]
        candidates = []
        for parent, token in zip(*np.unravel_index(best, totals.shape), strict=True):
            beam = self.beams[parent]
            candidates.append(
                Candidate(
                    tokens=(*beam.tokens, int(token)),
                    logprob=beam.logprob + float(logprobs[parent, token]),
                    total=float(totals[parent, token]),
                    parent=int(parent),
                )
            )
        return [candidate for candidate in candidates if candidate.total > -np.inf]

    def _judged(self, candidates: list[Candidate], number: int) -> list[Candidate]:
        judged: list[Candidate] = []
        kept = 0
        for rank, candidate in enumerate(candidates):
            fate: Fate = "pruned"
            if candidate.token in self.settings.end_ids or number == self.settings.max_new_tokens:
                fate = "finished" if rank < self.width else "pruned"
            elif kept < self.width:
                fate, kept = "kept", kept + 1
            judged.append(replace(candidate, fate=fate))
        return judged

    def _finish(self, step: BeamStep) -> None:
        for c in step.with_fate("finished"):
            score = self.settings.score(c.total, step.number)
            self.finished.append(Hypothesis(c.tokens, c.logprob, c.total, c.parent, c.fate, score, self.group))
        self.finished = sorted(self.finished, key=lambda hypothesis: -hypothesis.score)[: self.width]

    def _reason_to_stop(self, number: int) -> str:
        settings = self.settings
        if number == settings.max_new_tokens:
            return "the length limit"
        if not self.beams:
            return "no beam can be continued"
        if len(self.finished) < self.width:
            return ""
        if settings.early_stopping is True:
            return "enough sequences have finished"
        hopeful = settings.early_stopping == "never" and settings.length_penalty > 0
        reachable = settings.score(self.beams[0].total, settings.max_new_tokens if hopeful else number)
        return "" if reachable > self.finished[-1].score else "no running beam can score better"
