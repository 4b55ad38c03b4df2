"""Typical mistakes of lab 11; each must fail its check."""

from __future__ import annotations

import numpy as np


def divides_by_all_tokens(due, times):
    return times[0] - due, (times[-1] - times[0]) / len(times), times[-1] - due


def counts_from_the_first_token(due, times):
    return times[0] - due, (times[-1] - times[0]) / (len(times) - 1), times[-1] - times[0]


def forgets_when_it_was_due(due, times):
    return times[0], (times[-1] - times[0]) / (len(times) - 1), times[-1]


def takes_the_median_gap(due, times):
    return times[0] - due, float(np.median(np.diff(times))), times[-1] - due


def averages_percentiles(servers):
    return np.mean([np.percentile(one, 99) for one in servers])


def weighs_percentiles(servers):
    sizes = [len(one) for one in servers]
    return np.average([np.percentile(one, 99) for one in servers], weights=sizes)


def takes_the_worst_server(servers):
    return max(np.percentile(one, 99) for one in servers)


def keeps_either_limit(requests, ttft, itl, seconds):
    return sum(first <= ttft or gap <= itl for first, gap in requests) / seconds


def returns_a_share(requests, ttft, itl, seconds):
    return sum(first <= ttft and gap <= itl for first, gap in requests) / len(requests)


def throws_out_the_border(requests, ttft, itl, seconds):
    return sum(first < ttft and gap < itl for first, gap in requests) / seconds


def reads_the_weights_for_each_user(weight_bytes, kv_bytes, batch, context, bandwidth):
    return bandwidth / (weight_bytes + context * kv_bytes)


def forgets_the_cache(weight_bytes, kv_bytes, batch, context, bandwidth):
    return batch * bandwidth / weight_bytes


def shares_one_cache(weight_bytes, kv_bytes, batch, context, bandwidth):
    return batch * bandwidth / (weight_bytes + context * kv_bytes)


def counts_steps(weight_bytes, kv_bytes, batch, context, bandwidth):
    return bandwidth / (weight_bytes + batch * context * kv_bytes)


MISTAKES = {
    "11.1": [divides_by_all_tokens, counts_from_the_first_token, forgets_when_it_was_due, takes_the_median_gap],
    "11.2": [averages_percentiles, weighs_percentiles, takes_the_worst_server],
    "11.3": [keeps_either_limit, returns_a_share, throws_out_the_border],
    "11.4": [reads_the_weights_for_each_user, forgets_the_cache, shares_one_cache, counts_steps],
    "11.5": ["bcdeg", "bceg", "abcegi", "xyz", list("jcegi")],
}
