"""Rounding whose errors cancel: W8A16 weights that the kernel's own rule leaves alone, chosen column by column.

Round to nearest treats each weight alone, yet a layer's output is a sum, so one weight's error can make up for
another's. With ``H = sum_t c_t x_t x_t^T`` over the inputs x of sample tokens, ``(w' - w) H (w' - w)^T`` is the squared
error of a row's output. The columns are rounded one after the other, and what each one loses is spread over those still
to come, in the way that keeps this error smallest. Columns with the largest inputs go first: their errors are the
dearest, and all others are left to make up for them.

The result is handed over as plain floats. As the largest weight of a row stays where it is, trtllm-build finds the same
scale, rounds to the same whole numbers and multiplies with the same kernel as for any W8A16 checkpoint.

Source: Frantar et al. 2022, *GPTQ*, arXiv 2210.17323; its factor, its blocks and its order of columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labsupport.checkpoint.quantize.arithmetic import round_half_away

REACH = 2  # steps that a weight may move from where it was, so that a checkpoint can still be held against its model
DAMPING = 0.1  # of the mean diagonal of H, added to it: few tokens say little about directions they do not have
BLOCK = 64  # columns whose losses are collected before the columns beyond them are changed


def compensated(weight: Tensor, gram: Tensor, bits: int = 8, ranks: int = 1) -> Tensor:
    """Weights on the grid of W8A16 (or W4A16), each within ``REACH`` steps of the original.

    Args:
        weight: [out, in], in the values that the checkpoint's dtype can hold.
        gram: ``H``, [in, in].
        bits: of a whole number.
        ranks: how many ranks share the inputs; trtllm-build gives each its own scale.

    Returns:
        float32 [out, in]: whole multiples of ``max|w| / 2^(bits-1)``. ``weight_only`` restores them exactly, but for
        a largest weight that is positive: it has no whole number (128), and comes back a step smaller. Its loss is
        made up for like any other.
    """
    half = 2 ** (bits - 1)
    order = gram.diagonal().argsort(descending=True)
    each = weight.shape[1] // ranks
    scale = weight.float().reshape(len(weight), ranks, each).abs().amax(2) / half
    scale = torch.where(scale == 0, 1.0, scale).repeat_interleave(each, 1)[:, order]
    left = weight.float()[:, order] / scale  # in steps; changes as losses are passed on
    low, high = _allowed(left, half)
    factor = _factor(gram[order][:, order])
    chosen = torch.empty_like(left)
    for first in range(0, left.shape[1], BLOCK):
        block = slice(first, min(first + BLOCK, left.shape[1]))
        losses = torch.empty_like(left[:, block])
        for column in range(block.start, block.stop):
            chosen[:, column] = round_half_away(left[:, column]).clamp(low[:, column], high[:, column])
            kept = chosen[:, column].clamp(max=half - 1)
            losses[:, column - first] = (left[:, column] - kept) * scale[:, column] / factor[column, column]
            rest = slice(column, block.stop)
            left[:, rest] -= losses[:, column - first, None] * factor[column, rest] / scale[:, rest]
        beyond = slice(block.stop, None)
        left[:, beyond] -= losses @ factor[block, beyond] / scale[:, beyond]
    return (chosen * scale)[:, order.argsort()]


def _allowed(steps: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest whole number of each weight; the largest of a row, which sets the scale, has one."""
    low = (steps.floor() - REACH + 1).clamp(-half, half - 1)
    high = (steps.ceil() + REACH - 1).clamp(-half, half - 1)
    largest = steps.abs() >= half
    return torch.where(largest, steps.round(), low), torch.where(largest, steps.round(), high)


def _factor(gram: Tensor) -> Tensor:
    """Upper triangular U with ``U^T U = H^-1``: row j says where the loss of column j goes, ``U_jj`` how dear it is."""
    wide = gram.double()
    wide = wide + DAMPING * wide.diagonal().mean() * torch.eye(len(wide), dtype=torch.float64)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(wide))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor.float()
