"""Checks of lab 06, quantization."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from labsupport.checkpoint.quantize.arithmetic import pack_int4, quantize, sqnr_db
from labsupport.labs.checks import Wrong, exercise, expect, expect_choice, expect_close

ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def awq_errors(weight: Tensor, x: Tensor, alphas: Sequence[float], group: int) -> list[float]:
    """Mean squared error of the output for each strength of AWQ's scaling, weights in int4.

    Args:
        weight: float [out, in].
        x: float [tokens, in].
        alphas: exponents of the mean absolute input.
        group: inputs that share a scale.
    """
    typical, exact, errors = x.abs().mean(0).clamp(min=1e-5), x @ weight.T, []
    for alpha in alphas:
        factor = typical**alpha
        rounded = quantize(weight * factor, 4, "group", group).dequantize()
        errors.append(float(((x / factor) @ rounded.T - exact).square().mean()))
    return errors


def hidden_grid(block: Tensor) -> tuple[float, float]:
    """The widest grid of at most 16 even levels, the lowest at the smallest value, that all values lie on.

    Args:
        block: float [n], at least two different values.

    Returns:
        Step and offset.

    Raises:
        ValueError: there is none.
    """
    offset, largest = float(block.min()), float(block.max())
    for steps in range(1, 16):
        step = (largest - offset) / steps
        places = (block - offset) / step
        if float((places - places.round()).abs().max()) < 0.01:
            return step, offset
    raise ValueError("no grid of 16 levels fits")


@exercise("06.1", reference="c")
def sparse(attempt: str) -> None:
    """The notes' sparse model: a prediction."""
    expect_choice(
        attempt,
        "c",
        reasons={
            "a": "that would need larger errors. But a zero is on the grid: half of the weights lose no more than 0.",
            "b": "the survivors round as before, and the zeros do not round at all, so the noise is not the same.",
        },
    )


@exercise("06.2", reference=([0.7, 0.7, 0.6, -0.3], [-0.8, 0.3, 0.5, -0.2]))
def conventions(attempt: Sequence[Sequence[float]]) -> None:
    """Each row is rounded both ways."""
    expect(isinstance(attempt, (tuple, list)) and len(attempt) == 2, f"expected two rows; you got {attempt!r}")
    for written, levels, other in zip(attempt, (7, 8), (8, 7), strict=True):
        row = torch.tensor([[float(weight) for weight in written]])
        expect(2 <= row.numel() <= 16, f"The row for {levels} has {row.numel()} weights; write 2 to 16.")
        expect(bool(row.isfinite().all()) and bool(row.any()), f"The row for {levels} needs finite weights, not all 0.")
        mine, theirs = (quantize(row, 4, levels=each).dequantize() for each in (levels, other))
        expect(
            sqnr_db(row, mine) > sqnr_db(row, theirs),
            f"The row for {levels}: max/{levels} restores {_rounded(mine)}, {sqnr_db(row, mine):.1f} dB;\n"
            f"max/{other} restores {_rounded(theirs)}, {sqnr_db(row, theirs):.1f} dB, which is no worse.",
        )


@exercise("06.3", reference=pack_int4)
def packing(attempt: Callable[[Tensor], Tensor]) -> None:
    """Small matrices first, in every pair of values at last."""
    pairs = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8)).T
    for rows in ([[1], [2]], [[7], [-1]], [[-1], [7]], [[1, 2], [3, 4]], [[1], [2], [3], [4]], pairs.tolist()):
        values = torch.tensor(rows, dtype=torch.int8)
        got, want = attempt(values.clone()), pack_int4(values)
        small = str(rows) if len(rows[0]) < 3 else "all pairs of values"
        expect(isinstance(got, Tensor), f"expected a torch tensor; you got {type(got).__name__}")
        expect(got.dtype in (torch.int8, torch.uint8), f"a byte is an int8 (or uint8); you got {got.dtype}")
        if got.shape != want.shape:
            raise Wrong(f"For q = {small}: the shape is {list(got.shape)}, expected {list(want.shape)}")
        mine, right = _bits(got), _bits(want)
        place = next((index for index, pair in enumerate(zip(mine, right, strict=True)) if pair[0] != pair[1]), None)
        if place is not None:
            raise Wrong(f"For q = {small}: byte {place} is {mine[place]}, expected {right[place]}")


@exercise("06.4", reference=awq_errors)
def search(attempt: Callable[[Tensor, Tensor, Sequence[float], int], Sequence[float]]) -> None:
    """Random layers with some large inputs, one of them with a silent channel."""
    for seed, (outputs, inputs, group) in enumerate([(4, 8, 8), (8, 16, 4), (8, 32, 16)]):
        weight, x = _layer(seed, outputs, inputs)
        expect_close(
            torch.tensor([float(error) for error in attempt(weight.clone(), x.clone(), ALPHAS, group)]),
            torch.tensor(awq_errors(weight, x, ALPHAS, group)),
            given=f"a random weight [{outputs}, {inputs}], x [64, {inputs}], alphas {list(ALPHAS)}, group {group}",
            rtol=1e-3,
        )


@exercise("06.5", reference=hidden_grid)
def detective(attempt: Callable[[Tensor], tuple[float, float]]) -> None:
    """Blocks made on known grids, some with levels left out."""
    for step, offset, places in _grids():
        block = offset + step * torch.tensor(places, dtype=torch.float32)
        got = attempt(block.clone())
        expect(isinstance(got, (tuple, list)) and len(got) == 2, f"expected (step, offset); you got {got!r}")
        found = float(got[0]), float(got[1])
        expect(
            math.isclose(found[0], step, rel_tol=1e-3) and math.isclose(found[1], offset, rel_tol=1e-3, abs_tol=1e-4),
            f"For a block on the levels k = {sorted(set(places))} of step {step}, offset {offset}:\n"
            f"  you got  step {found[0]:.4f}, offset {found[1]:.4f}",
        )


def _rounded(row: Tensor) -> list[float]:
    return [round(float(weight), 3) for weight in row[0]]


def _bits(packed: Tensor) -> list[str]:
    return [f"{int(byte):08b}" for byte in packed.contiguous().view(torch.uint8).flatten()]


def _layer(seed: int, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    weight, x = torch.randn(outputs, inputs, generator=random), torch.randn(64, inputs, generator=random)
    x[:, 0] *= 20
    if seed == 1:
        x[:, 3] = 0
    return weight, x


def _grids() -> Iterator[tuple[float, float, list[int]]]:
    yield 0.1, -0.35, [*range(16), *range(16)]
    yield 0.0625, -0.5, [0, 3, 5, 9, 12, 15] * 5 + [0, 15]  # no two neighbors: the smallest gap is two steps
    yield 0.05, 0.2, [0, 1, 2, 4, 7, 11] * 5 + [0, 11]  # not all 15 steps are used
    yield 0.02, -0.1, [0, 15, 6, 7] * 8
