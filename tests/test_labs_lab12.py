"""Lab 12: what the notebook writes is what the executor, its scheduler and its block manager do."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_double import HashModel
from hypothesis import given, settings
from hypothesis import strategies as st
from labs_slices import bound

from labsupport.engine.blocks import BlockManager
from labsupport.engine.executor import Executor
from labsupport.engine.limits import BatchingType, CapacitySchedulerPolicy, ExecutorConfig, KvCacheConfig, Limits
from labsupport.engine.requests import Request
from labsupport.engine.scheduler import Job
from labsupport.engine.scheduler import schedule as package_schedule
from labsupport.figures import slots
from labsupport.labs.checks import lab12
from labsupport.labs.notebook import read

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "12_batching_and_paged_kv.ipynb"
BLOCK = 4  # of the double


def from_notebook(name, **names):
    """What the notebook's last cell that binds ``name`` binds to it, with the names that it reads given."""
    cell = [cell for cell in read(NOTEBOOK).code if name in bound(cell) and "check" not in cell.tags][-1]
    names = {"slots": slots, "NAMES": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", **names}
    exec(compile(cell.source, cell.label, "exec"), names)
    return names[name]


def executor(pool=200, count=3, batching=BatchingType.INFLIGHT, *, reuse=False, budget=64):
    """On the double, without chunks: what the learner's scheduler is about."""
    config = ExecutorConfig(
        batching_type=batching,
        kv_cache_config=KvCacheConfig(enable_block_reuse=reuse, max_tokens=pool * BLOCK),
        enable_chunked_context=False,
    )
    most = Limits(max_batch_size=count, max_num_tokens=budget, max_input_len=64, max_seq_len=200)
    return Executor(HashModel(tokens_per_block=BLOCK), most, config, threaded=False)


def run(runner, requests):
    for request in requests:
        runner.enqueue_request(request)
    steps = []
    while (did := runner.step()) is not None:
        steps.append(did)
    return steps


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(lengths=lengths, count=st.integers(1, 4), static=st.booleans())
def test_the_simulated_grid_is_the_executor_s(lengths, count, static):
    batching = BatchingType.STATIC if static else BatchingType.INFLIGHT
    steps = run(executor(count=count, batching=batching), [Request([1, 2], max_tokens=n) for n in lengths])
    simulate = from_notebook("simulate")
    cells = {(cell.iteration, cell.slot, cell.owner, cell.work) for cell in simulate(lengths, count, static)}
    assert cells == {(s.iter, d.slot, "ABCDEFGHI"[d.request_id - 1], d.work) for s in steps for d in s.slots}
    taught = lab12.static_steps if static else lab12.inflight_steps
    assert taught(lengths, count) == len(steps)


asks = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 30)), min_size=1, max_size=7)


@settings(max_examples=150, deadline=None)
@given(asks=asks, ran=st.lists(st.integers(0, 30), max_size=3), spare=st.integers(0, 20), count=st.integers(3, 5),
       budget=st.integers(20, 40))  # fmt: skip
def test_the_learner_s_schedule_is_the_package_s(asks, ran, spare, count, budget):
    """Everybody who runs generates, nothing is shared, the guarantee holds: then the two let the same ones in."""
    running = asks[: len(ran)]
    jobs = [Job(id, prompt, prompt + more, computed=min(prompt + done, prompt + more))
            for id, ((prompt, more), done) in enumerate(zip(running, ran, strict=False))]  # fmt: skip
    waiting = [Job(100 + id, prompt, prompt + more) for id, (prompt, more) in enumerate(asks[len(ran) :])]
    promised = sum(-(-job.last // BLOCK) for job in jobs)
    blocks = BlockManager(1 + promised + spare, BLOCK)
    for job in jobs:
        blocks.add(job.id, ())
        blocks.grow(job.id, job.computed)
    policy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT
    step = package_schedule(waiting, jobs, blocks, Limits(count, 64, 200, budget), policy, chunked=False)
    theirs = [lab12.Ask(job.id, job.context, job.last) for job in waiting]
    held = [lab12.Ask(job.id, job.context, job.last, blocks.held(job.id)) for job in jobs]
    for schedule in (lab12.schedule, from_notebook("schedule")):
        assert tuple(schedule(theirs, held, blocks.available, count, budget, BLOCK)) == step.admitted
    assert step.paused == ()


@settings(max_examples=60, deadline=None)
@given(asks=asks, pool=st.integers(13, 30), count=st.integers(1, 4))
def test_the_notebook_s_loop_lets_in_at_the_executor_s_iterations(asks, pool, count):
    entered = from_notebook("entered")
    steps = run(executor(pool, count), [Request([1] * prompt, max_tokens=n) for prompt, n in asks])
    entries = from_notebook("entries", BLOCK=BLOCK, schedule=lab12.schedule)
    mine = [lab12.Ask(id, prompt, prompt + n - 1) for id, (prompt, n) in enumerate(asks, start=1)]
    assert entries(mine, pool, count, 64) == entered(steps)


@settings(max_examples=60, deadline=None)
@given(
    first=st.lists(st.integers(0, 1), min_size=1, max_size=14),
    second=st.lists(st.integers(0, 1), min_size=1, max_size=14),
)
def test_what_need_not_be_read_is_what_the_executor_reuses(first, second):
    runner = executor(count=1, reuse=True)
    numbers = [runner.enqueue_request(Request(p, max_tokens=1, return_perf_metrics=True)) for p in (first, second)]
    metrics = [runner.await_responses(number)[-1].result.perf_metrics for number in numbers]
    for reused in (lab12.reused, from_notebook("reused")):
        assert reused(second, first, BLOCK) == metrics[1].kv_cache_reused_blocks * BLOCK


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), block=st.sampled_from([1, 4, 16]))
def test_the_empty_share_is_what_the_block_manager_takes(lengths, block):
    room = BlockManager(300, block)
    for id, length in enumerate(lengths):
        room.add(id, ())
        room.grow(id, length)
    rows = sum(room.held(id) for id in range(len(lengths))) * block
    for empty_share in (lab12.empty_share, from_notebook("empty_share")):
        assert empty_share(lengths, block) == pytest.approx(1 - sum(lengths) / rows)


def test_first_fit_finds_the_first_hole():
    first_fit = from_notebook("first_fit")
    held = [(0, 10), (15, 5), (30, 10)]
    assert [first_fit(held, 50, length) for length in (5, 6, 10, 11)] == [10, 20, 20, None]
    assert first_fit([], 50, 50) == 0
