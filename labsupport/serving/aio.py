"""The same for asyncio, over gRPC: one thread, any number of answers at once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

from labsupport.serving.address import Address
from labsupport.serving.answer import Answer, Chunk, Growing
from labsupport.serving.client import BLS, CHANNEL, config_of, grpc_problem, resolve
from labsupport.serving.sampling import Prompt, Sampling, tensors_of
from labsupport.serving.wire import Model, from_grpc, to_grpc


class AsyncStream(AsyncIterator[Chunk]):
    """The chunks of one answer, as they arrive; a task that is cancelled while it waits cancels the request."""

    def __init__(self, call: Any, address: Address, sent: float, *, grows: bool) -> None:
        self._call, self._address, self._sent = call, address, sent
        self._growing = Growing() if grows else None
        self._kept: list[Chunk] = []
        self._ended: float | None = None
        self._cancelled = False

    async def __anext__(self) -> Chunk:
        import grpc

        while self._ended is None:
            try:
                response = await self._call.read()
            except grpc.RpcError as problem:
                raise self._end(grpc_problem(problem, self._address)) from None
            except BaseException as problem:  # CancelledError: of this task, or after cancel()
                self._call.cancel()
                raise self._end(problem) from None
            if response is grpc.aio.EOF:
                code = await self._call.code()
                if code != grpc.StatusCode.OK and not self._cancelled:
                    raise self._end(grpc_problem(_Status(code, await self._call.details()), self._address))
                break
            try:
                chunk = from_grpc(response, time.perf_counter())
            except BaseException as problem:
                self._call.cancel()
                raise self._end(problem) from None
            if chunk is None:
                continue
            if self._growing:
                chunk = Chunk(self._growing.new(chunk.texts), chunk.at, chunk.tensors, chunk.sequence)
            self._kept.append(chunk)
            return chunk
        raise self._end(StopAsyncIteration())

    def cancel(self) -> None:
        """Ask the server to stop; the loop over the chunks ends."""
        if self._ended is None:
            self._cancelled = True
            self._call.cancel()

    async def answer(self) -> Answer:
        """The answer so far, after fetching what is still to come."""
        async for _ in self:
            pass
        return Answer(tuple(self._kept), self._sent, self._ended or self._sent, self._cancelled)

    def _end(self, problem: BaseException) -> BaseException:
        self._ended = self._ended or time.perf_counter()
        return StopAsyncIteration() if self._cancelled else problem


class _Status:
    def __init__(self, code: Any, details: str) -> None:
        self.code, self.details = lambda: code, lambda: details


class AsyncClient:
    """Asks a server from a coroutine. Arguments, answers and errors are those of :class:`Client` over gRPC.

    Example:
        >>> async with AsyncClient("127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     async for chunk in await client.stream("Hello"):
        ...         print(chunk.text, end="")
    """

    def __init__(self, address: Address | str | None = None, *, model: str = BLS, timeout: float = 120.0) -> None:
        self.address, self.model, self.timeout = resolve(address), model, timeout
        self._models: dict[str, Model] = {}
        self._channel: Any = None
        self._stub: Any = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection."""
        if self._channel:
            await self._channel.close()
            self._channel = None

    async def generate(self, prompt: Prompt, sampling: Sampling | None = None, *, model: str | None = None) -> Answer:
        """Ask, and wait for the whole answer in one response."""
        return await (await self._ask(prompt, sampling, model, stream=False)).answer()

    async def stream(
        self, prompt: Prompt, sampling: Sampling | None = None, *, model: str | None = None
    ) -> AsyncStream:
        """Ask, and get the answer in chunks as it is written."""
        return await self._ask(prompt, sampling, model, stream=True)

    async def about(self, model: str | None = None) -> Model:
        """The inputs of a model, asked once."""
        import grpc
        from tritonclient.grpc import service_pb2

        name = model or self.model
        if name not in self._models:
            try:
                request = service_pb2.ModelConfigRequest(name=name)
                reply = await self._connected().ModelConfig(request, timeout=self.timeout)
            except grpc.RpcError as problem:
                raise grpc_problem(problem, self.address) from None
            self._models[name] = Model.of(config_of(reply))
        return self._models[name]

    async def _ask(self, prompt: Prompt, sampling: Sampling | None, model: str | None, *, stream: bool) -> AsyncStream:
        about = await self.about(model)
        request = to_grpc(about, tensors_of(prompt, sampling or Sampling(), stream=stream))
        sent = time.perf_counter()
        call = self._connected().ModelStreamInfer(iter([request]), timeout=self.timeout)
        return AsyncStream(call, self.address, sent, grows=about.grows)

    def _connected(self) -> Any:
        """The stub; a channel belongs to the event loop in which it was opened."""
        import grpc
        from tritonclient.grpc import service_pb2_grpc

        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address.grpc, options=CHANNEL)
            self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._stub
