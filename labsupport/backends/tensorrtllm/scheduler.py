"""In-flight batching behind ``execute``: one thread runs the batch, one sends what it wrote, one looks after clients.

``execute`` hands prompts in and returns at once. If the batch's thread ever dies, every request that waits is answered
with an error, and so is every later one: nobody hangs.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from labsupport.backends.tensorrtllm.inputs import Prompt
from labsupport.backends.tensorrtllm.replies import Reply
from labsupport.engine.executor import Executor, died
from labsupport.engine.requests import Response, Result
from labsupport.engine.statistics import IterationStats
from labsupport.errors import ParameterError

RELOAD = "reload the model"
REST_S = 1.0  # a sender that was asked for cancellation stays in memory so long; Triton 2.51 answers it late


@dataclass(frozen=True)
class Open:
    """An executor request that is not answered in full."""

    prompt: Prompt
    reply: Reply
    name: str


class Scheduler:
    """Runs the executor for Triton.

    Args:
        executor: made with ``threaded=False``; nobody else steps it.
        render: makes a response out of a result and sends it.
        log_error: takes a line for the server's log.
        cancellation_check_period_ms: milliseconds between two looks at whether clients are still there.
        max_queue_size: sequences that may wait for a slot; 0 is without limit.
    """

    def __init__(
        self,
        executor: Executor,
        render: Callable[[Result, Open], None],
        log_error: Callable[[str], object],
        *,
        cancellation_check_period_ms: int = 100,
        max_queue_size: int = 0,
    ) -> None:
        self.executor, self._render, self._log_error = executor, render, log_error
        self._period, self._max_queue_size = max(cancellation_check_period_ms, 1) / 1000, max_queue_size
        self._changed = threading.Condition()  # guards everything below
        self._open: dict[int, Open] = {}
        self._numbers: defaultdict[str, set[int]] = defaultdict(set)  # by the id that the client gave
        self._running = 0  # sequences in a slot after the last iteration
        self._closing = False
        self._dead: str | None = None
        self._outbox: queue.SimpleQueue[tuple[Open, Response] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name=f"tensorrtllm-{work.__name__.strip('_')}", daemon=True)
            for work in (self._batch, self._send, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, name: str, prompts: Sequence[Prompt], reply: Reply) -> None:
        """Hand in the prompts of a Triton request; if the engine cannot serve one of them, the reply is an error.

        Args:
            name: the client's id of the request, or empty.

        Raises:
            ParameterError: too many wait already.
            EngineError: the batch's thread is dead.
        """
        with self._changed:
            if self._dead is not None:
                raise died(self._dead, RELOAD)
            self._require_place(sum(prompt.request.num_return_sequences for prompt in prompts))
            numbers: list[int] = []
            try:
                numbers += (self.executor.enqueue_request(prompt.request) for prompt in prompts)
            except ParameterError as problem:
                reply.fail(str(problem))  # after which what those before the refused one still write goes nowhere
                for number in numbers:
                    self.executor.cancel_request(number)
            for number, prompt in zip(numbers, prompts, strict=False):
                self._open[number] = Open(prompt, reply, name)
                if name:
                    self._numbers[name].add(number)
            self._changed.notify_all()

    def stop(self, name: str) -> None:
        """Cancel the requests of that name; one that is over, or never was, is left alone."""
        with self._changed:
            for number in self._numbers.get(name, ()):
                self.executor.cancel_request(number)
            self._changed.notify_all()

    def state(self) -> tuple[int, int, IterationStats | None]:
        """Requests that are open, sequences in a slot, and the last iteration since the last call, if there was one."""
        stats = self.executor.get_latest_iteration_stats()
        with self._changed:
            return len(self._open), self._running, stats[-1] if stats else None

    def close(self) -> None:
        """Cancel what runs, answer everybody, and end the threads."""
        with self._changed:
            self._closing = True
            self._dead = self._dead or "the model is being unloaded"
            for number in self._open:
                self.executor.cancel_request(number)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(10)

    # -- threads

    def _batch(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._open or self._closing)
                    if self._closing and not self._open:
                        break
                stats = self.executor.step()
                self._collect(stats)
        except BaseException as problem:
            self._die(f"{type(problem).__name__}: {problem}")
        self._outbox.put(None)

    def _collect(self, stats: IterationStats | None) -> None:
        with self._changed:
            for number, one in list(self._open.items()):
                for response in self.executor.await_responses(number, timeout=0):
                    if response.is_final:
                        self._forget(number, one)
                    self._outbox.put((one, response))
            self._running = sum(not slot.finished for slot in stats.slots) if stats and self._open else 0

    def _forget(self, number: int, one: Open) -> None:
        del self._open[number]
        if one.name:
            self._numbers[one.name].discard(number)
            if not self._numbers[one.name]:
                del self._numbers[one.name]

    def _die(self, why: str) -> None:
        with self._changed:
            self._dead = why
            left = list(self._open.values())
            self._open.clear()
            self._numbers.clear()
        self._log_error(f"the batch's thread died: {why}")
        for one in left:
            self._answer(one, Response(0, error=died(why, RELOAD)))

    def _send(self) -> None:
        while (item := self._outbox.get()) is not None:
            self._answer(*item)

    def _answer(self, one: Open, response: Response) -> None:
        try:
            if response.result is None:
                one.reply.send({}, str(response.error), ends=True)
            else:
                self._render(response.result, one)
        except Exception as problem:
            said = f"Error encountered while populating response: {type(problem).__name__}: {problem}"
            self._log_error(said)
            with suppress(Exception):  # where the client is out of reach, nobody waits for it
                one.reply.fail(said)

    def _watch(self) -> None:
        resting: deque[tuple[float, list[tuple[int, Open]]]] = deque()
        while not self._closing:
            time.sleep(self._period)
            with self._changed:
                asked = list(self._open.items())
            for number, one in asked:
                if self._is_gone(one.reply):
                    self.executor.cancel_request(number)
            resting.append((time.monotonic(), asked))
            while resting[0][0] < time.monotonic() - REST_S:
                resting.popleft()

    def _is_gone(self, reply: Reply) -> bool:
        try:
            return reply.is_cancelled()
        except Exception as problem:
            self._log_error(f"a request could not be asked for cancellation: {problem}")
            return False

    # -- refusals

    def _require_place(self, sequences: int) -> None:
        waiting = sum(one.prompt.request.num_return_sequences for one in self._open.values()) - self._running
        if self._max_queue_size and waiting + sequences > self._max_queue_size:
            raise ParameterError(
                f"Maximum queue size of {self._max_queue_size} has been reached, please try again later",
                why=f"{waiting} sequence(s) wait for a slot",
                fix="wait, or raise max_queue_size in dynamic_batching { default_queue_policy }",
            )
