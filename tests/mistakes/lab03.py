"""Typical mistakes of lab 03; each must fail its check."""

from __future__ import annotations

import numpy as np

from labsupport.decoding import steps
from labsupport.labs.checks.lab03 import beam, brute_force


def scores_the_row_of_the_token_itself(logits, ids, prompt_length):
    logprobs = steps.log_softmax(logits)
    return sum(logprobs[t, ids[t]] for t in range(prompt_length, len(ids)))


def scores_the_prompt_too(logits, ids, prompt_length):
    logprobs = steps.log_softmax(logits)
    return sum(logprobs[t - 1, ids[t]] for t in range(1, len(ids)))


def takes_logits_for_logprobs(logits, ids, prompt_length):
    return sum(logits[t - 1, ids[t]] for t in range(prompt_length, len(ids)))


def counts_in_log10(logits, ids, prompt_length):
    logprobs = steps.log_softmax(logits) / np.log(10)
    return sum(logprobs[t - 1, ids[t]] for t in range(prompt_length, len(ids)))


def log_of_softmax(logits, ids, prompt_length):
    logprobs = np.log(steps.softmax(logits))
    return sum(logprobs[t - 1, ids[t]] for t in range(prompt_length, len(ids)))


def log_of_the_product(logits, ids, prompt_length):
    probabilities = steps.softmax(logits)
    return np.log(np.prod([probabilities[t - 1, ids[t]] for t in range(prompt_length, len(ids))]))


def the_mean(logits, ids, prompt_length):
    logprobs = steps.log_softmax(logits)
    return np.mean([logprobs[t - 1, ids[t]] for t in range(prompt_length, len(ids))])


def search(next_logprobs, width, length, *, start=1, rank=None, per_beam=False):
    """A beam search with a place for each mistake."""
    beams = [((), 0.0)] * start
    for _ in range(length):
        rows = next_logprobs([list(tokens) for tokens, _ in beams])
        grown = [
            [((*tokens, v), total + float(row[v]), float(row[v])) for v in range(len(row))]
            for (tokens, total), row in zip(beams, rows, strict=True)
        ]
        key = rank or (lambda one: -one[1])
        if per_beam and len(beams) > 1:
            pool = [min(family, key=key) for family in grown]
        else:
            pool = sorted((one for family in grown for one in family), key=key)[:width]
        beams = [(tokens, total) for tokens, total, _ in pool]
    return sorted(beams, key=lambda one: -one[1])


def greedy_whatever_the_width(next_logprobs, width, length):
    return beam(next_logprobs, 1, length)


def starts_with_copies(next_logprobs, width, length):
    return search(next_logprobs, width, length, start=width)


def ranks_by_the_last_token(next_logprobs, width, length):
    return search(next_logprobs, width, length, rank=lambda one: -one[2])


def keeps_the_worst(next_logprobs, width, length):
    return search(next_logprobs, width, length, rank=lambda one: one[1])


def lanes_that_never_meet(next_logprobs, width, length):
    return search(next_logprobs, width, length, per_beam=True)


def tries_everything(next_logprobs, width, length):
    return search(next_logprobs, 4**length, length)[:width]


def brute(next_logprobs, width, length):
    return brute_force(next_logprobs, 4, length)[:width]


def multiplies_probabilities(next_logprobs, width, length):
    def rows(sequences):
        return np.exp(next_logprobs(sequences))

    beams = [((), 1.0)]
    for _ in range(length):
        grown = [
            ((*tokens, v), p * row[v])
            for (tokens, p), row in zip(beams, rows([list(tokens) for tokens, _ in beams]), strict=True)
            for v in range(len(row))
        ]
        beams = sorted(grown, key=lambda one: -one[1])[:width]
    with np.errstate(divide="ignore"):
        return [(tokens, float(np.log(p))) for tokens, p in beams]


EVEN = [1 / 3, 1 / 3, 1 / 3]

MISTAKES = {
    "03.1": [
        (-2.447, np.exp(-2.447)),
        (-2.447 / np.log(10), 10**-2.447),
        (-5.635, np.exp(-2.447)),
        (5.635, 0.00357),
        -5.635,
    ],
    "03.2": [
        scores_the_row_of_the_token_itself,
        scores_the_prompt_too,
        takes_logits_for_logprobs,
        counts_in_log10,
        log_of_softmax,
        log_of_the_product,
        the_mean,
    ],
    "03.3": [
        greedy_whatever_the_width,
        starts_with_copies,
        ranks_by_the_last_token,
        keeps_the_worst,
        lanes_that_never_meet,
        tries_everything,
        brute,
        multiplies_probabilities,
    ],
    "03.4": [
        ([0.5, 0.4, 0.1], [[0.4, 0.3, 0.3], [0.9, 0.1, 0.0], EVEN]),  # greedy loses, width 2 does not
        ([0.4, 0.3, 0.3], [EVEN, EVEN, [1.0, 0.0, 0.0]]),  # a tie decides
        ([0.36, 0.34, 0.30], [[0.5, 0.5, 0.5], EVEN, [1.0, 0.0, 0.0]]),  # no distribution
        ([0.6, 0.4], [[0.5, 0.5], [1.0, 0.0]]),
    ],
    "03.5": [
        ("long", "long", 0.485),
        ("short", "short", 0.485),
        ("short", "long", 1.4),
        ("short", "long", 2.06),
        ("short", "long"),
    ],
}
