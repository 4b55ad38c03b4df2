"""Dialects: the same request, three systems; and draws that follow the exact distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import optimize, stats

from labsupport.decoding import (
    DIALECTS,
    Context,
    Sampler,
    Step,
    TorchStream,
    Xorwow,
    dialect,
    exact_distribution,
    independent_seed,
    softmax,
    steps,
    stream_for,
)
from labsupport.errors import ParameterError

FOUR = np.log([0.4, 0.3, 0.2, 0.1])
ALPHA = 1e-3


def g_test(counts: np.ndarray, probs: np.ndarray) -> float:
    """p-value of the G-test; tokens with fewer than 5 expected draws share one bin."""
    if counts[probs == 0].any():
        return 0.0
    expected = counts.sum() * probs
    rare = expected < 5
    observed_bins, expected_bins = counts[~rare], expected[~rare]
    if expected[rare].sum() > 0:
        observed_bins, expected_bins = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected))
    expected_bins *= observed_bins.sum() / expected_bins.sum()  # scipy wants equal sums to the last bit
    return float(stats.power_divergence(observed_bins, expected_bins, lambda_="log-likelihood").pvalue)


def draws(sampler: Sampler, logits: np.ndarray, seed: int, n: int) -> np.ndarray:
    """How often each token comes out of n draws from one stream."""
    stream, probs = stream_for(sampler.name, seed), sampler.probs(logits)
    return np.bincount([stream.draw(probs) for _ in range(n)], minlength=len(logits))


def draws_to_tell(truth: np.ndarray, claim: np.ndarray) -> int:
    """The draws from ``truth`` at which the G-test rejects ``claim`` with a chance of 99.99 %."""
    both = truth > 0
    divergence = stats.entropy(truth[both], claim[both])
    freedom = int(both.sum()) - 1
    threshold = stats.chi2.isf(ALPHA, freedom)
    noncentrality = optimize.brentq(lambda x: stats.ncx2.sf(threshold, freedom, x) - 0.9999, 1, 1000)
    return 20_000 if np.isinf(divergence) else math.ceil(noncentrality / (2 * divergence))


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"top_p": 1.0, "top_k": 40},
    "warm": {"temperature": 1.3, "top_k": 30},
    "nucleus": {"temperature": 0.8, "top_p": 0.7},
    "both": {"temperature": 1.1, "top_k": 12, "top_p": 0.8},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name", DIALECTS)
def test_draws_follow_the_exact_distribution_and_a_warmer_one_is_caught(name: str, settings: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).normal(size=40) * 2
    right = dialect(name, **settings)
    warmer = dialect(name, **{**settings, "temperature": settings.get("temperature", 1.0) * 1.05})
    n = draws_to_tell(warmer.probs(logits), right.probs(logits))
    assert g_test(draws(right, logits, 1, n), right.probs(logits)) > ALPHA
    assert g_test(draws(warmer, logits, 1, n), right.probs(logits)) < ALPHA


def test_first_draws_of_hashed_seeds_follow_the_distribution_too() -> None:
    """One draw per request, as a server sees it; the numbers tell the C++ nucleus from that of transformers."""
    counts = np.zeros(4, dtype=int)
    sampler = dialect("trtllm-cpp", top_p=0.5)
    for i in range(5000):
        counts[sampler.sample(FOUR, Xorwow(independent_seed("four", i)))] += 1
    assert g_test(counts, exact_distribution("trtllm-cpp", FOUR, top_p=0.5)) > ALPHA
    assert g_test(counts, exact_distribution("hf", FOUR, top_p=0.5)) < 1e-50


def test_the_nucleus_differs_between_systems() -> None:
    expected = {"hf": [4 / 7, 3 / 7, 0, 0], "trtllm-torch": [4 / 7, 3 / 7, 0, 0], "trtllm-cpp": [0.8, 0.2, 0, 0]}
    for name, probs in expected.items():
        np.testing.assert_allclose(exact_distribution(name, FOUR, top_p=0.5), probs, atol=1e-12)


def test_a_request_that_sets_nothing() -> None:
    assert str(dialect("hf")) == "hf: logits -> top_k=50 -> draw"
    assert str(dialect("hf", do_sample=False)) == "hf: logits -> greedy -> draw"
    assert str(dialect("trtllm-cpp")) == "trtllm-cpp: logits -> greedy -> draw"
    assert str(dialect("trtllm-torch")) == "trtllm-torch: logits -> greedy -> draw"


def test_temperature_alone_stays_greedy_only_in_the_engine() -> None:
    assert str(dialect("trtllm-cpp", temperature=0.7)) == "trtllm-cpp: logits -> temperature=0.7 -> greedy -> draw"
    assert str(dialect("trtllm-torch", temperature=0.7)) == "trtllm-torch: logits -> temperature=0.7 -> draw"


def test_the_order_of_the_steps() -> None:
    everything: dict[str, Any] = {
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "no_repeat_ngram": 2,
        "bad_words": [[1]],
        "logit_bias": {0: 1.0},
        "min_length": 2,
        "end_ids": [3],
    }
    assert [step.name for step in dialect("hf", **everything).steps] == [
        *("logit_bias", "repetition_penalty", "no_repeat_ngram", "bad_words", "min_length"),
        *("temperature", "top_k", "top_p", "min_p"),
    ]
    cpp = dialect("trtllm-cpp", **everything, presence_penalty=0.5, frequency_penalty=0.5)
    assert [step.name for step in cpp.steps] == [
        *("logit_bias", "temperature", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_length"),
        *("no_repeat_ngram", "bad_words", "min_p", "top_k", "top_p"),
    ]


def test_temperature_zero() -> None:
    np.testing.assert_array_equal(exact_distribution("trtllm-torch", FOUR, temperature=0, top_k=3), [1, 0, 0, 0])
    np.testing.assert_array_equal(exact_distribution("trtllm-cpp", FOUR, temperature=0, top_k=3), [1, 0, 0, 0])
    with pytest.raises(ParameterError, match="temperature 0 is refused by hf"):
        dialect("hf", temperature=0)


def test_the_engine_divides_by_a_little_more_than_the_temperature() -> None:
    probs = exact_distribution("trtllm-cpp", FOUR, temperature=0.01, top_k=4)
    np.testing.assert_allclose(probs, softmax(FOUR / 0.010001), rtol=1e-12)
    assert not np.allclose(probs, softmax(FOUR / 0.01), rtol=1e-5, atol=0)
    np.testing.assert_array_equal(exact_distribution("trtllm-cpp", FOUR, temperature=1, top_k=4), softmax(FOUR))


def test_ties_at_the_edge_of_top_k() -> None:
    tied = np.log([0.4, 0.2, 0.2, 0.2])
    assert (exact_distribution("hf", tied, top_k=2) > 0).sum() == 4
    assert (exact_distribution("trtllm-torch", tied, top_k=2) > 0).sum() == 4
    assert (exact_distribution("trtllm-cpp", tied, top_k=2) > 0).sum() == 2


def test_top_p_zero() -> None:
    np.testing.assert_array_equal(exact_distribution("hf", FOUR, top_p=0.0), [1, 0, 0, 0])
    np.testing.assert_array_equal(exact_distribution("trtllm-cpp", FOUR, top_p=0.0), [1, 0, 0, 0])
    np.testing.assert_allclose(exact_distribution("trtllm-cpp", FOUR, top_p=0.0, top_k=2), [4 / 7, 3 / 7, 0, 0])
    with pytest.raises(ParameterError, match="top_p 0 is refused by trtllm-torch"):
        dialect("trtllm-torch", top_p=0.0)


def test_the_engine_takes_no_more_than_1024_candidates() -> None:
    assert (exact_distribution("trtllm-cpp", np.zeros(2000), top_k=1500) > 0).sum() == 1024
    assert (exact_distribution("hf", np.arange(2000) / 1e3, top_k=1500) > 0).sum() == 1500


def test_penalties_see_the_prompt_and_come_before_or_after_the_temperature() -> None:
    context = Context(prompt=(0, 0), output=(1,))
    probs = exact_distribution("trtllm-cpp", FOUR, context, temperature=0.5, top_k=4, frequency_penalty=0.3)
    np.testing.assert_allclose(probs, softmax(FOUR / 0.500001 - 0.3 * np.array([2, 1, 0, 0])))
    logits = np.array([1.0, -1.0, 2.0, 0.0])
    penalized = exact_distribution("hf", logits, context, repetition_penalty=2.0, temperature=0.5)
    np.testing.assert_allclose(penalized, softmax(np.array([0.5, -2.0, 2.0, 0.0]) / 0.5))


def test_what_the_minimum_length_counts() -> None:
    context = Context(prompt=(1, 2, 3), output=(1,))
    request: dict[str, Any] = {"min_length": 3, "end_ids": [0], "top_k": 4}
    assert exact_distribution("hf", FOUR, context, **request)[0] > 0  # prompt and output are 4 tokens
    assert exact_distribution("trtllm-cpp", FOUR, context, **request)[0] == 0  # the output is 1 token
    assert exact_distribution("trtllm-torch", FOUR, context, **request)[0] == 0
    assert exact_distribution("hf", FOUR, context, min_new_tokens=3, end_ids=[0])[0] == 0
    overruled = dialect("hf", min_new_tokens=3, min_length=9, end_ids=[0])
    assert [step.name for step in overruled.steps] == ["min_new_tokens", "top_k"]


def test_transformers_never_bans_an_end_token_as_a_bad_word() -> None:
    request: dict[str, Any] = {"bad_words": [[0], [1]], "end_ids": [0], "top_k": 4}
    np.testing.assert_array_equal(exact_distribution("hf", FOUR, **request) > 0, [True, False, True, True])
    np.testing.assert_array_equal(exact_distribution("trtllm-cpp", FOUR, **request) > 0, [False, False, True, True])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vllm", {}, "no dialect 'vllm'"),
        ("hf", {"topp": 0.5}, "unknown setting 'topp'"),
        ("hf", {"temperature": -1}, "temperature -1 is out of range"),
        ("hf", {"temperature": float("nan")}, "temperature nan is out of range"),
        ("hf", {"top_k": -1}, "top_k -1 is out of range"),
        ("hf", {"top_k": 2.5}, "top_k 2.5 is not a whole number"),
        ("hf", {"top_p": 1.2}, "top_p 1.2 is out of range"),
        ("hf", {"min_p": -0.1}, "min_p -0.1 is out of range"),
        ("hf", {"repetition_penalty": 0}, "repetition_penalty 0 is out of range"),
        ("hf", {"no_repeat_ngram": 0}, "no_repeat_ngram 0 is out of range"),
        ("hf", {"min_length": 3}, "min_length without end_ids"),
        ("hf", {"presence_penalty": 0.5}, "hf has no presence_penalty"),
        ("hf", {"frequency_penalty": 0.5}, "hf has no frequency_penalty"),
        ("trtllm-cpp", {"do_sample": True}, "trtllm-cpp has no do_sample"),
        ("trtllm-torch", {"min_p": 0.1}, "trtllm-torch has no min_p"),
        ("trtllm-torch", {"repetition_penalty": 1.1}, "trtllm-torch has no repetition_penalty"),
    ],
)
def test_a_setting_that_cannot_work_is_explained(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as error:
        dialect(name, **settings)
    assert error.value.why
    assert error.value.fix


def test_the_streams_of_the_systems() -> None:
    assert stream_for("trtllm-cpp").uniform() == Xorwow(0).uniform()
    assert stream_for("trtllm-cpp", 42).uniform() == Xorwow(42).uniform()
    assert stream_for("hf", 42).uniform() == TorchStream(42).uniform()
    with pytest.raises(ParameterError, match="no dialect 'numpy'"):
        stream_for("numpy")


def test_a_trace_shows_every_step_and_ends_at_the_distribution() -> None:
    sampler = dialect("trtllm-cpp", temperature=0.7, top_k=3, top_p=0.8)
    trace = sampler.trace(FOUR)
    assert [snapshot.name for snapshot in trace] == ["logits", "temperature=0.7", "top_k=3", "top_p=0.8"]
    np.testing.assert_array_equal(trace[0].logits, FOUR)
    np.testing.assert_array_equal(trace[-1].probs, sampler.probs(FOUR))
    for snapshot in trace:
        np.testing.assert_allclose(snapshot.probs.sum(), 1)


def test_a_sampler_can_be_put_together_by_hand() -> None:
    halve = Step("halve", "1/2", lambda logits, _: logits / 2)
    last = Step(
        "forbid the last token", None, lambda logits, context: steps.bad_words(logits, [context.output[-1:]], ())
    )
    sampler = Sampler("mine", (halve, last))
    assert str(sampler) == "mine: logits -> halve=1/2 -> forbid the last token -> draw"
    np.testing.assert_allclose(sampler.probs(np.zeros(3), Context(output=(2,))), [0.5, 0.5, 0])


@given(
    hnp.arrays(np.float32, st.integers(2, 30), elements=st.floats(-20, 20, width=32)),
    st.sampled_from(sorted(DIALECTS)),
    st.floats(0.1, 3),
    st.integers(1, 30),
    st.floats(0.01, 1),
    st.integers(0, 2**64 - 1),
)
def test_what_every_dialect_promises(
    logits: np.ndarray, name: str, temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    sampler = dialect(name, temperature=temperature, top_k=top_k, top_p=top_p)
    probs = sampler.probs(logits)
    assert abs(probs.sum() - 1) < 1e-5
    assert probs[np.argmax(logits)] > 0
    stream = stream_for(name, seed)
    assert probs[sampler.sample(logits, stream)] > 0
    assert sampler.sample(logits, stream_for(name, seed)) == sampler.sample(logits, stream_for(name, seed))
