"""Checks of lab 02, sampling and temperature.

The samplers that learners write are judged in two ways: by small cases that can be worked by hand, and by a G-test on
thousands of draws. The uniform numbers of the G-test are fixed, so a verdict never changes from run to run.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from labsupport.decoding import steps
from labsupport.decoding.dialects import exact_distribution
from labsupport.decoding.streams import Xorwow, independent_seed
from labsupport.labs.checks import Wrong, exercise, expect, expect_close, show

ALPHA = 1e-3
DRAWS = 15_000
CONTEXT = np.roll([2.6, *np.linspace(0.3, -0.3, 15)], 5)
"""The logits [16] of the statistical check: a leader against an even field, where a wrong temperature moves most mass.

At T = 0.7 and 15,000 draws the G-test has a power above 0.999 to reject 1.05 T at the 1e-3 level.
"""

Array = npt.NDArray[np.float64]
Draw = Callable[..., int]


# --- references: what a right attempt computes -----------------------------------------------------------------------


def softmax_with_temperature(logits: Array, temperature: float) -> Array:
    """Probabilities [V] of logits [V] at a temperature above 0: ``exp(z_i / T) / sum_j exp(z_j / T)``, stable."""
    return steps.softmax(steps.temperature(np.asarray(logits, dtype=np.float64), temperature))


def cut(probabilities: Array, top_k: int = 0, top_p: float = 0.0) -> Array:
    """Top-k, then nucleus, on probabilities [V]; the result sums to 1.

    Exactly ``top_k`` tokens stay (0: no limit), lower ids first among equals. Then the smallest set of likeliest
    tokens stays whose renormalized mass reaches ``top_p`` (0 or less, or 1: no limit), the crossing token whole.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    if top_k > 0:
        ranked = np.where(np.arange(ranked.size) < top_k, ranked, 0.0)
    ranked = ranked / ranked.sum()
    if 0 < top_p < 1:
        ranked = np.where(np.cumsum(ranked) - ranked < top_p, ranked, 0.0)
    kept = np.zeros_like(probabilities)
    kept[order] = ranked / ranked.sum()
    return kept


def sample(logits: Array, u: float, temperature: float = 1.0, top_k: int = 0, top_p: float = 0.0) -> int:
    """One token id: temperature, cuts, then the first token, likeliest first, whose running sum reaches u in (0, 1]."""
    probabilities = cut(softmax_with_temperature(logits, temperature), top_k, top_p)
    order = np.argsort(-probabilities, kind="stable")
    sums = np.cumsum(probabilities[order])
    return int(order[np.searchsorted(sums, u * sums[-1], side="left")])


def broken(logits: Array, u: float) -> int:
    """A sampler with a fault that the eye misses: one tenth too hot."""
    return sample(logits, u, temperature=1.1)


# --- evidence --------------------------------------------------------------------------------------------------------


@cache
def uniforms(count: int, run: str = "lab02") -> Array:
    """``count`` first draws [count] of TensorRT-LLM's stream, each from a hashed seed of its own."""
    return np.array([Xorwow(independent_seed(run, index)).uniform() for index in range(count)])


