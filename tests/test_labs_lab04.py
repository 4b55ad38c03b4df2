"""Lab 04: what the notebook writes is what plain attention computes, and what it counts is what PyTorch counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoints_made import tiny
from labs_slices import bound

from labsupport.checkpoint.network.attention import Heads, attend, visible
from labsupport.doctor.memory import kv_bytes_per_token
from labsupport.doctor.shapes import known_shapes, shape_of_folder
from labsupport.labs.checks import lab04
from labsupport.labs.notebook import read
from labsupport.labs.reference.attention import cached_attention, merge, tiled_attention
from labsupport.labs.reference.counting import (
    largest_tensor,
    multiply_adds,
    pair_products,
    pass_work,
    sequences_that_fit,
    text_work,
    weight_products,
)

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "04_transformer_and_kv_cache.ipynb"


def from_notebook(name, **given):
    """What the notebook's cell binds to ``name``, with the names that it reads given."""
    cell = next(cell for cell in read(NOTEBOOK).code if name in bound(cell))
    names = {"torch": torch, **given}
    exec(compile(cell.source, cell.label, "exec"), names)
    return names[name]


def plain(q, k, v):
    """Causal attention, q [A, n, D], k and v [K, n, D], by the network that conversions are proven with."""
    heads = Heads(queries=len(q), keys=len(k), size=q.shape[-1], scale=q.shape[-1] ** -0.5)
    at = torch.arange(q.shape[1])
    by_token = (each.transpose(0, 1)[None] for each in (q, k, v))
    return attend(*by_token, visible(at, at, None), heads)[0].transpose(0, 1)


def random_heads(heads, kv_heads, tokens, size=8):
    torch.manual_seed(tokens)
    return torch.randn(heads, tokens, size), *torch.randn(2, kv_heads, tokens, size)


@pytest.mark.parametrize(("heads", "kv_heads"), [(1, 1), (9, 3), (8, 1), (4, 4)])
def test_one_token_at_a_time_gives_the_rows_of_the_triangle(heads, kv_heads):
    q, k, v = random_heads(heads, kv_heads, tokens=7)
    whole, keys, values = plain(q, k, v), k[:, :0], v[:, :0]
    for t in range(7):
        row, keys, values = cached_attention(q[:, t], k[:, t], v[:, t], keys, values)
        assert torch.allclose(row, whole[:, t], atol=1e-5)
    assert torch.equal(keys, k)
    assert torch.equal(values, v)


def test_the_notebook_s_attention_is_the_network_s():
    q, k, v = random_heads(6, 2, tokens=5)
    at = torch.arange(5)
    mixed, weights = from_notebook("attend", A=6, K=2, D=8)(q, k, v, at[:, None] >= at)
    assert torch.allclose(mixed, plain(q, k, v), atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(6, 5))


@pytest.mark.parametrize(("tokens", "tile"), [(1, 4), (4, 4), (5, 4), (64, 16), (61, 16), (30, 64)])
def test_tiles_give_what_plain_attention_gives(tokens, tile):
    q, k, v = (each[0] for each in random_heads(1, 1, tokens))
    whole = plain(q[None], k[None], v[None])[0]
    for run in (tiled_attention, from_notebook("flash")):
        assert torch.allclose(run(q, k, v, tile), whole, atol=1e-5)
    assert torch.allclose(tiled_attention(1000 * q, k, v, tile), plain(1000 * q[None], k[None], v[None])[0], atol=1e-3)


def test_tiles_hold_no_square():
    q, k, v = (each[0] for each in random_heads(1, 1, 256))
    for run in (tiled_attention, from_notebook("flash")):
        assert largest_tensor(run, q, k, v, 32) == q.numel()
        assert multiply_adds(run, q, k, v, 32) < 0.6 * multiply_adds(plain, q[None], k[None], v[None])
    assert largest_tensor(plain, q[None], k[None], v[None]) == 256 * 256


@pytest.mark.parametrize("cuts", [[9], [1, 8], [3, 3, 3], [1] * 9])
def test_parts_put_together_are_the_whole(cuts):
    torch.manual_seed(0)
    scores, values = 5 * torch.randn(9), torch.randn(9, 4)
    pairs = list(zip(scores.split(cuts), values.split(cuts), strict=True))
    outs = torch.stack([score.softmax(0) @ value for score, value in pairs])
    mean, lse = merge(outs, torch.stack([score.logsumexp(0) for score, _ in pairs]))
    assert torch.allclose(mean, scores.softmax(0) @ values, atol=1e-6)
    assert torch.allclose(lse, scores.logsumexp(0))


@pytest.mark.parametrize(("new", "before"), [(1, 0), (6, 0), (1, 6), (3, 4)])
def test_the_formula_counts_what_a_model_multiplies(new, before):
    from transformers import AutoModelForCausalLM

    folder = tiny("llama")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.arange(10, 10 + before + new)[None]
    with torch.inference_mode():
        cache = model(ids[:, :before], use_cache=True).past_key_values if before else None
        counted = multiply_adds(lambda: model(ids[:, before:], past_key_values=cache, logits_to_keep=1))
    assert counted == pass_work(shape_of_folder(folder), new, before)


def test_a_text_is_the_sum_of_its_passes():
    shape = known_shapes()["smollm2-135m-instruct"]
    per_token, per_pair, head = weight_products(shape), pair_products(shape), shape.vocab * shape.hidden
    cached = pass_work(shape, 20) + pass_work(shape, 1, 20) + pass_work(shape, 1, 21)
    assert text_work(20, 3, per_token, per_pair, cached=True) == cached - 3 * head
    again = sum(pass_work(shape, n) for n in (20, 21, 22))
    assert text_work(20, 3, per_token, per_pair, cached=False) == again - 3 * head


def test_a_cache_weighs_what_the_doctor_says():
    cache_bytes = from_notebook("cache_bytes")
    for shape in known_shapes().values():
        each = kv_bytes_per_token(shape, "float16")
        assert cache_bytes(shape.layers, shape.kv_heads, shape.head_size, 1, 2) == each
        size = (shape.layers, shape.kv_heads, shape.head_size)
        assert lab04.how_many(10**10, *size, 64, 2, 32) == sequences_that_fit(10**10, 64, each, 32)


def test_the_faulty_cache_has_two_faults_and_each_of_them_shows():
    torch.manual_seed(0)
    k, v = torch.randn(2, 1, 2, 4)
    broken, mended = lab04.StaticCache(2, 1, 6, 4), lab04.StaticCache(2, 1, 6, 4)
    assert broken.append(0, k, v)[0].shape[1] == 6
    assert lab04.append(mended, 0, k, v)[0].shape[1] == 2
    broken.append(1, k, v)
    lab04.append(mended, 1, k, v)
    assert not torch.equal(broken.kv[1, 0, :, :2], k)
    assert torch.equal(mended.kv[1, 0, :, :2], k)
    assert (broken.at, mended.at) == (4, 2)
