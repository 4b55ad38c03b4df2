"""The references of lab 03 are themselves right: beam search against every sequence there is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from labsupport.decoding import beam_search, steps
from labsupport.labs.checks import lab03


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_that_prunes_nothing_finds_what_brute_force_finds(seed):
    found = lab03.beam(lab03.TinyModel(seed), 64, 3)
    everything = lab03.brute_force(lab03.TinyModel(seed), 4, 3)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in everything]
    assert [total for _, total in found] == pytest.approx([total for _, total in everything])


def test_brute_force_is_a_distribution():
    assert sum(math.exp(total) for _, total in lab03.brute_force(lab03.TinyModel(3), 4, 3)) == pytest.approx(1)


def test_the_checked_models_tell_a_beam_from_greedy_and_from_brute_force():
    for seed, width, length in ((4, 1, 3), (38, 2, 3), (20, 3, 4)):
        beam = lab03.beam(lab03.TinyModel(seed), width, length)[0]
        assert beam[1] < lab03.brute_force(lab03.TinyModel(seed), 4, length)[0][1] - 1e-3


def test_the_lab_s_toy_on_which_a_beam_of_two_loses_to_greedy():
    rng = np.random.default_rng(2388)
    tables = [steps.log_softmax(rng.normal(size=[4] * (t + 1))) for t in range(4)]

    def model(sequences):
        return np.stack([tables[len(one)][tuple(one)] for one in sequences])

    greedy, two = (beam_search(model, [], width=width, max_new_tokens=4).best.logprob for width in (1, 2))
    assert two < greedy - 0.1


def test_sequence_logprob_is_the_product_of_the_right_rows():
    logits = np.log([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]])
    assert lab03.sequence_logprob(logits, [0, 1, 0], 1) == pytest.approx(math.log(0.3 * 0.4))
    assert lab03.sequence_logprob(logits, [0, 1, 0], 2) == pytest.approx(math.log(0.4))


def test_the_units_and_the_tie_are_what_they_claim():
    ln_p, p = lab03.UNITS
    assert math.exp(ln_p) == pytest.approx(p) == pytest.approx(0.00357, abs=1e-5)
    short, long = 3.0 / 4**lab03.TIE, 4.2 / 8**lab03.TIE
    assert short == pytest.approx(long)
