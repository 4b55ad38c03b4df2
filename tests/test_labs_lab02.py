"""The references and the statistical check of lab 02 are themselves right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labsupport.decoding import exact_distribution, inverse_cdf, steps
from labsupport.labs.checks import lab02


@given(
    logits=st.lists(st.integers(-40, 40), min_size=2, max_size=12),
    top_k=st.integers(0, 14),
    top_p=st.sampled_from([0.0, 0.1, 0.37, 0.8, 0.97, 1.0]),
    u=st.floats(1e-6, 1.0),
)
def test_cut_and_sample_agree_with_the_decoding_room(logits, top_k, top_p, u):
    z = np.array(logits) / 7
    wanted = z if top_k == 0 else steps.top_k(z, top_k, keep_ties=False)
    wanted = wanted if not 0 < top_p < 1 else steps.top_p(wanted, top_p)
    got = lab02.cut(lab02.softmax_with_temperature(z, 1.0), top_k, top_p)
    near = np.abs(np.cumsum(np.sort(got)[::-1]) - top_p).min() < 1e-9  # a boundary that rounding decides
    assert near or np.allclose(got, steps.softmax(wanted), atol=1e-12)
    assert lab02.sample(z, u, 1.0, top_k, top_p) == inverse_cdf(got, u)


def test_the_predicted_numbers_are_those_of_the_dialects():
    logits = np.log([0.5, 0.3, 0.15, 0.05])
    for number, name in zip(lab02.PREDICTED, ("hf", "trtllm-cpp"), strict=True):
        assert exact_distribution(name, logits, top_p=0.6)[0] == pytest.approx(number)


@pytest.mark.parametrize(("factor", "accused"), [(1.0, False), (1.05, True), (0.95, True)])
def test_the_g_test_accuses_a_temperature_that_is_five_percent_off(factor, accused):
    exact = lab02.softmax_with_temperature(lab02.CONTEXT, 0.7)
    counts = lab02.count_draws(lambda z, u: lab02.sample(z, u, 0.7 * factor), lab02.DRAWS)
    assert (lab02.g_test(counts, exact) < lab02.ALPHA) == accused


def test_the_check_has_the_power_and_the_error_rate_that_it_states():
    rng = np.random.default_rng(2)
    exact = lab02.softmax_with_temperature(lab02.CONTEXT, 0.7)
    hot = lab02.softmax_with_temperature(lab02.CONTEXT, 0.7 * 1.05)
    accused = {
        name: np.mean([lab02.g_test(row, exact) < lab02.ALPHA for row in rng.multinomial(lab02.DRAWS, p, size=2000)])
        for name, p in (("right", exact), ("hot", hot))
    }
    assert accused["right"] < 0.005
    assert accused["hot"] > 0.999


def test_an_impossible_token_is_rejected_outright():
    assert lab02.g_test([999, 0, 1], [0.5, 0.5, 0.0]) == 0.0


def test_a_draw_that_is_no_token_is_shown():
    for drawn in (1.5, None, 16, -1, "Paris"):
        with pytest.raises(lab02.Wrong):
            lab02.count_draws(lambda *_, drawn=drawn: drawn, 1)
