"""Lab 11: what the notebook writes is what the benchmark's room computes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labs_slices import bound

from labsupport.benchmark.arrivals import Poisson
from labsupport.benchmark.machine import Limits
from labsupport.benchmark.resample import estimate
from labsupport.benchmark.resample import percentile as package_percentile
from labsupport.benchmark.timeline import Chunk, Slo, Timeline, window
from labsupport.benchmark.timeline import goodput as package_goodput
from labsupport.benchmark.traffic import Traffic
from labsupport.labs.checks import lab11
from labsupport.labs.notebook import read

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "11_benchmarking.ipynb"
FREEZE = {"WORK": 0.02, "FREEZE": (4.0, 6.0), "SEED": 0, "random": random}


def from_notebook(name, **names):
    """What the notebook's last cell that binds ``name`` binds to it, with the names that it reads given."""
    cell = [cell for cell in read(NOTEBOOK).code if name in bound(cell) and "check" not in cell.tags][-1]
    names = {"np": np, "random": random, **names}
    exec(compile(cell.source, cell.label, "exec"), names)
    return names[name]


times = st.lists(st.floats(0.001, 2.0), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(due=st.floats(0, 100), gaps=times)
def test_metrics_are_the_package_s(due, gaps):
    at = [float(one) for one in due + np.cumsum(gaps)]
    one = Timeline(due, due, tuple(map(Chunk, at)), len(at))
    for metrics in (lab11.metrics, from_notebook("metrics")):
        assert metrics(due, at) == pytest.approx((one.ttft, one.itl, one.latency))
    assert from_notebook("itl", cold=_Cold())(one) == pytest.approx(one.itl)


class _Cold:
    runs = ()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(0, 1e3), min_size=1, max_size=30), rank=st.floats(0, 100))
def test_the_percentile_is_numpy_s(values, rank):
    assert from_notebook("percentile")(values, rank) == pytest.approx(np.percentile(values, rank), abs=1e-9)


def test_the_interval_is_about_the_package_s():
    values = list(np.random.default_rng(3).exponential(1.0, 200))
    mine = from_notebook("interval", percentile=from_notebook("percentile"))(values, 50)
    theirs = estimate(values, package_percentile(50))
    assert mine == pytest.approx((theirs.low, theirs.high), rel=0.1)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.001, 0.1)), min_size=1, max_size=9))
def test_goodput_is_the_package_s(pairs):
    runs = [Timeline(0.0, 0.0, (Chunk(first), Chunk(first + gap)), 2) for first, gap in pairs]
    begin, end = window(runs)
    requests = [(one.ttft, one.itl) for one in runs]
    for goodput in (lab11.goodput, from_notebook("goodput")):
        assert goodput(requests, 0.5, 0.05, end - begin) == pytest.approx(
            package_goodput(runs, Slo(ttft=0.5, itl=0.05))
        )


@pytest.mark.parametrize(("batch", "given", "new"), [(1, 10, 4), (8, 100, 20), (64, 512, 128)])
def test_the_limit_is_the_package_s(batch, given, new):
    work = Traffic(1e8, 1e4, 1.0, float32=False)
    want = work.output_limit(Limits(1e10, 1.0, 1e10), batch, given, new)
    for limit in (lab11.output_limit, from_notebook("output_limit")):
        assert limit(1e8, 1e4, batch, given + new // 2, 1e10) == pytest.approx(want)


def test_the_closed_loop_omits_what_the_open_loop_sees():
    finish = from_notebook("finish", **FREEZE)
    closed = from_notebook("closed_loop", finish=finish, **FREEZE)()
    opened = from_notebook("open_loop", finish=finish, **FREEZE)()
    assert sum(one > 1 for one in closed) == 1
    assert np.percentile(closed, 99) == pytest.approx(0.02)
    assert np.percentile(opened, 99) > 1.5
    assert len(opened) == pytest.approx(200, rel=0.25)
    quiet = from_notebook("open_loop", finish=finish, **FREEZE)(freeze=(99, 99), rate=5)
    assert np.median(quiet) == pytest.approx(0.02)


def test_users_come_as_in_the_load_generator():
    """Both draw exponential gaps with the same mean."""
    chance, theirs = random.Random(0), Poisson(40.0).times(0)
    mine = np.mean([chance.expovariate(40) for _ in range(4000)])
    assert mine == pytest.approx(np.mean(np.diff([next(theirs) for _ in range(4000)])), rel=0.06)


def test_pooled_percentiles_of_the_fleet():
    for p99 in (lab11.p99_of_all, from_notebook("p99_of_all")):
        assert p99([[0.1] * 99, [5.0]]) == pytest.approx(np.percentile([0.1] * 99 + [5.0], 99))


def test_line_i_beats_physics_and_line_j_does_not():
    assert lab11.output_limit(16.06e9, 131_072, 1, 0, 3.35e12) < 330
    assert lab11.output_limit(16.06e9, 131_072, 64, 1024, 3.35e12) > 5900
    assert set("bcegi") == lab11.FAULTS
    assert set(lab11.FINE) | lab11.FAULTS == set(lab11.LETTERS)
