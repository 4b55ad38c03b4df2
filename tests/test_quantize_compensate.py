"""Rounding whose errors cancel: on the kernel's grid, within two steps, better for the output, the same scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from quantized_made import llama, text

from labsupport.checkpoint.quantize.arithmetic import weight_only
from labsupport.checkpoint.quantize.calibrate import read_pieces
from labsupport.checkpoint.quantize.compensate import REACH, compensated
from labsupport.checkpoint.quantize.sensitivity import grams


def correlated(tokens: int = 400, inputs: int = 96, seed: int = 0) -> torch.Tensor:
    """Inputs that rise and fall together, some of them large, as in a real layer."""
    draw = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, 24, generator=draw) @ torch.randn(24, inputs, generator=draw)
    x = mixed + 0.3 * torch.randn(tokens, inputs, generator=draw)
    return x * torch.rand(inputs, generator=draw).mul(3).exp()


@settings(max_examples=80, deadline=None)
@given(
    arrays("int16", (3, 12), elements=st.integers(-2000, 2000)),
    arrays("int8", (5, 12), elements=st.integers(-20, 20)),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.sampled_from([8, 4]),
    st.sampled_from([1, 2]),
)
def test_the_kernel_leaves_them_alone(
    weights: object, inputs: object, dtype: torch.dtype, bits: int, ranks: int
) -> None:
    """Whatever the weights and inputs: the scale is the original's, and the kernel finds the whole numbers again."""
    weight = (torch.tensor(weights).float() / 256).to(dtype).float()
    x = torch.tensor(inputs).float()
    handed = compensated(weight, x.T @ x + torch.eye(12), bits, ranks)
    for before, exact, stored in zip(
        weight.chunk(ranks, 1), handed.chunk(ranks, 1), handed.to(dtype).chunk(ranks, 1), strict=True
    ):
        old, new = weight_only(before, bits), weight_only(stored, bits)
        assert torch.equal(old.scale, new.scale)
        assert torch.equal(new.values, (exact / new.scale).round().clamp(max=2 ** (bits - 1) - 1).to(torch.int8))
        assert bool(((new.dequantize() - before).abs() <= REACH * new.scale * 1.0001).all())


def test_errors_that_meet_the_same_input_cancel() -> None:
    """Four weights of 0.4 steps on inputs that are always equal: to nearest all are lost, together they are 1.6."""
    row = torch.tensor([[-128.0, 0.4, 0.4, 0.4, 0.4]])
    same = torch.ones(5, 5)
    same[0, 1:] = same[1:, 0] = 0
    assert weight_only(row, 8).dequantize()[0, 1:].tolist() == [0, 0, 0, 0]
    assert abs(float(compensated(row, same)[0, 1:].sum()) - 1.6) <= 0.5


def test_without_correlation_it_is_rounding_to_nearest() -> None:
    weight = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    made = compensated(weight, torch.arange(1.0, 41).diag())
    assert torch.equal(weight_only(made, 8).values, weight_only(weight, 8).values)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_output_is_nearer_on_other_inputs_too(bits: int) -> None:
    every = correlated(800)
    x, other = every[:400], every[400:]
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(2))
    lost = [
        float(((weight_only(one, bits).dequantize() - weight) @ other.T).square().mean())
        for one in (weight, compensated(weight, x.T @ x, bits))
    ]
    assert lost[1] < 0.5 * lost[0]


def test_a_largest_weight_that_is_positive_keeps_the_scale() -> None:
    handed = compensated(torch.tensor([[1.0, -0.5, 0.003]]), torch.eye(3))
    assert handed[0, 0] == 1
    assert weight_only(handed, 8).values[0].tolist() == [127, -64, 0]


def test_rows_of_zeros_stay_zeros() -> None:
    x = correlated(inputs=8)
    assert not compensated(torch.zeros(2, 8), x.T @ x).any()


def test_what_a_token_counts_is_the_square_of_its_gradient() -> None:
    """The gram of one layer again, from one plain pass with ``torch.autograd.grad``."""
    from transformers import AutoModelForCausalLM

    pieces = read_pieces(llama(), text())[:1, :32]
    found = grams(llama(), pieces, seed=3)
    network = AutoModelForCausalLM.from_pretrained(llama(), dtype=torch.float32).eval()
    seen: dict[str, torch.Tensor] = {}
    layer = network.model.layers[1].mlp.down_proj
    layer.register_forward_hook(lambda _module, given, out: seen.update(x=given[0], y=out))
    logits = network(pieces).logits[0]
    drawn = torch.multinomial(logits.softmax(-1), 1, generator=torch.Generator().manual_seed(3))
    loss = -logits.log_softmax(-1).gather(1, drawn).sum()
    (gradient,) = torch.autograd.grad(loss, seen["y"])
    x, counts = seen["x"][0].detach(), gradient[0].square().sum(-1)
    wanted = sum(float(c) * torch.outer(one, one) for c, one in zip(counts, x, strict=True))
    assert torch.allclose(found["model.layers.1.mlp.down_proj"], wanted, rtol=1e-3, atol=1e-6 * float(wanted.max()))
    assert len(found) == 2 * 7  # the head is not quantized
    assert np.linalg.eigvalsh(wanted.double().numpy()).min() > -1e-6 * float(wanted.max())
