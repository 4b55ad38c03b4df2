"""The scheduler alone: it is a function, so each rule is one call."""

from __future__ import annotations

from labsupport.engine.blocks import BlockManager, chain_key
from labsupport.engine.limits import CapacitySchedulerPolicy, Limits
from labsupport.engine.scheduler import Chunk, Job, Step, schedule

SURE, FULL = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT, CapacitySchedulerPolicy.MAX_UTILIZATION
LIMITS = Limits(max_batch_size=3, max_num_tokens=16)


def job(id: int, context: int, output: int = 5, **more: object) -> Job:
    return Job(id, context, context + output - 1, **more)  # type: ignore[arg-type]


def plan(
    waiting: list[Job],
    running: list[Job] | None = None,
    *,
    pool: int = 20,
    limits: Limits = LIMITS,
    policy: CapacitySchedulerPolicy = SURE,
    chunked: bool = True,
) -> Step:
    """The plan for blocks of 4 tokens, of which each running job holds what it computed, or its context."""
    return schedule(waiting, running or [], held(running or [], pool), limits, policy, chunked=chunked)


def held(running: list[Job], pool: int) -> BlockManager:
    blocks = BlockManager(pool + 1, 4)
    for each in running:
        blocks.add(each.id, [])
        blocks.grow(each.id, max(each.context, each.computed))
    return blocks


def test_slots_are_filled_in_order_of_arrival() -> None:
    assert plan([job(i, 2) for i in range(5)]) == Step(
        admitted=(0, 1, 2), context=(Chunk(0, 0, 2), Chunk(1, 0, 2), Chunk(2, 0, 2))
    )


def test_a_higher_priority_goes_first() -> None:
    waiting = [job(0, 2), job(1, 2, priority=0.9), job(2, 2, priority=0.1), job(3, 2)]
    assert plan(waiting).admitted == (1, 0, 3)


def test_who_generates_comes_before_prompts_and_a_prompt_gets_what_is_left_in_whole_blocks() -> None:
    running = [job(0, 4, computed=5), job(1, 6, computed=7)]
    step = plan([job(2, 30)], running, limits=Limits(max_batch_size=3, max_num_tokens=16))
    assert step.generation == (0, 1)
    assert step.context == (Chunk(2, 0, 12),)  # 14 are left


def test_a_prompt_that_has_begun_goes_on_where_it_stopped() -> None:
    step = plan([job(1, 3)], [job(0, 30, computed=12)])
    assert step.context == (Chunk(0, 12, 16),)
    assert step.admitted == ()  # no tokens are left


def test_without_chunks_a_prompt_waits_until_it_fits_whole() -> None:
    generating = [job(0, 4, computed=5)]
    assert plan([job(1, 16)], generating, chunked=False).admitted == ()
    assert plan([job(1, 15)], generating, chunked=False).context == (Chunk(1, 0, 15),)


def test_nobody_overtakes() -> None:
    assert plan([job(0, 60), job(1, 2)], pool=4).admitted == ()


def test_guaranteed_no_evict_keeps_room_for_the_last_token() -> None:
    running = [job(0, 4, 13, computed=4)]  # holds 1 block, and will need 4
    assert plan([job(1, 4, 5)], running, pool=5).admitted == ()  # would need 2
    assert plan([job(1, 4, 5)], running, pool=6).admitted == (1,)


def test_max_utilization_keeps_room_for_the_next_one() -> None:
    running = [job(0, 4, 13, computed=4)]  # its next token takes a second block
    assert plan([job(1, 4, 5)], running, pool=4, policy=FULL).admitted == (1,)
    assert plan([job(1, 4, 5)], running, pool=3, policy=FULL).admitted == ()


def test_the_last_in_rank_is_paused_until_the_others_have_room() -> None:
    running = [job(0, 4, 13, computed=8), job(1, 4, 13, computed=8), job(2, 4, 13, computed=6)]
    step = plan([job(3, 1)], running, pool=6, policy=FULL)
    assert step == Step(paused=(2,), generation=(0, 1))  # and nobody is let in on what it freed


def test_priority_decides_who_is_paused() -> None:
    running = [job(0, 4, 13, computed=8, priority=0.1), job(1, 4, 13, computed=8)]
    assert plan([], running, pool=4, policy=FULL).paused == (0,)


def test_a_shared_block_is_not_freed_by_pausing_one_of_its_users() -> None:
    key = [chain_key(b"", [1] * 4)]
    blocks = BlockManager(4, 4)  # 3 to give
    jobs = [job(0, 8, 9, computed=8), job(1, 4, 9, computed=4), job(2, 4, 9, computed=4)]
    blocks.add(0, [])
    blocks.grow(0, 8)
    for each in jobs[1:]:
        blocks.add(each.id, key)
        blocks.grow(each.id, 4)
        blocks.seal(each.id, key)
    assert blocks.available == 0
    step = schedule([], jobs, blocks, LIMITS, FULL)
    assert step.paused == (2, 1)
    assert step.generation == (0,)


def test_a_prefix_in_use_costs_no_blocks_and_no_tokens() -> None:
    keys = [chain_key(b"", [1] * 4)]
    blocks = BlockManager(4, 4)
    running = job(0, 5, 1, computed=5)
    blocks.add(0, keys)
    blocks.grow(0, 5)
    blocks.seal(0, keys)
    assert schedule([job(1, 6, 3, keys=keys)], [running], blocks, LIMITS, SURE).context == (Chunk(1, 4, 2),)
    assert schedule([job(1, 6, 3)], [running], blocks, LIMITS, SURE).context == ()


def test_beams_take_a_token_each_and_are_sure_of_their_last_block() -> None:
    beams = job(0, 6, 7, computed=6, beams=3)  # 1 shared block, then 3 x 2
    assert plan([job(1, 3, 1)], [beams], pool=7, policy=FULL).admitted == ()
    assert plan([job(1, 3, 1)], [beams], pool=8, policy=FULL).admitted == (1,)
    narrow = Limits(max_batch_size=3, max_num_tokens=4)
    assert plan([], [job(1, 2, computed=3), job(2, 2, computed=3), beams], limits=narrow).generation == (0, 1)