def g_test(counts: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """How surprising the counts [V] are if the draws follow ``probabilities`` [V]: the p-value of the G-test.

    G = 2 sum observed ln(observed / expected), chi-squared with one degree of freedom less than there are possible
    tokens. A draw of an impossible token gives 0.
    """
    from scipy.special import chdtrc

    observed, share = np.asarray(counts, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if observed[share == 0].any():
        return 0.0
    possible = share > 0
    observed, expected = observed[possible], share[possible] * observed.sum()
    terms = observed * np.log(np.where(observed > 0, observed, 1) / expected)
    return float(chdtrc(max(observed.size - 1, 1), 2 * terms.sum()))


def cosine(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """The cosine of the angle between two vectors: 1 for the same direction."""
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def count_draws(draw: Draw, count: int) -> npt.NDArray[np.int64]:
    """How often each token of ``CONTEXT`` comes in ``count`` calls of ``draw(logits, u)``: counts [V].

    Raises:
        Wrong: a draw is no token id.
    """
    counts = np.zeros(CONTEXT.size, dtype=np.int64)
    for u in uniforms(count):
        counts[_token(draw(CONTEXT.copy(), float(u)), CONTEXT.size, f"u={u:.6f}")] += 1
    return counts


def _token(drawn: Any, size: int, given: str) -> int:
    try:
        token = int(drawn)
    except (TypeError, ValueError):
        raise Wrong(f"For {given}: you returned {show(drawn)}, expected one token id") from None
    expect(token == drawn, f"For {given}: you returned {show(drawn)}, and a token id is a whole number")
    expect(0 <= token < size, f"For {given}: token {token} is outside the vocabulary 0 to {size - 1}")
    return token


# --- the exercises ---------------------------------------------------------------------------------------------------

PREDICTED = (0.5 / 0.8, 0.5 / 0.6)


@exercise("02.1", reference=PREDICTED)
def predict_the_boundary(attempt: Any) -> None:
    """P(A) in ``hf`` and in ``trtllm-cpp`` for .5, .3, .15, .05 and top_p = .6, to two digits."""
    expect(isinstance(attempt, (tuple, list)) and len(attempt) == 2, "Give two numbers: (in hf, in trtllm-cpp).")
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    hf, cpp = (float(exact_distribution(name, logits, top_p=0.6)[0]) for name in ("hf", "trtllm-cpp"))
    first, second = (float(value) for value in attempt)
    expect(
        abs(first - hf) < 0.006,
        f"hf: {first:.3f} is not it. A holds 0.5, which is short of 0.6, so B crosses the line. hf keeps B whole: "
        "what is A's share of what is kept?",
    )
    expect(
        abs(second - cpp) < 0.006,
        f"trtllm-cpp: {second:.3f} is not it. The kernel draws u times 0.6 and walks down from A. "
        "Which part of that walk ends in A?",
    )


@exercise("02.2", reference=softmax_with_temperature)
def temperature_inside_the_exponential(attempt: Callable[[Array, float], Array]) -> None:
    """Sum, gaps, shift, large logits, small temperatures, and no change of the input."""
    z = np.array([2.0, 1.0, 0.0])
    for temperature in (2.0, 0.5):
        got = np.asarray(attempt(z.copy(), temperature), dtype=np.float64)
        expect(
            abs(got.sum() - 1) < 1e-6,
            f"For logits=[2, 1, 0], T={temperature:g}: your probabilities sum to {got.sum():.4f}, not to 1. Is every "
            "exponent in the denominator divided by T too?",
        )
        want = softmax_with_temperature(z, temperature)
        expect_close(got, want, given={"logits": z, "T": temperature}, atol=1e-6)
    for logits, temperature in (
        ([1000.0, 999.0], 1.0),
        ([-2000.0, -2001.0, -2000.0], 1.0),
        ([17.0, 15.0, -20.0], 0.01),
    ):
        row = np.array(logits)
        with np.errstate(all="ignore"):
            got = attempt(row.copy(), temperature)
        expect(
            np.isfinite(got).all(),
            f"For logits={logits}, T={temperature:g}: you got {show(np.asarray(got))}. exp overflows above 709; "
            "only gaps matter, so subtract the largest logit first.",
        )
        expect_close(
            got, softmax_with_temperature(row, temperature), given={"logits": row, "T": temperature}, atol=1e-6
        )
    attempt(z, 0.7)
    expect_close(z, [2.0, 1.0, 0.0], given="logits after the call (your function changed its input)")


@exercise("02.3", reference=cut)
def top_k_then_top_p(attempt: Callable[[Array, int, float], Array]) -> None:
    """Ties, the crossing token, the boundary itself, both cuts together, unset values, unsorted input."""
    cases: list[tuple[list[float], int, float, str]] = [
        ([0.4, 0.3, 0.2, 0.1], 2, 0.0, "Keep two, and let them share the whole."),
        ([0.25, 0.25, 0.25, 0.25], 2, 0.0, "Four equals and top_k=2: exactly two stay, the lower ids first."),
        ([0.4, 0.3, 0.2, 0.1], 0, 0.5, "0.4 is short of 0.5, so the token that crosses the line stays too."),
        ([0.5, 0.25, 0.125, 0.125], 0, 0.75, "The first two reach 0.75 exactly: no third one is needed."),
        ([0.1, 0.2, 0.3, 0.4], 0, 0.5, "Ids are not sorted by probability: sort, cut, and put each back in its place."),
        ([0.4, 0.3, 0.2, 0.1], 2, 0.55, "After top_k=2 the first holds 0.571 of what is left, and that reaches 0.55."),
        ([0.4, 0.3, 0.2, 0.1], 0, 0.0, "Nothing is set, so nothing is cut."),
        ([0.4, 0.3, 0.2, 0.1], 9, 1.0, "top_k beyond the vocabulary and top_p=1 cut nothing."),
        ([0.6, 0.3, 0.1], 0, 0.01, "The likeliest token always stays."),
    ]
    for row, top_k, top_p, reason in cases:
        got = np.asarray(attempt(np.array(row), top_k, top_p), dtype=np.float64)
        want = cut(np.array(row), top_k, top_p)
        same = got.shape == want.shape and np.allclose(got, want, atol=1e-9)
        expect(
            same,
            f"For probabilities={row}, top_k={top_k}, top_p={top_p}:\n  you got  {show(got)}\n  expected {show(want)}\n"
            f"{reason}",
        )


@exercise("02.4", reference=sample)
def draw_by_inverse_cdf(attempt: Draw) -> None:
    """Each interval of u, its ends, and the distribution of many draws."""
    z = np.log([0.2, 0.5, 0.3])
    for u, want in ((0.10, 1), (0.49, 1), (0.51, 2), (0.79, 2), (0.81, 0), (1.0, 0)):
        got = _token(attempt(z.copy(), u), 3, f"probabilities [0.2, 0.5, 0.3], u={u}")
        expect(
            got == want,
            f"For probabilities [0.2, 0.5, 0.3], u={u}: you drew token {got}, expected {want}. "
            "Walk likeliest first: token 1 owns (0, 0.5], token 2 owns (0.5, 0.8], token 0 owns (0.8, 1].",
        )
    got = _token(attempt(z.copy(), 1.0, 1.0, 2), 3, "top_k=2, u=1.0")
    expect(got == 2, f"For top_k=2, u=1.0: you drew token {got}, which top-k removed; the last kept token is 2.")
    for settings, draws in (({"temperature": 0.7}, DRAWS), ({"temperature": 1.5, "top_p": 0.9}, DRAWS // 5)):
        exact = cut(softmax_with_temperature(CONTEXT, settings["temperature"]), 0, settings.get("top_p", 0.0))
        counts = count_draws(partial(attempt, **settings), draws)
        p_value = g_test(counts, exact)
        expect(
            p_value > ALPHA,
            f"For {settings}: {draws:,} draws do not follow the exact distribution (G-test p = {p_value:.1e}, below "
            f"{ALPHA:g}).\n  tokens 3 to 7, drawn: {show(counts[3:8] / draws)}\n"
            f"  tokens 3 to 7, exact: {show(exact[3:8])}\n"
            "Is the temperature applied once, before the cuts, and as given?",
        )


@exercise("02.5", reference=broken)
def fool_the_weak_test(attempt: Callable[[Array, float], int]) -> None:
    """A fault that set membership and a cosine above 0.99 let pass, and that the G-test finds."""
    exact = cut(softmax_with_temperature(CONTEXT, 1.0))
    counts = count_draws(attempt, DRAWS)
    likeness, p_value = cosine(counts, exact), g_test(counts, exact)
    expect(
        likeness > 0.99,
        f"The weak test sees your fault: cosine {likeness:.4f}, and it asks for more than 0.99. Make a smaller one.",
    )
    expect(
        p_value < ALPHA,
        f"The G-test finds nothing wrong (p = {p_value:.3f}, cosine {likeness:.4f}): with {DRAWS:,} draws your "
        "sampler is as good as a right one. Make the fault a little larger.",
    )
