"""Our engine in this process as a target: what a server would serve, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from labsupport.benchmark.target import Answered, Arrival, now
from labsupport.benchmark.timeline import Chunk
from labsupport.benchmark.workload import Job
from labsupport.engine.executor import Executor
from labsupport.engine.limits import ExecutorConfig, Limits
from labsupport.engine.protocol import Model
from labsupport.engine.requests import Request
from labsupport.errors import LabError, RequestError

WAITING = 256  # requests in flight at most: each has a thread that waits for its tokens


class EngineTarget:
    """The executor of an engine.

    Args:
        model: an engine folder, or a model that is loaded.
        limits: those that the engine was built with where missing.
        end_ids: what ends an answer; with none of them answers have the length that was asked for.
        config: of the executor.
    """

    own_process = False

    def __init__(
        self, model: Model | Path, limits: Limits | None = None, *, end_ids: Sequence[int] = (), title: str = "",
        config: ExecutorConfig | None = None,
    ) -> None:  # fmt: skip
        from labsupport.engine.runner import Runner

        runner = Runner(model, limits)  # reads the limits off the engine
        self._model, self._limits = runner.model, runner.limits
        self._ends, self._config = tuple(end_ids), config
        self.title = title or "our engine, in process"

    async def __aenter__(self) -> EngineTarget:
        self._executor = Executor(self._model, self._limits, self._config)
        self._pool = ThreadPoolExecutor(WAITING, thread_name_prefix="request")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._executor.shutdown)
        self._pool.shutdown()

    async def prepare(self, job: Job) -> Any:
        """A request of the executor."""
        return Request(job.ids, job.new, end_ids=self._ends, streaming=True)

    async def send(self, request: Any) -> list[Arrival]:
        """Hand it in, and wait in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, request)

    def _run(self, request: Request) -> list[Arrival]:
        try:
            number = self._executor.enqueue_request(request)
            return [Arrival(now(), response.result_or_raise()) for response in self._executor.stream(number)]
        except LabError as problem:
            raise RequestError(problem.what, why=problem.why, fix=problem.fix) from None

    def read(self, arrivals: Sequence[Arrival]) -> Answered:
        """Token ids, as the engine gave them."""
        pieces = [(one.at, one.data.output_token_ids[0]) for one in arrivals]
        chunks = tuple(Chunk(at, len(ids)) for at, ids in pieces if ids)
        return Answered(chunks, ids=tuple(id for _, ids in pieces for id in ids))
