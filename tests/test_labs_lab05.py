"""Lab 05: its reference solutions agree with what the package writes, and its planted faults are named one by one."""

from __future__ import annotations

import numpy as np
import pytest
from checkpoints_made import converted, tiny
from safetensors.numpy import load_file, save_file

from labsupport.checkpoint.verify import verify
from labsupport.labs.checks import find, judge, lab05


@pytest.mark.parametrize("tp_size", [1, 2, 4, 8])
def test_the_rows_of_a_rank_are_those_of_a_converted_file(tp_size):
    model = tiny("llama")  # 8 heads, 4 KV heads of 8: at 8 ranks each KV head stands twice
    source = load_file(model / "model.safetensors")
    q, k, v = (source[f"model.layers.1.self_attn.{name}_proj.weight"] for name in "qkv")
    checkpoint = converted(model, tp_size=tp_size)
    for rank in range(tp_size):
        stored = load_file(checkpoint / f"rank{rank}.safetensors")["transformer.layers.1.attention.qkv.weight"]
        assert np.array_equal(lab05.qkv_of_rank(q, k, v, 8, 4, 8, tp_size, rank), stored)


def test_the_three_faults_are_named_one_after_the_other(tmp_path):
    broken, model = lab05.broken_checkpoint(tmp_path)

    def first():
        return verify(broken, model).first_fault

    assert first().rule == "files"
    assert "rank1.safetensors" in first().what
    (broken / lab05.MISNAMED).rename(broken / "rank1.safetensors")
    assert first().rule == "replicas"
    assert lab05.COPIED_BIAS in first().what
    held = load_file(broken / "rank1.safetensors")
    held[lab05.COPIED_BIAS] = load_file(broken / "rank0.safetensors")[lab05.COPIED_BIAS]
    save_file(held, broken / "rank1.safetensors")
    assert first().rule == "values"
    assert "gate_proj" in first().why


def test_the_repaired_checkpoint_is_proven(tmp_path):
    broken, model = lab05.broken_checkpoint(tmp_path)
    lab05.repair(broken)
    assert verify(broken, model).proven


def test_an_attempt_is_judged_on_a_fresh_copy_each_time():
    verdicts = [judge(find("05.4"), attempt).state for attempt in (lab05.repair, lambda _: None, lab05.repair)]
    assert verdicts == ["passed", "not right yet", "passed"]
