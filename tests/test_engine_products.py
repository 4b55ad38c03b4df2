"""The engine's products: packed words hold every number, and the loops give the product of the restored weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labsupport.checkpoint.network.linear import Linear
from labsupport.checkpoint.quantize.arithmetic import quantize
from labsupport.engine.export import weights_first
from labsupport.engine.products import FloatProduct, PackedProduct, Product, for_few_rows, lower, pack, packs, tile_of


@given(
    bits=st.sampled_from([4, 8]),
    sharing=st.sampled_from(["channel", "group"]),
    rows=st.sampled_from([1, 2, 3, 5, 8, 12, 16, 80]),  # some fill tiles of 8 or 16 rows
    words=st.integers(1, 6),
    tokens=st.integers(1, 9),
    seed=st.integers(0, 1 << 30),
)
def test_packing_loses_nothing(bits: int, sharing: str, rows: int, words: int, tokens: int, seed: int) -> None:
    torch.manual_seed(seed)
    group = words * 32 // bits
    weight = torch.randn(rows, 3 * group) * 10 ** torch.randint(-3, 3, (1,)).item()
    whole = quantize(weight, bits, sharing, group, levels=1 << (bits - 1))  # type: ignore[arg-type]
    x = torch.randn(1, tokens, weight.shape[1])
    expected = x @ whole.dequantize().T
    for tile in {1, tile_of(whole)}:
        product = PackedProduct(whole, None, tile=tile)
        assert torch.equal(product.restored(torch.float32), whole.dequantize())
        for few in (False, True):
            product.few = few
            assert (product(x) - expected).abs().max() <= 1e-4 * (1e-6 + expected.abs().max() + weight.abs().max())


@pytest.mark.parametrize(("rows", "sharing", "wide", "tile"), [
    (48, "group", "AVX512", 16), (48, "group", "AVX2", 8), (12, "group", "AVX2", 4), (48, "channel", "AVX512", 1),
])  # fmt: skip
def test_rows_lie_side_by_side_where_groups_are_shorter_than_an_instruction(
    rows: int, sharing: str, wide: str, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: wide)
    whole = quantize(torch.randn(rows, 64), 4, sharing, 32, levels=8)  # type: ignore[arg-type]
    product = PackedProduct(whole, None, tile=tile_of(whole))
    assert product.words.shape == (rows // tile, whole.scale.shape[1], 64 // 8 // whole.scale.shape[1], tile)
    assert product.words[0, 0, 0].tolist() == pack(whole)[:tile, 0, 0].tolist()


@pytest.mark.parametrize("bias", [None, torch.arange(12.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_float_product_is_the_linear_layer_it_stands_for(
    bias: torch.Tensor | None, dtype: torch.dtype, tokens: int
) -> None:
    torch.manual_seed(0)
    linear = Linear(torch.randn(12, 40, dtype=dtype), None if bias is None else bias.to(dtype))
    module = torch.nn.Sequential(linear)
    lower(module, lambda linear: FloatProduct(linear, weights_first))
    assert isinstance(module[0], FloatProduct)
    x = torch.randn(1, tokens, 40, dtype=dtype)
    # not the library's own product of 16-bit numbers: some processors round it before the bias is added, and some after
    exact = torch.nn.functional.linear(x.float(), linear.weight.float(), None if bias is None else bias)
    for few in (False, True):
        for_few_rows(module, few)
        last_bit = 1e-5 if dtype == torch.float32 else 2**-7
        assert torch.allclose(module(x).float(), exact, atol=last_bit, rtol=last_bit)


def test_what_does_not_fill_words_is_not_packed() -> None:
    assert packs("W8A16", 64, 1)
    assert not packs("W8A16", 66, 1)
    assert not packs("W4A16_AWQ", 72, 2)  # 36 inputs a group are four and a half words
    assert not packs("FP8", 64, 1)


def test_a_product_without_a_form_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Product(None)
