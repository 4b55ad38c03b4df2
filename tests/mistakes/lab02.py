"""Typical mistakes of lab 02; each must fail its check."""

from __future__ import annotations

import numpy as np

from labsupport.labs.checks.lab02 import cut, sample, softmax_with_temperature


def missing_parenthesis(logits, temperature):
    return np.exp(logits / temperature) / np.sum(np.exp(logits) / temperature)


def overflows(logits, temperature):
    return np.exp(logits / temperature) / np.sum(np.exp(logits / temperature))


def multiplies(logits, temperature):
    grown = np.exp((logits - logits.max()) * temperature)
    return grown / grown.sum()


def powers_without_sharing_out(logits, temperature):
    grown = np.exp(logits - logits.max())
    return (grown / grown.sum()) ** (1 / temperature)


def changes_its_input(logits, temperature):
    logits -= logits.max()
    logits /= temperature
    return np.exp(logits) / np.exp(logits).sum()


def keeps_ties(probabilities, top_k, top_p):
    kept = probabilities.copy()
    if 0 < top_k < len(kept):
        kept[kept < np.sort(kept)[-top_k]] = 0
    return cut(kept, 0, top_p)


def drops_the_crossing_token(probabilities, top_k, top_p):
    ranked = cut(probabilities, top_k, 0)
    order = np.argsort(-ranked, kind="stable")
    if 0 < top_p < 1:
        inside = np.cumsum(ranked[order]) <= top_p
        inside[0] = True
        ranked[order[~inside]] = 0
    return ranked / ranked.sum()


def keeps_one_beyond_the_boundary(probabilities, top_k, top_p):
    ranked = cut(probabilities, top_k, 0)
    order = np.argsort(-ranked, kind="stable")
    if 0 < top_p < 1:
        before = np.cumsum(ranked[order]) - ranked[order]
        ranked[order[before > top_p]] = 0
    return ranked / ranked.sum()


def forgets_to_share_out(probabilities, top_k, top_p):
    kept = cut(probabilities, top_k, top_p)
    return np.where(kept > 0, probabilities, 0)


def nucleus_on_the_old_mass(probabilities, top_k, top_p):
    both = np.minimum(cut(probabilities, top_k, 0), cut(probabilities, 0, top_p))
    return both / both.sum()


def unset_top_p_keeps_nothing_but_the_first(probabilities, top_k, top_p):
    return cut(probabilities, top_k, top_p if top_p > 0 else 1e-9)


def five_percent_too_hot(logits, u, temperature=1.0, top_k=0, top_p=0.0):
    return sample(logits, u, temperature * 1.05, top_k, top_p)


def walks_by_id(logits, u, temperature=1.0, top_k=0, top_p=0.0):
    sums = np.cumsum(cut(softmax_with_temperature(logits, temperature), top_k, top_p))
    return int(np.searchsorted(sums, u * sums[-1]))


def always_greedy(logits, u, temperature=1.0, top_k=0, top_p=0.0):
    return int(np.argmax(logits))


def temperature_after_the_cut(logits, u, temperature=1.0, top_k=0, top_p=0.0):
    kept = cut(softmax_with_temperature(logits, 1.0), top_k, top_p) ** (1 / temperature)
    return sample(np.log(np.maximum(kept, 1e-300)), u)


def runs_off_the_end(logits, u, temperature=1.0, top_k=0, top_p=0.0):
    probabilities = cut(softmax_with_temperature(logits, temperature), top_k, top_p)
    order = np.argsort(-probabilities, kind="stable")
    return int(order[np.searchsorted(np.cumsum(probabilities[order]), u, side="right")])


MISTAKES = {
    "02.1": [(0.5 / 0.6, 0.5 / 0.6), (0.5 / 0.6, 0.5 / 0.8), (1.0, 0.5 / 0.6), 0.625],
    "02.2": [missing_parenthesis, overflows, multiplies, powers_without_sharing_out, changes_its_input],
    "02.3": [
        keeps_ties,
        drops_the_crossing_token,
        keeps_one_beyond_the_boundary,
        forgets_to_share_out,
        nucleus_on_the_old_mass,
        unset_top_p_keeps_nothing_but_the_first,
    ],
    "02.4": [five_percent_too_hot, walks_by_id, always_greedy, temperature_after_the_cut, runs_off_the_end],
    "02.5": [
        lambda logits, u: sample(logits, u),
        lambda logits, u: int(u * len(logits)) % len(logits),
        lambda logits, u: int(np.argmax(logits)),
        lambda logits, u: sample(logits, u, 1.005),
    ],
}
