"""Checks of lab 03, beam search and log-probs.

The learner's beam search runs on tiny models whose next token depends on the whole history, and is held against
``labsupport.decoding.beam_search`` and, where the width allows it, against every sequence there is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from labsupport.decoding import beam as decoding
from labsupport.decoding import scores, steps
from labsupport.labs.checks import Wrong, exercise, expect, expect_choice, expect_close, show

Array = npt.NDArray[np.float64]
NextLogprobs = Callable[[list[list[int]]], Array]
Found = list[tuple[tuple[int, ...], float]]
"""Sequences with their total ln p, best first."""


# --- references: what a right attempt computes -----------------------------------------------------------------------


def sequence_logprob(logits: Array, ids: Sequence[int], prompt_length: int) -> float:
    """ln p of what follows the prompt.

    Args:
        logits: [T, V] of one forward pass over all T ids; row t speaks about ``ids[t + 1]``.
        ids: the T ids of prompt and answer.
        prompt_length: how many of them are the prompt.
    """
    return scores.sequence_logprob(np.asarray(logits)[prompt_length - 1 : -1], list(ids)[prompt_length:])


def beam(next_logprobs: NextLogprobs, width: int, length: int) -> Found:
    """The ``width`` best sequences of ``length`` tokens that a beam search finds, with their ln p, best first."""
    trace = decoding.beam_search(next_logprobs, [], width=width, max_new_tokens=length, length_penalty=0.0)
    return [(found.tokens, found.logprob) for found in trace.hypotheses]


def brute_force(next_logprobs: NextLogprobs, vocabulary: int, length: int) -> Found:
    """All ``vocabulary ** length`` sequences with their ln p, best first."""
    found: Found = []
    for tokens in itertools.product(range(vocabulary), repeat=length):
        total = sum(float(next_logprobs([list(tokens[:t])])[0][token]) for t, token in enumerate(tokens))
        found.append((tokens, total))
    return sorted(found, key=lambda one: -one[1])


# --- tiny models -----------------------------------------------------------------------------------------------------


@dataclass
class TinyModel:
    """A random model: each history has a distribution of its own. It counts what it is asked.

    Args:
        seed: another seed, another model.
        vocabulary: the number of tokens, V.
        shift: added to every ln p, as if each token were that unlikely; orders stay.
    """

    seed: int
    vocabulary: int = 4
    shift: float = 0.0
    rows: list[int] = field(default_factory=list)

    def __call__(self, sequences: list[list[int]]) -> Array:
        """n sequences -> ln p of the next token, [n, V]."""
        self.rows.append(len(sequences))
        return np.stack([self._row(tuple(int(token) for token in sequence)) for sequence in sequences])

    def _row(self, history: tuple[int, ...]) -> Array:
        rng = np.random.default_rng([self.seed, len(history), *history])
        return np.asarray(steps.log_softmax(2 * rng.normal(size=self.vocabulary))) + self.shift


# --- the exercises ---------------------------------------------------------------------------------------------------

LN_10 = math.log(10)
UNITS = (-2.447 * LN_10, 10**-2.447)


@exercise("03.1", reference=UNITS)
def predict_the_units(attempt: Any) -> None:
    """-2.447 in log10 as ln, and as a probability."""
    expect(isinstance(attempt, (tuple, list)) and len(attempt) == 2, "Give two numbers: (ln p, p).")
    ln_p, p = (float(value) for value in attempt)
    expect(ln_p < 0, f"ln p: {ln_p:.4g} is not it. p is below 1, so its logarithm is negative, whatever the base.")
    expect(
        abs(ln_p - UNITS[0]) < 0.02,
        f"ln p: {ln_p:.3f} is not it. log10 x = 1 means x = 10, and ln 10 is 2.303: is the ln of a number closer to 0 "
        "than its log10, or farther away?",
    )
    expect(
        abs(p / UNITS[1] - 1) < 0.02,
        f"p: {p:.4g} is not it. Undo a logarithm with its own base: e to the ln, or 10 to the log10.",
    )


@exercise("03.2", reference=sequence_logprob)
def score_a_text(attempt: Callable[[Array, list[int], int], float]) -> None:
    """The shift by one, the prompt left out, ln and not log10, no underflow, the last row unused."""
    rows = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.9, 0.05, 0.05]])
    for ids, prompt_length, story in (
        ([0, 1], 1, "Row 0 is what the model says after token 0, so it is row 0 that scores ids[1]"),
        ([2, 0, 1], 1, "Row t scores ids[t + 1]; the last row speaks about a token that nobody wrote"),
        ([2, 0, 1, 2], 2, "ids[2] is the first token after the prompt; the prompt is given and is not scored"),
    ):
        got = _number(attempt(rows[: len(ids)].copy(), list(ids), prompt_length))
        want = sequence_logprob(rows[: len(ids)], ids, prompt_length)
        expect(
            abs(got - want) < 1e-6,
            f"For ids={ids}, prompt_length={prompt_length}, probabilities by row "
            f"{np.exp(rows[: len(ids)]).round(2).tolist()}: you got {got:.4f} (p = {math.exp(min(got, 0)):.4f}), "
            f"expected {want:.4f} (p = {math.exp(want):.4f}).\n{story}.",
        )
    raw = np.array([[3.0, 1.0], [0.0, 5.0], [1.0, 1.0]])
    expect_close(
        _number(attempt(raw.copy(), [0, 1, 0], 1)),
        sequence_logprob(raw, [0, 1, 0], 1),
        given="logits=[[3, 1], [0, 5], [1, 1]], ids=[0, 1, 0], prompt_length=1 (logits are not log-probs yet)",
    )
    with np.errstate(all="ignore"):
        far = _number(attempt(np.array([[0.0, 2000.0], [0.0, 0.0]]), [0, 0], 1))
    expect(
        math.isfinite(far),
        f"For logits=[[0, 2000], [0, 0]], ids=[0, 0]: you got {far}, expected -2000. The probability e^-2000 is 0 in "
        "every format: never compute it, go from logits to ln p directly.",
    )
    expect_close(far, -2000.0, given="logits=[[0, 2000], [0, 0]], ids=[0, 0], prompt_length=1")


@exercise("03.3", reference=beam)
def search_with_beams(attempt: Callable[[NextLogprobs, int, int], Found]) -> None:
    """Against the reference for several widths, against brute force, the work done, and no underflow."""
    for seed, width, length in ((4, 1, 3), (2, 2, 2), (38, 2, 3), (20, 3, 4), (5, 3, 5), (6, 4, 3)):
        model = TinyModel(seed)
        _same(_found(attempt(model, width, length)), beam(TinyModel(seed), width, length), f"{width=}, {length=}")
        expect(
            sum(model.rows) <= 1 + width * (length - 1),
            f"For {width=}, {length=}: you asked the model for {sum(model.rows)} rows. A beam search asks for 1, "
            f"then for at most {width} a step: it continues the {width} best, and forgets the others.",
        )
    for seed in range(7, 10):
        got = _found(attempt(TinyModel(seed), 64, 3))
        want = brute_force(TinyModel(seed), 4, 3)
        _same(got[:1], want[:1], "width=64, length=3, V=4 (wide enough to keep every sequence, so it must be exact)")
    got = _found(attempt(TinyModel(10, shift=-400.0), 2, 4))
    _same(got, beam(TinyModel(10, shift=-400.0), 2, 4), "tokens of about e^-400 each (never leave the logarithm)")


@exercise("03.4", reference=([0.36, 0.34, 0.30], [[0.34, 0.33, 0.33], [0.34, 0.33, 0.33], [1.0, 0.0, 0.0]]))
def break_the_beam(attempt: Any) -> None:
    """A model of two steps whose best text a beam of width 2 misses."""
    expect(isinstance(attempt, (tuple, list)) and len(attempt) == 2, "Hand in (first, second): shapes [3] and [3, 3].")
    first, second = (np.asarray(part, dtype=np.float64) for part in attempt)
    expect(first.shape == (3,) and second.shape == (3, 3), f"The shapes are {first.shape} and {second.shape}.")
    for name, row in (("first", first), *((f"second[{index}]", row) for index, row in enumerate(second))):
        expect(
            row.min() >= 0 and abs(row.sum() - 1) < 1e-6, f"{name} sums to {row.sum():.4f} and must be a distribution."
        )
    joint = first[:, None] * second
    best = joint.max()
    kept = np.argsort(-first, kind="stable")[:2]
    reached = joint[kept].max()
    expect(
        np.sort(first)[0] < np.sort(first)[1],
        f"first = {show(first)}: the two smallest are equal, so it is luck which one the beam drops.",
    )
    expect(
        reached < best - 1e-9,
        f"The beam keeps the first tokens {sorted(int(token) for token in kept)} and reaches p = {reached:.3f}; the "
        f"best text of all has p = {best:.3f}. So width 2 finds it. Let the best text begin with the token that the "
        "beam drops.",
    )


TIE = math.log2(4.2 / 3.0)


@exercise("03.5", reference=("short", "long", TIE))
def predict_the_length_penalty(attempt: Any) -> None:
    """Who wins at 0.0 and at 1.0, and where the two are equal."""
    expect(isinstance(attempt, (tuple, list)) and len(attempt) == 3, "Give three answers: two winners and a number.")
    at_zero, at_one, tie = attempt
    expect_choice(
        at_zero,
        "short",
        reasons={"long": "at 0.0 you divide by length to the power of 0, which is 1: compare the sums"},
    )
    expect_choice(
        at_one, "long", reasons={"short": "at 1.0 you compare the means: -3.0 / 4 and -4.2 / 8. Which is closer to 0?"}
    )
    expect(
        abs(float(tie) - TIE) < 0.01,
        f"At {float(tie):.3f} the scores are {-3.0 / 4 ** float(tie):.4f} and {-4.2 / 8 ** float(tie):.4f}, not equal. "
        "Set 3.0 / 4^a = 4.2 / 8^a; then 2^a = 1.4.",
    )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise Wrong(f"You returned {show(value)}, expected one number") from None


def _found(value: Any) -> Found:
    try:
        return [(tuple(int(token) for token in tokens), float(total)) for tokens, total in value]
    except (TypeError, ValueError):
        raise Wrong(f"You returned {show(value)}, expected a list of (tokens, ln p) pairs, best first") from None


def _same(got: Found, want: Found, given: str) -> None:
    """The same sequences in the same order with the same totals."""
    expect(
        len({tokens for tokens, _ in got}) == len(got),
        f"For {given}: one sequence is found twice: {show([tokens for tokens, _ in got])}. Does your search start with "
        "one empty sequence?",
    )
    expect(
        [tokens for tokens, _ in got] == [tokens for tokens, _ in want]
        and np.allclose([total for _, total in got], [total for _, total in want], rtol=1e-9, atol=1e-9),
        f"For {given}:\n  you got  {_shown(got)}\n  expected {_shown(want)}",
    )


def _shown(found: Found) -> str:
    return ", ".join(f"{tokens} {total:.3f}" for tokens, total in found[:4]) or "nothing"
