"""Lab 07: what the notebook writes is what the engine's room does, counted, refused and measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints_made import converted, tiny
from labs_slices import bound

from labsupport.doctor.memory import FIXED_BYTES, need, weight_bytes
from labsupport.doctor.shapes import known_gpus, known_shapes
from labsupport.engine import machine
from labsupport.engine.build_config import build_config, resolve
from labsupport.engine.eager import EagerModel
from labsupport.engine.ledger import Source, ledger, plan_for
from labsupport.errors import EngineError, ParameterError
from labsupport.labs.checks import lab07
from labsupport.labs.notebook import read

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "07_engine_build.ipynb"


def from_notebook(name, **given):
    """What the notebook's cell binds to ``name``, with the names that it reads given."""
    cell = next(cell for cell in read(NOTEBOOK).code if name in bound(cell) and "exercise" not in cell.tags)
    names = dict(given)
    exec(compile(cell.source, cell.label, "exec"), names)
    return names[name]


@pytest.mark.parametrize(("family", "kinds"), [("llama", 1), ("gemma3", 1)])
@pytest.mark.parametrize("options", [{"max_batch_size": 1, "gather_context_logits": True}, {"max_beam_width": 2}])
def test_the_count_of_graphs_is_that_of_an_export(family, kinds, options):
    from labsupport.checkpoint.config import read_config
    from labsupport.engine.export import export_graphs, products
    from labsupport.engine.parts import take_apart

    folder = converted(tiny(family))
    chosen, _ = resolve(build_config(**options), read_config(folder))
    model = read_config(folder)
    graphs = export_graphs(take_apart(folder, model, products("cpu", model.dtype)), chosen)
    counted = lab07.graph_count(kinds, chosen.max_batch_size, chosen.max_beam_width, chosen.gather_context_logits)
    assert counted == len(graphs), [graph.name for graph in graphs]


def test_the_bytes_of_blocks_are_those_of_a_cache():
    model = EagerModel(converted(tiny("llama")), tokens_per_block=16)
    cache = model.new_cache(5)
    config = model.config
    lengths = [1, 33, 16]  # 1 + 3 + 1 blocks
    sizes = (config.num_hidden_layers, config.num_key_value_heads, config.head_size, 4)
    assert lab07.pool_bytes(lengths, 16, *sizes) == sum(t.nbytes for layer in cache for pool in layer for t in pool)


@pytest.mark.parametrize("model", ["llama-2-7b", "gemma-2b"])
def test_the_prices_of_limits_are_those_of_the_ledger(model):
    shape = known_shapes()[model]
    cache, activations, logits = from_notebook("limit_bytes")(shape, 8, 2048, 8192, 2)
    source = Source(shape)
    kept = ledger(source, "float16", plan_for(source.build, gpu=True, tp=1, length=2048), batch=8, length=2048)
    assert (cache, activations, logits) == (kept["KV cache"], kept["activations"], kept["logits"])
    assert weight_bytes(shape, "float16") + cache + activations + logits + FIXED_BYTES == kept.total


def test_beams_multiply_cache_and_logits_but_not_the_step():
    shape = known_shapes()["gpt2"]
    price = from_notebook("limit_bytes")
    one, four = price(shape, 2, 100, 64, 4), price(shape, 2, 100, 64, 4, beams=4)
    assert (four[0], four[1], four[2]) == (4 * one[0], one[1], 4 * one[2])


@pytest.mark.parametrize(
    ("jobs", "workers", "began", "end"),
    [([3, 2, 2], 1, [0, 3, 5], 7), ([3, 2, 2], 2, [0, 0, 2], 4), ([3, 2, 2], 3, [0, 0, 0], 3), ([5], 2, [0], 5)],
)
def test_a_job_goes_to_the_worker_that_is_free_first(jobs, workers, began, end):
    assert from_notebook("lanes")(jobs, workers) == (began, end)


def test_the_exercise_s_load_fits_by_the_doctor_s_arithmetic_too():
    limits = lab07.limits.reference
    batch, length = limits["max_batch_size"], limits["max_seq_len"]
    found = need(known_shapes()[lab07.MODEL], known_gpus()[lab07.CARD], lab07.PRECISION, batch=batch, length=length)
    assert found.kv <= found.pool
    too_many = need(known_shapes()[lab07.MODEL], known_gpus()[lab07.CARD], lab07.PRECISION, batch=16, length=2000)
    assert too_many.kv > too_many.pool
    assert lab07.needed_bytes(16, 2000, 2048) > known_gpus()[lab07.CARD].memory_bytes


HERE = {"torch": "2.13.0", "device": "cpu", "machine": "x86_64", "instructions": ["avx", "avx2", "fma"]}


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"torch": "2.12.0"},
        {"machine": "aarch64"},
        {"instructions": ["avx"]},
        {"instructions": ["avx", "avx2", "fma", "zmm"]},
    ],
    ids=str,
)
def test_the_exercise_refuses_what_loading_refuses(other, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "fingerprint", lambda _: HERE)
    built = {**HERE, **other}
    stands = lab07.why_not(built, HERE)
    if not stands:
        machine.require_same(built, tmp_path)
        return
    with pytest.raises(EngineError, match="|".join(stands)):
        machine.require_same(built, tmp_path)


@pytest.mark.parametrize("gone", ["max_output_len", "world_size", "use_gemm_plugin"])
def test_flags_of_the_notes_are_refused_by_name(gone):
    with pytest.raises(ParameterError, match=gone):
        build_config(**{gone: 1})
