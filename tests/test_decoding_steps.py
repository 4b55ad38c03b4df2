"""Each step equals the logits processor of transformers on 1,000 random cases, or a plain statement of its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers.generation import logits_process as hf

from labsupport.decoding import steps
from labsupport.errors import ParameterError

CASES = 1000
VOCABULARY = 50

Case = tuple[Callable[[np.ndarray, list[int]], np.ndarray], Any]


def temperature(rng: np.random.Generator) -> Case:
    t = float(rng.uniform(0.05, 3))
    return lambda z, _: steps.temperature(z, t), hf.TemperatureLogitsWarper(t)


def top_k(rng: np.random.Generator) -> Case:
    k = int(rng.integers(1, VOCABULARY + 10))
    return lambda z, _: steps.top_k(z, k), hf.TopKLogitsWarper(k)


def top_p(rng: np.random.Generator) -> Case:
    p = float(rng.uniform(0, 1))
    return lambda z, _: steps.top_p(z, p), hf.TopPLogitsWarper(p)


def min_p(rng: np.random.Generator) -> Case:
    p = float(rng.uniform(0, 1))
    return lambda z, _: steps.min_p(z, p), hf.MinPLogitsWarper(p)


def repetition_penalty(rng: np.random.Generator) -> Case:
    penalty = float(rng.uniform(0.3, 3))
    processor = hf.RepetitionPenaltyLogitsProcessor(penalty)
    return lambda z, tokens: steps.repetition_penalty(z, penalty, tokens), processor


def no_repeat_ngram(rng: np.random.Generator) -> Case:
    n = int(rng.integers(1, 5))
    return lambda z, tokens: steps.no_repeat_ngram(z, n, tokens), hf.NoRepeatNGramLogitsProcessor(n)


def bad_words(rng: np.random.Generator) -> Case:
    words = [rng.integers(0, 4, size=rng.integers(1, 4)).tolist() for _ in range(6)]
    return lambda z, tokens: steps.bad_words(z, words, tokens), hf.NoBadWordsLogitsProcessor(words)


def logit_bias(rng: np.random.Generator) -> Case:
    chosen = rng.choice(VOCABULARY, size=5, replace=False)
    bias = {int(i): float(np.float32(rng.normal())) for i in chosen}
    processor = hf.SequenceBiasLogitsProcessor({(i,): value for i, value in bias.items()})
    return lambda z, _: steps.logit_bias(z, bias), processor


def min_length(rng: np.random.Generator) -> Case:
    minimum, ends = int(rng.integers(0, 25)), rng.integers(0, VOCABULARY, size=2).tolist()
    processor = hf.MinLengthLogitsProcessor(minimum, ends)
    return lambda z, tokens: steps.min_length(z, minimum, len(tokens), ends), processor


def min_new_tokens(rng: np.random.Generator) -> Case:
    minimum, prompt, ends = int(rng.integers(0, 12)), int(rng.integers(0, 12)), [3]
    processor = hf.MinNewTokensLengthLogitsProcessor(prompt, minimum, ends)
    return lambda z, tokens: steps.min_length(z, minimum, len(tokens) - prompt, ends), processor


@pytest.mark.parametrize(
    "make",
    [
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        no_repeat_ngram,
        bad_words,
        logit_bias,
        min_length,
        min_new_tokens,
    ],
)
def test_a_step_equals_the_processor_of_transformers(make: Callable[[np.random.Generator], Case]) -> None:
    rng = np.random.default_rng(0)
    changed = 0
    for _ in range(CASES):
        ours, theirs = make(rng)
        logits = (rng.normal(size=VOCABULARY) * rng.uniform(0.5, 6)).astype(np.float32)
        tokens = rng.integers(0, 4 if rng.random() < 0.5 else VOCABULARY, size=rng.integers(1, 24)).tolist()
        result = ours(logits, tokens)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, theirs(torch.tensor([tokens]), torch.from_numpy(logits)[None])[0].numpy())
        changed += not np.array_equal(result, logits)
    assert changed > CASES / 20, "the cases hardly ever make the step do anything"


def test_top_k_keeps_ties_as_transformers_does() -> None:
    rng = np.random.default_rng(1)
    for _ in range(CASES):
        logits = rng.integers(0, 5, size=VOCABULARY).astype(np.float32)
        k = int(rng.integers(1, VOCABULARY))
        theirs = hf.TopKLogitsWarper(k)(torch.tensor([[0]]), torch.from_numpy(logits)[None])[0].numpy()
        np.testing.assert_array_equal(steps.top_k(logits, k), theirs)
        exactly = np.isfinite(steps.top_k(logits, k, keep_ties=False))
        assert exactly.sum() == k
        assert logits[exactly].min() >= logits[~exactly].max()


def test_presence_and_frequency_penalties_follow_their_rule() -> None:
    """transformers has neither, so the rule is stated once more, token by token."""
    rng = np.random.default_rng(2)
    for _ in range(CASES):
        logits = rng.normal(size=VOCABULARY)
        tokens = rng.integers(0, 8, size=12).tolist()
        penalty = float(rng.normal())
        presence, frequency = logits.copy(), logits.copy()
        for token in set(tokens):
            presence[token] -= penalty
        for token in tokens:
            frequency[token] -= penalty
        np.testing.assert_allclose(steps.presence_penalty(logits, penalty, tokens), presence, rtol=0, atol=1e-12)
        np.testing.assert_allclose(steps.frequency_penalty(logits, penalty, tokens), frequency, rtol=0, atol=1e-12)


def test_the_nucleus_and_its_cut_on_four_tokens() -> None:
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    np.testing.assert_allclose(steps.softmax(steps.top_p(logits, 0.5)), [4 / 7, 3 / 7, 0, 0])
    np.testing.assert_allclose(steps.softmax(steps.top_p_cut(logits, 0.5)), [0.8, 0.2, 0, 0], atol=1e-12)


def test_softmax_equals_torch() -> None:
    logits = np.random.default_rng(3).normal(size=(CASES, VOCABULARY)).astype(np.float32) * 8
    tensor = torch.from_numpy(logits)
    np.testing.assert_allclose(steps.softmax(logits), tensor.softmax(-1).numpy(), rtol=2e-6)
    np.testing.assert_allclose(steps.log_softmax(logits), tensor.log_softmax(-1).numpy(), rtol=2e-6, atol=1e-6)


def test_steps_work_on_every_row_of_a_batch() -> None:
    logits = np.random.default_rng(4).normal(size=(2, 3, VOCABULARY))
    for step in (
        lambda z: steps.top_k(z, 5),
        lambda z: steps.top_k(z, 5, keep_ties=False),
        lambda z: steps.top_p(z, 0.7),
        lambda z: steps.top_p_cut(z, 0.7),
        lambda z: steps.min_p(z, 0.2),
        lambda z: steps.repetition_penalty(z, 1.3, [1, 2]),
        lambda z: steps.logit_bias(z, {4: 1.0}),
        lambda z: steps.bad_words(z, [[4]], []),
        steps.log_softmax,
    ):
        rows = np.array([[step(row) for row in block] for block in logits])
        np.testing.assert_array_equal(step(logits), rows)


def test_steps_leave_their_input_alone() -> None:
    logits = np.arange(6.0)
    before = logits.copy()
    for result in (
        steps.top_k(logits, 9),
        steps.no_repeat_ngram(logits, 3, []),
        steps.logit_bias(logits, {0: 9.0}),
        steps.min_length(logits, 0, 5, [1]),
    ):
        result[...] = -1
    np.testing.assert_array_equal(logits, before)


def test_ids_outside_the_vocabulary_are_ignored() -> None:
    logits = np.arange(4.0)
    np.testing.assert_array_equal(steps.repetition_penalty(logits, 2.0, [99, -1]), logits)
    np.testing.assert_array_equal(steps.bad_words(logits, [[99]], []), logits)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: steps.temperature(z, 0), "temperature 0 is not positive"),
        (lambda z: steps.temperature(z, float("nan")), "temperature nan is not positive"),
        (lambda z: steps.top_k(z, 0), "top_k 0 is below 1"),
        (lambda z: steps.top_p(z, 1.5), "top_p 1.5 is outside 0 to 1"),
        (lambda z: steps.top_p_cut(z, -0.1), "top_p -0.1 is outside 0 to 1"),
        (lambda z: steps.min_p(z, 2), "min_p 2 is outside 0 to 1"),
        (lambda z: steps.repetition_penalty(z, 0, []), "repetition_penalty 0 is not positive"),
        (lambda z: steps.no_repeat_ngram(z, 0, []), "no_repeat_ngram 0 is below 1"),
        (lambda z: steps.bad_words(z, [[]], []), "a bad word is empty"),
        (lambda z: steps.logit_bias(z, {7: 1.0}), r"logit_bias names the ids \[7\]"),
        (lambda z: steps.min_length(z, -1, 0, [0]), "min_length -1 is negative"),
        (lambda z: steps.softmax(z - np.inf), "no token is left"),
    ],
)
def test_a_value_out_of_range_is_explained(call: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        call(np.zeros(4))


Logits = hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-30, 30))


@given(Logits, st.floats(0.05, 5))
def test_probabilities_sum_to_one(logits: np.ndarray, t: float) -> None:
    probs = steps.softmax(steps.temperature(logits, t))
    assert probs.min() >= 0
    assert abs(probs.sum() - 1) < 1e-12
    assert abs(np.exp(steps.log_softmax(logits)).sum() - 1) < 1e-12


@given(Logits, st.integers(1, 40), st.integers(1, 40))
def test_a_smaller_k_keeps_a_subset(logits: np.ndarray, a: int, b: int) -> None:
    for keep_ties in (True, False):
        small, large = (np.isfinite(steps.top_k(logits, k, keep_ties=keep_ties)) for k in sorted((a, b)))
        assert small.any()
        assert not (small & ~large).any()


@given(Logits, st.floats(0, 1), st.floats(0, 1))
@example(np.array([0.0, 1e-300]), 0.0, 0.5)  # the probabilities are equal, the logits are not
def test_a_smaller_p_keeps_a_subset(logits: np.ndarray, a: float, b: float) -> None:
    for step in (steps.top_p, steps.top_p_cut):
        small, large = (steps.softmax(step(logits, p)) > 0 for p in sorted((a, b)))
        assert small.any()
        assert not (small & ~large).any()


@given(Logits, st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(logits: np.ndarray, p: float) -> None:
    probs = steps.softmax(logits)
    kept = np.sort(probs[np.isfinite(steps.top_p(logits, p))])
    assert kept.sum() >= p - 1e-9
    assert kept[1:].sum() <= p + 1e-9  # without its least likely member it would not reach p


@given(Logits, st.floats(0.01, 1))
def test_the_cut_gives_every_token_its_mass_up_to_p(logits: np.ndarray, p: float) -> None:
    probs, cut = steps.softmax(logits), steps.softmax(steps.top_p_cut(logits, p)) * p
    assert abs(cut.sum() - p) < 1e-9
    assert (cut <= probs + 1e-9).all()
    assert ((cut > 1e-9) & (cut < probs - 1e-9)).sum() <= 1  # only the crossing token loses a part


@given(Logits, st.floats(0.2, 5))
def test_temperature_keeps_the_order(logits: np.ndarray, t: float) -> None:
    np.testing.assert_array_equal(
        np.argsort(logits, kind="stable"), np.argsort(steps.temperature(logits, t), kind="stable")
    )
