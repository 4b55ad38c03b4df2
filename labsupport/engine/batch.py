"""The loop of in-flight batching: schedule, run, postprocess. One thread owns it; the executor stands around it."""

from __future__ import annotations

import time
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from labsupport.engine.blocks import BlockManager
from labsupport.engine.limits import BatchingType, ExecutorConfig, Limits
from labsupport.engine.protocol import Logits, Model
from labsupport.engine.requests import Response
from labsupport.engine.scheduler import Chunk, Step, schedule
from labsupport.engine.sequences import Active
from labsupport.engine.statistics import IterationStats, SlotWork, Work
from labsupport.errors import EngineError, LabError


class Batch:
    """The requests that wait, those that run, and the KV cache between them.

    Args:
        model: what runs tokens.
        limits, config: how much at once.
        respond: takes each response as soon as it is there.
    """

    def __init__(
        self, model: Model, limits: Limits, config: ExecutorConfig, respond: Callable[[Response], None]
    ) -> None:
        self.model, self.limits, self.config, self.respond = model, limits, config, respond
        blocks = config.pool_blocks(limits, model.tokens_per_block)
        self.blocks, self.cache = BlockManager(blocks, model.tokens_per_block), model.new_cache(blocks)
        self.waiting: list[Active] = []  # in the order of their rank
        self.running: dict[int, Active] = {}
        self.iterations = 0
        self._open: Counter[int] = Counter()  # sequences that a request still has to finish
        self._model_seconds = 0.0

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.waiting or self.running)

    def add(self, sequences: Iterable[Active]) -> None:
        """Sequences of a new request, to wait for a slot."""
        for active in sequences:
            self._open[active.request_id] += 1
            insort(self.waiting, active, key=lambda job: job.rank)

    def cancel(self, request_id: int) -> None:
        """End a request; what it has written is its result. One that is over already is left alone."""
        for active in self._of(request_id):
            active.cancelled = active.finished = True
            self._finish(active)

    # -- one iteration

    def step(self) -> IterationStats | None:
        """Schedule, run, postprocess -> what was done; None if there is nothing to do.

        A failure of the model ends the requests that were running, each with an error; those that wait go on.
        """
        if not self.busy:
            return None
        began, queued, self._model_seconds = time.perf_counter(), len(self.waiting), 0.0
        plan, active = Step(), {}
        try:
            plan = self._schedule()
            if plan.idle:
                raise AssertionError("the scheduler lets nobody run")
            self._prepare(plan)
            active = dict(self.running)
            logits = self._run(plan)
            self._postprocess(plan, logits)
        except Exception as problem:  # whatever a model throws: the executor goes on
            self._fail(active or self.running or {job.id: job for job in self.waiting[:1]}, problem)
        return self._statistics(plan, active, queued, time.perf_counter() - began)

    def _schedule(self) -> Step:
        static = self.config.batching_type is BatchingType.STATIC
        return schedule(
            [] if static and self.running else self.waiting,
            list(self.running.values()),
            self.blocks,
            self.limits,
            self.config.capacity_scheduler_policy,
            chunked=self.config.enable_chunked_context,
        )

    def _prepare(self, plan: Step) -> None:
        """Slots and blocks, as planned: first those given back, then those taken over, then new ones."""
        for id in plan.paused:
            active = self.running.pop(id)
            self.blocks.release(id)
            active.wait()
            active.metrics = replace(active.metrics, paused=active.metrics.paused + 1)
            insort(self.waiting, active, key=lambda job: job.rank)
        for id in plan.admitted:
            self._admit(next(active for active in self.waiting if active.id == id))
        for id in plan.admitted:
            self._grow(self.running[id], self.running[id].context)
        pairs: list[tuple[int, int]] = []
        for id in plan.generation:
            active = self.running[id]
            self._grow(active, active.computed + 1)
            pairs += self.blocks.part(id, active.computed) if active.beams > 1 else []
        if pairs:
            with self._model_time():
                self.model.copy_blocks(self.cache, pairs)

    def _admit(self, active: Active) -> None:
        self.waiting.remove(active)
        self.running[active.id] = active
        taken = {other.slot for other in self.running.values()}
        active.slot = next(slot for slot in range(self.limits.max_batch_size) if slot not in taken)
        active.computed = self.blocks.add(active.id, active.keys)
        metrics = active.metrics
        active.metrics = replace(
            metrics,
            first_scheduled_time_ns=metrics.first_scheduled_time_ns or time.monotonic_ns(),
            kv_cache_reused_blocks=metrics.kv_cache_reused_blocks + len(self.blocks.tables(active.id)[0]),
        )

    def _grow(self, active: Active, tokens: int) -> None:
        if taken := self.blocks.grow(active.id, tokens):
            new = active.metrics.kv_cache_alloc_new_blocks + taken
            active.metrics = replace(active.metrics, kv_cache_alloc_new_blocks=new)

    def _run(self, plan: Step) -> dict[int, Logits]:
        """Run the planned tokens -> for each request whose next token is due, its logits [beams, V]."""
        due: dict[int, Logits] = {}
        with self._model_time():
            if plan.generation:
                due.update(self._generate([self.running[id] for id in plan.generation]))
            for chunk in plan.context:
                due.update(self._run_context(chunk))
        return due

    def _generate(self, jobs: list[Active]) -> Iterator[tuple[int, Logits]]:
        rows = [job.rows() for job in jobs]
        logits = self.model.generation(
            self.cache,
            [token for tokens in rows for token in tokens],
            [job.computed for job, tokens in zip(jobs, rows, strict=True) for _ in tokens],
            [table for job in jobs for table in self.blocks.tables(job.id)],
        )
        first = 0
        for job, tokens in zip(jobs, rows, strict=True):
            yield job.id, logits[first : first + len(tokens)]
            first += len(tokens)
            job.computed += 1

    def _run_context(self, chunk: Chunk) -> Iterator[tuple[int, Logits]]:
        job, end = self.running[chunk.job], chunk.start + chunk.length
        tokens, table = job.cached_tokens[chunk.start : end], self.blocks.tables(job.id)[0]
        every = job.wants_prompt_logits
        logits = self.model.context(self.cache, tokens, chunk.start, table, every=every)
        if every:
            job.keep_prompt_logits(chunk.start, logits[: len(job.prompt) - chunk.start])
        job.computed = end
        if job.generating:
            yield job.id, logits[-1:] if every else logits[None]

    def _postprocess(self, plan: Step, logits: dict[int, Logits]) -> None:
        """What was computed may be reused; tokens are chosen; who is done leaves."""
        for id in (*plan.generation, *(chunk.job for chunk in plan.context)):
            active = self.running.get(id)
            if active is None:  # it failed, with a sibling
                continue
            if active.beams == 1 or id not in plan.generation:  # beams that generate have no chain of their own
                self.blocks.seal(id, active.chain(active.computed))
            if id in logits:
                try:
                    parents = active.accept(_numbers(logits[id]))
                except LabError as problem:  # of this request alone: its settings leave no token
                    self._fail({id: active}, problem)
                    continue
                if active.beams > 1 and not active.finished:
                    self.blocks.rearrange(id, parents)
                if active.finished:
                    self._finish(active)
                elif active.request.streaming:
                    self.respond(Response(active.request_id, active.result(is_final=False)))

    # -- ends

    def _of(self, request_id: int) -> list[Active]:
        return [active for active in (*self.waiting, *self.running.values()) if active.request_id == request_id]

    def _finish(self, active: Active) -> None:
        self._leave(active)
        self._open[active.request_id] -= 1
        is_final = self._open[active.request_id] == 0
        if is_final:
            del self._open[active.request_id]
        self.respond(Response(active.request_id, active.result(is_final=is_final)))

    def _fail(self, failed: dict[int, Active], problem: Exception) -> None:
        for request_id in sorted({active.request_id for active in failed.values()}):
            for active in self._of(request_id):
                self._leave(active)
            if self._open.pop(request_id, 0):
                self.respond(Response(request_id, error=_failure(request_id, problem)))

    def _leave(self, active: Active) -> None:
        if self.running.pop(active.id, None) is None:
            self.waiting.remove(active)
        else:
            self.blocks.release(active.id)

    # -- records

    @contextmanager
    def _model_time(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self._model_seconds += time.perf_counter() - began

    def _statistics(self, plan: Step, active: dict[int, Active], queued: int, seconds: float) -> IterationStats:
        chunks = {chunk.job: chunk for chunk in plan.context}
        slots = []
        for job in active.values():
            work: Work = "generation" if job.id in plan.generation else "context" if job.id in chunks else "waiting"
            start, tokens = {
                "generation": (job.computed - 1, job.beams),
                "context": (chunks[job.id].start, chunks[job.id].length) if job.id in chunks else (0, 0),
                "waiting": (job.computed, 0),
            }[work]
            slots.append(SlotWork(job.slot, job.request_id, job.index, work, start, tokens, job.finished))
        self.iterations += 1
        return IterationStats(
            iter=self.iterations - 1,
            iter_latency_ms=1e3 * seconds,
            model_latency_ms=1e3 * self._model_seconds,
            num_queued_requests=queued,
            num_active_requests=len(active),
            paused=tuple(sorted({job.request_id for job in self.waiting if job.id in plan.paused})),
            used_num_blocks=self.blocks.usable - self.blocks.available,
            free_num_blocks=self.blocks.available,
            slots=tuple(sorted(slots, key=lambda slot: slot.slot)),
        )


def _numbers(logits: Logits) -> Logits:
    if np.isnan(logits.max()):
        raise EngineError(
            "the model's logits are not a number",
            why="weights or activations overflowed, or a weight file is damaged",
            fix="labs verify CHECKPOINT runs the checkpoint against the original model",
        )
    return logits


def _failure(request_id: int, problem: Exception) -> EngineError:
    if isinstance(problem, LabError):
        what, why, fix = problem.what, problem.why, problem.fix
    else:
        what, why = f"{type(problem).__name__}: {problem}", "the model failed while it ran this request"
        fix = "send it again; the executor goes on. If it fails again, run the engine on this request alone"
    return EngineError(
        f"Executor failed process requestId {request_id} due to the following error: {what}", why=why, fix=fix
    )
