"""Typical mistakes of lab 06; each must fail its check."""

from __future__ import annotations

import torch

from labsupport.checkpoint.quantize.arithmetic import pack_int4, quantize


def swaps_the_nibbles(q):
    return (q[1::2] & 15) | (q[0::2] << 4)


def forgets_the_mask(q):
    return q[0::2] | (q[1::2] << 4)


def pairs_the_halves_of_the_matrix(q):
    half = len(q) // 2
    return (q[:half] & 15) | (q[half:] << 4)


def pairs_columns(q):
    return (q[:, 0::2] & 15) | (q[:, 1::2] << 4)


def stores_an_offset_of_8(q):
    return (q[0::2] + 8) | ((q[1::2] + 8) << 4)


def keeps_wide_integers(q):
    return pack_int4(q).int()


def _awq(weight, x, alphas, group, *, factor=None, divide=True, output=True, sharing="group"):
    errors = []
    for alpha in alphas:
        s = (factor or (lambda x: x.abs().mean(0)))(x).clamp(min=1e-5) ** alpha
        rounded = quantize(weight * s, 4, sharing, group).dequantize()
        error = (x / s if divide else x) @ rounded.T - x @ weight.T if output else rounded / s - weight
        errors.append(float(error.square().mean()))
    return errors


def forgets_to_divide_the_input(weight, x, alphas, group):
    return _awq(weight, x, alphas, group, divide=False)


def measures_the_weights(weight, x, alphas, group):
    return _awq(weight, x, alphas, group, output=False)


def takes_the_largest_input(weight, x, alphas, group):
    return _awq(weight, x, alphas, group, factor=lambda x: x.abs().amax(0))


def forgets_the_sign(weight, x, alphas, group):
    return _awq(weight, x, alphas, group, factor=lambda x: x.mean(0))


def shares_by_channel(weight, x, alphas, group):
    return _awq(weight, x, alphas, group, sharing="channel")


def returns_the_best_alpha_only(weight, x, alphas, group):
    return [min(_awq(weight, x, alphas, group))]


def smallest_gap(block):
    return float(block.unique().diff().min()), float(block.min())


def always_15_steps(block):
    return float(block.max() - block.min()) / 15, float(block.min())


def centers_on_zero(block):
    return float(block.abs().max()) / 7, 0.0


def swaps_step_and_offset(block):
    step = float(block.unique().diff().min())
    return float(block.min()), step


MISTAKES = {
    "06.1": ["a", "b", "d"],
    "06.2": [
        ([-0.8, 0.3, 0.5, -0.2], [0.7, 0.7, 0.6, -0.3]),
        ([0.7, 0.35], [0.7, 0.35]),
        ([0.7], [-0.8, 0.3]),
        ([0.7, 0.7], [0.0, 0.0]),
        ([0.7, float("nan")], [-0.8, 0.3]),
        ([0.7, 0.7, 0.6, -0.3],),
    ],
    "06.3": [
        swaps_the_nibbles,
        forgets_the_mask,
        pairs_the_halves_of_the_matrix,
        pairs_columns,
        stores_an_offset_of_8,
        keeps_wide_integers,
        lambda q: q,
        lambda q: torch.zeros(len(q) // 2, q.shape[1], dtype=torch.int8),
    ],
    "06.4": [
        forgets_to_divide_the_input,
        measures_the_weights,
        takes_the_largest_input,
        forgets_the_sign,
        shares_by_channel,
        returns_the_best_alpha_only,
    ],
    "06.5": [smallest_gap, always_15_steps, centers_on_zero, swaps_step_and_offset],
}
