"""Typical mistakes of lab 01; each must fail its check."""

from __future__ import annotations

import numpy as np

from labsupport.labs.checks.lab01 import COUNTS, attend, encode


def log_of_the_softmax(z):
    grown = np.exp(z - z.max(-1, keepdims=True))
    with np.errstate(divide="ignore"):
        return np.log(grown / grown.sum(-1, keepdims=True))


def forgets_the_peak(z):
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return z - np.log(np.exp(z).sum(-1, keepdims=True))


def one_sum_for_all_rows(z):
    shifted = z - z.max()
    return shifted - np.log(np.exp(shifted).sum())


def probabilities_not_logs(z):
    grown = np.exp(z - z.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def base_ten(z):
    shifted = z - z.max(-1, keepdims=True)
    return shifted - np.log10(np.exp(shifted).sum(-1, keepdims=True))


def changes_its_input(z):
    z -= z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def always_adds(tokenizer, prompt):
    if isinstance(prompt, str):
        return tokenizer(prompt).input_ids
    return tokenizer(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)).input_ids


def never_adds(tokenizer, prompt):
    text = prompt if isinstance(prompt, str) else None
    if text is not None:
        return tokenizer(text, add_special_tokens=False).input_ids
    return encode(tokenizer, prompt)


def forgets_whose_turn_it_is(tokenizer, prompt):
    if isinstance(prompt, str):
        return encode(tokenizer, prompt)
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=False)["input_ids"]


def filters_each_bos(tokenizer, prompt):
    ids = always_adds(tokenizer, prompt)
    return [ids[0], *[id for id in ids[1:] if id != tokenizer.bos_token_id]]


def drops_the_first_id(tokenizer, prompt):
    ids = always_adds(tokenizer, prompt)
    return ids if isinstance(prompt, str) else ids[1:]


def softmax(scores):
    grown = np.exp(scores - scores.max(-1, keepdims=True))
    return grown / grown.sum(-1, keepdims=True)


def no_square_root(q, k, v):
    return attend(q * np.sqrt(q.shape[-1]), k, v)


def divides_by_the_size(q, k, v):
    return attend(q / np.sqrt(q.shape[-1]), k, v)


def deals_heads_round(q, k, v):
    order = np.arange(q.shape[0]) % k.shape[0]
    return attend(q, k[order], v[order])


def no_softmax(q, k, v):
    groups = q.shape[0] // k.shape[0]
    weights = np.einsum("ad,atd->at", q, np.repeat(k, groups, 0)) / np.sqrt(q.shape[-1])
    return np.einsum("at,atd->ad", weights, np.repeat(v, groups, 0))


def softmax_over_heads(q, k, v):
    groups = q.shape[0] // k.shape[0]
    scores = np.einsum("ad,atd->at", q, np.repeat(k, groups, 0)) / np.sqrt(q.shape[-1])
    return np.einsum("at,atd->ad", softmax(scores.T).T, np.repeat(v, groups, 0))


def overflows(q, k, v):
    groups = q.shape[0] // k.shape[0]
    with np.errstate(over="ignore", invalid="ignore"):
        grown = np.exp(np.einsum("ad,atd->at", q, np.repeat(k, groups, 0)) / np.sqrt(q.shape[-1]))
        return np.einsum("at,atd->ad", grown / grown.sum(-1, keepdims=True), np.repeat(v, groups, 0))


MISTAKES = {
    "01.1": [COUNTS | {"paris": 1}, COUNTS | {"123456": 1}, COUNTS | {"😊": 4}, COUNTS | {"😊": None}, 12],
    "01.2": [
        log_of_the_softmax,
        forgets_the_peak,
        one_sum_for_all_rows,
        probabilities_not_logs,
        base_ten,
        changes_its_input,
    ],
    "01.3": [always_adds, never_adds, forgets_whose_turn_it_is, filters_each_bos, drops_the_first_id],
    "01.4": [
        no_square_root,
        divides_by_the_size,
        deals_heads_round,
        no_softmax,
        softmax_over_heads,
        overflows,
        lambda q, k, v: v.mean(axis=1),
    ],
    "01.5": [{"A": "d", "B": "c", "C": "b"}, {"A": "b", "B": "a", "C": "d"}, {"A": "b"}, "b"],
}
