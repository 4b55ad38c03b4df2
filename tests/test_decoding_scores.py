"""Sequence probabilities: right, comparable, and safe from underflow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labsupport.decoding import confidence, log_sum, perplexity, running_product, sequence_logprob, token_logprobs
from labsupport.errors import ParameterError


def test_token_logprobs_equal_the_cross_entropy_of_torch() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(30, 80)).astype(np.float32) * 4
    tokens = rng.integers(0, 80, size=30)
    losses = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(tokens), reduction="none")
    logprobs = token_logprobs(logits, tokens.tolist())
    np.testing.assert_allclose(logprobs, -losses.numpy(), rtol=1e-5, atol=1e-6)
    assert sequence_logprob(logits, tokens.tolist()) == pytest.approx(-float(losses.sum()), rel=1e-6)
    assert perplexity(logprobs) == pytest.approx(math.exp(float(losses.mean())), rel=1e-5)
    assert confidence(logprobs) * perplexity(logprobs) == pytest.approx(1)


def test_equal_choices_have_their_number_as_perplexity() -> None:
    assert perplexity([math.log(1 / 8)] * 5) == pytest.approx(8)
    assert confidence([math.log(0.25), math.log(1.0)]) == pytest.approx(0.5)


def test_a_product_underflows_where_a_sum_of_logarithms_does_not() -> None:
    probs = [0.1] * 400
    lengths = {
        dtype: int(np.argmin(running_product(probs, dtype))) + 1 for dtype in (np.float16, np.float32, np.float64)
    }
    # The smallest numbers are 2**-24, 2**-149 and 2**-1074; half of that rounds to 0.
    assert lengths == {np.float16: 8, np.float32: 46, np.float64: 324}
    logits = np.log(np.tile([0.1, 0.9], (400, 1)))
    assert sequence_logprob(logits, [0] * 400) == pytest.approx(400 * math.log(0.1))


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=20))
def test_log_sum_is_the_logarithm_of_the_sum(logprobs: list[float]) -> None:
    assert log_sum(logprobs) == pytest.approx(math.log(math.fsum(map(math.exp, logprobs))), abs=1e-9)
    assert log_sum([value - 5000 for value in logprobs]) == pytest.approx(log_sum(logprobs) - 5000, abs=1e-6)


def test_log_sum_of_impossible_events() -> None:
    assert log_sum([-np.inf, -np.inf]) == -np.inf
    assert log_sum([-np.inf, math.log(0.5)]) == pytest.approx(math.log(0.5))


def test_bad_input_is_explained() -> None:
    with pytest.raises(ParameterError, match="2 rows of logits for 3 tokens"):
        sequence_logprob(np.zeros((2, 4)), [1, 2, 3])
    with pytest.raises(ParameterError, match="outside the vocabulary of 4"):
        sequence_logprob(np.zeros((1, 4)), [4])
    with pytest.raises(ParameterError, match="no tokens to score"):
        perplexity([])
