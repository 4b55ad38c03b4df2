"""Typical mistakes of lab 10; each must fail its check."""

from __future__ import annotations

import math

import numpy as np

from labsupport.decoding import TorchStream, Xorwow, inverse_cdf


def asks_for_the_favorite(logits, ids, delta):
    return [place for place, id in enumerate(ids) if id != logits[place].argmax()]


def allows_one_delta(logits, ids, delta):
    return [place for place, id in enumerate(ids) if logits[place].max() - logits[place][id] > delta]


def looks_at_the_second(logits, ids, delta):
    lead = np.sort(logits, axis=-1)
    return [int(place) for place in np.flatnonzero(lead[:, -1] - lead[:, -2] > 2 * delta)]


def stops_at_the_first(logits, ids, delta):
    far = [place for place, id in enumerate(ids) if logits[place].max() - logits[place][id] > 2 * delta]
    return far[:1]


def not_randomized(probs, token, v):
    return float(probs[probs > probs[token]].sum() + probs[token])


def in_the_order_of_ids(probs, token, v):
    return float(probs[:token].sum() + v * probs[token])


def counts_equals_twice(probs, token, v):
    return float(probs[probs >= probs[token]].sum() - probs[token] + v * probs[token])


def takes_the_token_alone(probs, token, v):
    return float(v * probs[token])


def a_new_stream_each_token(probs, ids, seed):
    return sum(inverse_cdf(row, Xorwow(seed).uniform()) != id for row, id in zip(probs, ids, strict=True))


def the_seed_of_torch(probs, ids, seed):
    stream = TorchStream(seed)
    return sum(stream.draw(row) != id for row, id in zip(probs, ids, strict=True))


def not_sorted(probs, ids, seed):
    stream = Xorwow(seed)
    return sum(int(np.searchsorted(np.cumsum(row), stream.uniform())) != id for row, id in zip(probs, ids, strict=True))


def draws_only_on_a_miss(probs, ids, seed):
    stream, wrong = Xorwow(seed), 0
    for row, id in zip(probs, ids, strict=True):
        if row.argmax() != id:
            wrong += inverse_cdf(row, stream.uniform()) != id
    return wrong


MISTAKES = {
    "10.1": [asks_for_the_favorite, allows_one_delta, looks_at_the_second, stops_at_the_first],
    "10.2": [not_randomized, in_the_order_of_ids, counts_equals_twice, takes_the_token_alone],
    "10.3": [a_new_stream_each_token, the_seed_of_torch, not_sorted, draws_only_on_a_miss],
    "10.4": [
        lambda share, miss: math.ceil(1 / share),
        lambda share, miss: math.floor(math.log(miss) / math.log1p(-share)),
        lambda share, miss: math.ceil(math.log(miss) / math.log(share)),
    ],
    "10.5": [
        {"A": "L4", "B": "healthy", "C": "L1", "D": "healthy", "E": "L6"},
        {"A": "L2", "B": "healthy", "C": "L1", "D": "L2", "E": "L6"},
        {"A": "L4", "B": "L4", "C": "L1", "D": "L2", "E": "L6"},
        {"A": "L4", "B": "healthy", "C": "L1", "D": "L2"},
        {"A": "sampler", "B": "healthy", "C": "L1", "D": "L2", "E": "L6"},
        "L4",
    ],
}
