"""Scales, rounding and packing, against values worked out by hand and matrices that hypothesis makes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labsupport.checkpoint.quantize.arithmetic import (
    pack_int4,
    quantize,
    round_half_away,
    sqnr_db,
    unpack_int4,
    weight_only,
)
from labsupport.errors import ParameterError

ROWS = torch.tensor([[0.1, -0.7, 0.2, 0.0], [7.0, 3.5, -1.0, 0.5]])


def noise(rows: int = 64, columns: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_a_scale_is_the_largest_weight_over_the_largest_whole_number() -> None:
    made = quantize(ROWS, 4, "channel")
    assert torch.allclose(made.scale, torch.tensor([[0.1], [1.0]]))
    assert made.values.tolist() == [[1, -7, 2, 0], [7, 4, -1, 0]]  # 3.5 and 0.5 are halves: to the even neighbor
    assert torch.allclose(made.dequantize(), torch.tensor([[0.1, -0.7, 0.2, 0.0], [7.0, 4.0, -1.0, 0.0]]))


def test_who_shares_a_scale() -> None:
    assert quantize(ROWS, 4, "tensor").scale.tolist() == [[1.0]]
    assert quantize(ROWS, 4, "tensor").values[0].tolist() == [0, -1, 0, 0]  # the small row drowns
    assert torch.allclose(quantize(ROWS, 4, "group", 2).scale, torch.tensor([[0.7, 0.2], [7.0, 1.0]]) / 7)


def test_trtllm_builds_weight_only_with_128_and_8_and_cuts_the_largest() -> None:
    row = torch.tensor([[1.0, -1.0, 0.5, 0.01171875]])  # the last is 1.5 / 128, a half
    eight, four = weight_only(row, 8), weight_only(row, 4)
    assert eight.scale.tolist() == [[1 / 128]]
    assert eight.values.tolist() == [[127, -128, 64, 2]]
    assert four.values.tolist() == [[7, -8, 4, 0]]
    assert four.dequantize()[0, 0] == 7 / 8


def test_halves_go_away_from_zero_as_in_c() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -2.5, 0.49999997, 8388609.0])
    assert round_half_away(x).tolist() == [1, 2, 3, -1, -3, 0, 8388609]


def test_smaller_families_of_weights_lose_less() -> None:
    weight = noise() * torch.rand(64, 1).exp2()
    weight[0, 0] = 20  # an outlier
    ratios = [sqnr_db(weight, quantize(weight, 4, way, 64).dequantize()) for way in ("tensor", "channel", "group")]
    assert ratios[0] + 3 < ratios[1]
    assert ratios[1] + 0.5 < ratios[2]


@pytest.mark.parametrize("bits", [3, 4, 5, 6, 7])
def test_a_bit_is_worth_six_decibels(bits: int) -> None:
    weight = noise(256, 512)
    found = [sqnr_db(weight, quantize(weight, b, "channel").dequantize()) for b in (bits, bits + 1)]
    # the step is max|w| / (2^(b-1) - 1), so at few bits the step shrinks by a little more than half
    exact = 20 * math.log10((2**bits - 1) / (2 ** (bits - 1) - 1))
    assert found[1] - found[0] == pytest.approx(exact, abs=0.25)


def test_sqnr_follows_from_the_step_alone() -> None:
    """Noise within a step is uniform: its power is step^2 / 12."""
    weight = noise(128, 1024)
    made = quantize(weight, 8, "tensor")
    predicted = 10 * math.log10(float(weight.square().mean()) * 12 / float(made.scale) ** 2)
    assert sqnr_db(weight, made.dequantize()) == pytest.approx(predicted, abs=0.1)
    assert sqnr_db(weight, weight) == math.inf


@settings(max_examples=100, deadline=None)
@given(
    arrays("int8", st.tuples(st.integers(1, 12).map(lambda n: 2 * n), st.integers(1, 20)), elements=st.integers(-8, 7))
)
def test_nibbles_come_back(values: object) -> None:
    held = torch.tensor(values)
    packed = pack_int4(held)
    assert packed.dtype == torch.int8
    assert packed.shape == (held.shape[0] // 2, held.shape[1])
    assert torch.equal(unpack_int4(packed), held)


def test_every_byte_is_a_pair_of_nibbles() -> None:
    every = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8)[None]
    assert torch.equal(pack_int4(unpack_int4(every)), every)
    assert pack_int4(torch.tensor([[1], [-8]], dtype=torch.int8)).view(torch.uint8).item() == 0x81


@settings(max_examples=60, deadline=None)
@given(
    arrays("float32", (4, 8), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(2, 8),
    st.sampled_from(["tensor", "channel", "group"]),
)
def test_no_weight_moves_by_more_than_half_a_step(values: object, bits: int, sharing: str) -> None:
    weight = torch.tensor(values)
    made = quantize(weight, bits, sharing, 4)  # type: ignore[arg-type]
    step = made.scale.repeat_interleave(8 // made.scale.shape[1], 1)
    assert bool(((weight - made.dequantize()).abs() <= step * 0.5001 + 1e-30).all())


def test_a_row_of_zeros_stays_zeros() -> None:
    made = quantize(torch.zeros(2, 4), 8, "channel")
    assert made.scale.tolist() == [[1.0], [1.0]]
    assert not made.dequantize().any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(ParameterError, match="1 of 8 weights are NaN or infinite"):
        quantize(torch.where(ROWS == 7.0, bad, ROWS), 8)


def test_inputs_that_do_not_divide_into_groups() -> None:
    with pytest.raises(ParameterError, match="576 inputs do not divide into groups of 128") as caught:
        quantize(noise(2, 576), 4, "group", 128)
    assert caught.value.fix == "use a group of 16 or 32 or 64"
    with pytest.raises(ParameterError, match="do not divide into groups of 0"):
        quantize(ROWS, 4, "group", 0)


def test_rows_that_cannot_be_paired() -> None:
    with pytest.raises(ParameterError, match="3 rows cannot be packed in pairs"):
        pack_int4(torch.zeros(3, 4, dtype=torch.int8))


def test_values_that_do_not_fit() -> None:
    with pytest.raises(ParameterError, match="values from -8 to 8"):
        pack_int4(torch.tensor([[8], [-8]], dtype=torch.int8))
    with pytest.raises(ParameterError, match="9 bits"):
        quantize(ROWS, 9)
