"""The executor: requests come in from any thread, one thread runs the batch, responses go out.

Named as in ``tensorrt_llm.bindings.executor``: ``enqueue_request``, ``await_responses``, ``cancel_request``,
``get_latest_iteration_stats``, ``shutdown``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import TracebackType

from labsupport.engine.admission import admit
from labsupport.engine.batch import Batch
from labsupport.engine.blocks import BlockManager
from labsupport.engine.limits import CapacitySchedulerPolicy, ExecutorConfig, Limits
from labsupport.engine.protocol import Model
from labsupport.engine.requests import Request, Response
from labsupport.engine.scheduler import blocks_needed
from labsupport.engine.sequences import Active, Beams, Sampled
from labsupport.engine.statistics import IterationStats
from labsupport.errors import EngineError, ParameterError


class Executor:
    """Serves requests with in-flight batching.

    Args:
        model: what runs tokens.
        limits: of the engine.
        config: policies, the KV cache, and how much is remembered.
        threaded: run the loop in a thread of its own. Without it nothing happens but in ``step``; who waits for a
            response then runs the steps.

    Raises:
        ParameterError: limits and model contradict each other.

    Example::

        with Executor(model, Limits(max_batch_size=8)) as executor:
            number = executor.enqueue_request(Request([1, 2, 3], max_tokens=16))
            [response] = executor.await_responses(number)
    """

    def __init__(
        self, model: Model, limits: Limits | None = None, config: ExecutorConfig | None = None, *, threaded: bool = True
    ) -> None:
        self.limits, self.config = limits or Limits(), config or ExecutorConfig()
        self.vocab_size = model.vocab_size
        if (rows := self.limits.max_batch_size * self.limits.max_beam_width) > model.max_rows:
            raise ParameterError(
                f"{self.limits.max_batch_size} requests of {self.limits.max_beam_width} beam(s) are {rows} rows",
                why=f"one generation call of this model takes {model.max_rows}",
                fix="use a smaller max_batch_size, or build for a larger one",
            )
        self._size = model.tokens_per_block if self.config.kv_cache_config.enable_block_reuse else 0
        self._lock = threading.Lock()  # guards everything below
        self._work = threading.Condition(self._lock)  # the loop waits for it
        self._incoming: deque[list[Active]] = deque()
        self._to_cancel: deque[int] = deque()
        self._boxes: dict[int, _Box] = {}  # of every request that is not answered in full
        # no method of this object: the two would hold each other, and the cache would outlive both
        self._batch = Batch(model, self.limits, self.config, partial(_post, self._lock, self._boxes))
        self._requests = self._sequences = 0
        self._stats: deque[IterationStats] = deque(maxlen=self.config.iter_stats_max_iterations)
        self._closed = False
        self._dead: str | None = None  # why the loop's thread ended before its time
        self._thread = threading.Thread(target=self._loop, name="executor", daemon=True) if threaded else None
        if self._thread:
            self._thread.start()

    # -- clients, from any thread

    def enqueue_request(self, request: Request) -> int:
        """Hand in a request -> the number to wait for and to cancel by.

        Raises:
            ParameterError: the engine cannot serve it, whoever else is there.
            EngineError: the executor is shut down.
        """
        request = admit(request, self.limits, self.vocab_size)
        kind = Sampled if request.beam_width == 1 else Beams
        count = request.num_return_sequences if kind is Sampled else 1
        with self._lock:
            self._require_open()
            number, first = self._requests + 1, self._sequences
            sequences: list[Active] = [kind(request, first + i, number, i, self._size) for i in range(count)]
            self._require_room(sequences[0])
            self._requests, self._sequences = number, first + count
            self._boxes[number] = _Box(self._lock)
            self._incoming.append(sequences)
            self._work.notify()
        return number

    def await_responses(self, request_id: int, timeout: float | None = None) -> list[Response]:
        """Wait for a request's next responses, in their order; [] when ``timeout`` seconds are over.

        Raises:
            ParameterError: no such request, or it is answered in full already.
            EngineError: the executor's thread died; nothing comes any more.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not (responses := self._collect(request_id)):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return []
            if self._thread is None:
                self._iterate()
            else:
                with self._lock:
                    self._require_alive()
                    if box := self._boxes.get(request_id):
                        box.changed.wait_for(partial(self._stirs, box), left)
        return responses

    def stream(self, request_id: int) -> Iterator[Response]:
        """The responses of a request as they come; the last one is final."""
        while True:
            responses = self.await_responses(request_id)
            yield from responses
            if responses[-1].is_final:
                return

    def cancel_request(self, request_id: int) -> None:
        """End a request; its last response holds what it has written. Doing it twice, or too late, does no harm.

        Raises:
            ParameterError: no such request.
        """
        with self._lock:
            if not 1 <= request_id <= self._requests:
                raise self._unknown(request_id)
            self._to_cancel.append(request_id)
            self._work.notify()

    def get_latest_iteration_stats(self) -> list[IterationStats]:
        """The iterations since the last call, at most ``iter_stats_max_iterations`` of them."""
        with self._lock:
            stats = list(self._stats)
            self._stats.clear()
        return stats

    def shutdown(self) -> None:
        """Take no more requests, cancel those in flight and end the thread. Responses can still be fetched."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._to_cancel.extend(self._boxes)
            self._work.notify()
        if self._thread:
            self._thread.join()
        else:
            self._take_in()

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    # -- the loop

    def step(self) -> IterationStats | None:
        """One iteration by hand -> what it did; None when there is nothing to do.

        Raises:
            EngineError: the executor has a thread of its own.
        """
        if self._thread is not None:
            raise EngineError(
                "this executor steps by itself",
                why="it was made with a thread, and two that step would race",
                fix="make it with threaded=False",
            )
        return self._iterate()

    @property
    def blocks(self) -> BlockManager:
        """The KV cache's blocks, to look at between steps."""
        return self._batch.blocks

    def _iterate(self) -> IterationStats | None:
        self._take_in()
        stats = self._batch.step()
        if stats is not None:
            with self._lock:
                self._stats.append(stats)
        return stats

    def _take_in(self) -> None:
        with self._lock:
            incoming, to_cancel = list(self._incoming), list(self._to_cancel)
            self._incoming.clear()
            self._to_cancel.clear()
        for sequences in incoming:
            self._batch.add(sequences)
        for request_id in to_cancel:
            self._batch.cancel(request_id)

    def _loop(self) -> None:
        try:
            while self._wait_for_work():
                self._iterate()
        except BaseException as problem:  # whatever it was, those who wait must hear of it
            with self._lock:
                self._dead = f"{type(problem).__name__}: {problem}"
                for box in self._boxes.values():
                    box.changed.notify_all()

    def _wait_for_work(self) -> bool:
        with self._lock:
            self._work.wait_for(lambda: self._incoming or self._to_cancel or self._batch.busy or self._closed)
            return bool(self._incoming or self._to_cancel or self._batch.busy)

    def _stirs(self, box: _Box) -> bool:
        return bool(box.responses or box.closed or self._dead)

    def _collect(self, request_id: int) -> list[Response]:
        with self._lock:
            if request_id not in self._boxes:
                raise self._unknown(request_id)
            box = self._boxes[request_id]
            responses = list(box.responses)
            box.responses.clear()
            if responses and responses[-1].is_final:
                del self._boxes[request_id]
                box.closed = True
                box.changed.notify_all()
        return responses

    # -- refusals

    def _unknown(self, request_id: int) -> ParameterError:
        return ParameterError(
            f"no request {request_id} is open",
            why=f"{self._requests} requests were handed in, and one that is answered in full is forgotten",
            fix="use the number that enqueue_request returned",
        )

    def _require_alive(self) -> None:
        if self._dead is not None:
            raise died(self._dead, fix="make a new one")

    def _require_open(self) -> None:
        self._require_alive()
        if self._closed:
            raise EngineError("the executor is shut down", why="it takes no more requests", fix="make a new one")

    def _require_room(self, active: Active) -> None:
        blocks = self._batch.blocks
        needed = blocks_needed(active, blocks, CapacitySchedulerPolicy.GUARANTEED_NO_EVICT)
        if needed > blocks.usable:
            raise ParameterError(
                f"the request needs {needed} blocks of KV cache, and the pool has {blocks.usable}",
                why=f"a block holds {blocks.tokens_per_block} tokens; even alone it would never fit",
                fix="ask for fewer tokens or beams, or make the pool larger: kv_cache_config.max_tokens",
            )
        if not self.config.enable_chunked_context and active.context > self.limits.max_num_tokens:
            raise ParameterError(
                f"the prompt has {active.context} tokens, and one iteration runs {self.limits.max_num_tokens}",
                why="without chunked context a prompt runs in one iteration, and max_num_tokens limits that",
                fix="turn enable_chunked_context on, or build with a larger --max_num_tokens",
            )


def died(why: str, fix: str) -> EngineError:
    """The error for all who wait for a loop that ended before its time, and for who comes later."""
    return EngineError(f"the executor died: {why}", why="its thread met an error that is not one request's", fix=fix)


class _Box:
    """What came for one request. Whoever waits for it is woken for it, and not for what came for others.

    Args:
        lock: of the executor.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self.responses: deque[Response] = deque()
        self.changed = threading.Condition(lock)
        self.closed = False  # answered in full, and fetched


def _post(lock: threading.Lock, boxes: dict[int, _Box], response: Response) -> None:
    with lock:
        box = boxes[response.request_id]
        box.responses.append(response)
        box.changed.notify_all()
