"""Who runs in the next iteration: the scheduler of in-flight batching.

Every iteration asks anew. Two things are scarce: blocks of the KV cache, and tokens that one iteration may run. First
the running requests are looked after: who would overrun the memory is *paused* (its blocks are freed, to be computed
again later). Then tokens are shared out: requests that generate need one each (one a beam); what is left goes to the
*context* of others, their prompts, in chunks if it does not suffice; and at last waiting requests are let in.

The two policies differ only in how far they look ahead. ``guaranteed_no_evict`` keeps room for each request's *last*
token, so nobody is ever paused; ``max_utilization`` for its *next* one, so more run at once and some have to pause.

Source: TensorRT-LLM ``batch_manager/capacityScheduler.cpp`` and ``microBatchScheduler.cpp``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from labsupport.engine.blocks import BlockManager, Key
from labsupport.engine.limits import CapacitySchedulerPolicy, Limits


@dataclass(eq=False)
class Job:
    """A request as the scheduler sees it.

    Args:
        id: requests that came earlier have a smaller one.
        context: tokens that must be in the cache before it can generate: its prompt, and after a pause its output too.
        last: tokens that will be in the cache when it writes its last one.
        computed: tokens whose keys and values are in the cache.
        priority: 0 to 1; higher goes first.
        beams: sequences that it generates at once.
        keys: of the full blocks of its context that earlier requests may have left in the cache.
    """

    id: int
    context: int
    last: int
    computed: int = 0
    priority: float = 0.5
    beams: int = 1
    keys: Sequence[Key] = ()

    @property
    def generating(self) -> bool:
        """Whether its whole context is in the cache."""
        return self.computed >= self.context

    @property
    def rank(self) -> tuple[float, int]:
        """The order in which requests are served: by priority, then first come, first served."""
        return -self.priority, self.id


@dataclass(frozen=True)
class Chunk:
    """A piece of a request's context: the tokens at the positions ``start`` to ``start + length - 1``."""

    job: int
    start: int
    length: int


@dataclass(frozen=True)
class Step:
    """The plan of one iteration, in request ids.

    Args:
        paused: give back their blocks and wait again.
        admitted: leave the queue and take a slot. Each has its first chunk in ``context``.
        context: what runs of prompts.
        generation: who generates a token.
    """

    paused: tuple[int, ...] = ()
    admitted: tuple[int, ...] = ()
    context: tuple[Chunk, ...] = ()
    generation: tuple[int, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether nothing runs."""
        return not self.context and not self.generation


def schedule(
    waiting: Sequence[Job],
    running: Sequence[Job],
    blocks: BlockManager,
    limits: Limits,
    policy: CapacitySchedulerPolicy,
    *,
    chunked: bool = True,
) -> Step:
    """Plan the next iteration. Nothing is changed: the executor carries the plan out.

    Args:
        waiting: requests without a slot, new or paused.
        running: requests with a slot.
        blocks: the KV cache, which is only asked.
        limits: of these, max_batch_size and max_num_tokens.
        policy: how far to look ahead.
        chunked: whether a context may be run in pieces.
    """
    needs = partial(blocks_needed, blocks=blocks, policy=policy)

    # 1. Memory: the last in rank pause until the others have room. Beams share blocks that cannot be computed again one
    #    by one, so a request with beams is never paused; blocks_needed keeps room for its last token.
    staying = sorted(running, key=lambda job: job.rank)
    paused: list[int] = []
    demand = sum(needs(job) - blocks.held(job.id) for job in staying)
    while demand > (free := blocks.available + blocks.freed_by(paused)):
        victim = next(job for job in reversed(staying) if job.beams == 1)
        staying.remove(victim)
        paused.append(victim.id)
        demand -= needs(victim) - blocks.held(victim.id)
    free -= demand

    # 2. Tokens: one for each beam that generates ...
    left = limits.max_num_tokens
    generation = []
    for job in staying:
        if job.generating and job.beams <= left:
            generation.append(job.id)
            left -= job.beams

    # 3. ... then prompts that have begun ...
    context = []
    size = _chunk_sizes(limits.max_num_tokens, blocks.tokens_per_block, chunked)
    for job in staying:
        if not job.generating and (length := size(job.context - job.computed, left)):
            context.append(Chunk(job.id, job.computed, length))
            left -= length

    # 4. ... then those who wait, in order: nobody overtakes. Who has just made room by pausing lets nobody in.
    admitted: list[int] = []
    for job in [] if paused else sorted(waiting, key=lambda job: job.rank):
        found = blocks.match(job.keys)
        start = len(found) * blocks.tokens_per_block
        fresh = needs(job) - sum(map(blocks.in_use, found))  # a block in use costs nothing; a cached one is given away
        length = size(job.context - start, left)
        if len(staying) + len(admitted) == limits.max_batch_size or fresh > free or not length:
            break
        admitted.append(job.id)
        context.append(Chunk(job.id, start, length))
        free, left = free - fresh, left - length

    return Step(tuple(paused), tuple(admitted), tuple(context), tuple(generation))


def blocks_needed(job: Job, blocks: BlockManager, policy: CapacitySchedulerPolicy) -> int:
    """Blocks that a request must be able to hold, as far ahead as the policy looks."""
    if job.beams > 1:  # full blocks of the prompt are shared, all others may have to be there once a beam
        shared = job.context // blocks.tokens_per_block
        return shared + job.beams * (blocks.blocks_for(job.last) - shared)
    if policy is CapacitySchedulerPolicy.GUARANTEED_NO_EVICT:
        return blocks.blocks_for(job.last)
    return blocks.blocks_for(min(max(job.context, job.computed) + 1, job.last))


def _chunk_sizes(budget: int, tokens_per_block: int, chunked: bool) -> Callable[[int, int], int]:
    """(tokens of context to run, tokens left in this iteration) -> tokens to run now; 0 means wait."""

    def size(wanted: int, left: int) -> int:
        if wanted <= left:
            return wanted
        # After a pause a context can be longer than the prompt that was let in: it may be cut even without chunking.
        return left // tokens_per_block * tokens_per_block if chunked or wanted > budget else 0

    return size
