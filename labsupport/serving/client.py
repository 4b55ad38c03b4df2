"""A client that blocks: answers whole or in chunks, over gRPC or HTTP."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal

from labsupport.errors import ParameterError, ServerError
from labsupport.serving.address import Address
from labsupport.serving.answer import Answer, Chunk, Growing
from labsupport.serving.sampling import Prompt, Sampling, tensors_of
from labsupport.serving.wire import Model, from_grpc, from_http, refused, to_grpc, to_http, unreachable

BLS = "tensorrt_llm_bls"
CHANNEL = (  # logits may be large, and no proxy stands before a server of one's own
    ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0),
)  # fmt: skip


class Stream(Iterator[Chunk]):
    """The chunks of one answer, as they arrive; leaving its block early cancels the request.

    Reading begins when the first chunk is fetched, so whoever measures fetches without delay. Over gRPC the time of a
    chunk is then that of its arrival, however late it is fetched; over HTTP that of the fetch.
    """

    def __init__(self, chunks: Iterator[Chunk], cancel: Callable[[], object], sent: float, *, grows: bool) -> None:
        self._chunks, self._cancel, self._sent = chunks, cancel, sent
        self._growing = Growing() if grows else None
        self._kept: list[Chunk] = []
        self._ended: float | None = None
        self._cancelled = False

    def __next__(self) -> Chunk:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._ended = self._ended or time.perf_counter()
            raise
        except ServerError:
            self._ended = time.perf_counter()
            if self._cancelled:
                raise StopIteration from None
            raise
        if self._growing:
            chunk = Chunk(self._growing.new(chunk.texts), chunk.at, chunk.tensors, chunk.sequence)
        self._kept.append(chunk)
        return chunk

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended is None:
            self.cancel()

    def cancel(self) -> None:
        """Ask the server to stop; the loop over the chunks ends. Any thread may call it."""
        if self._ended is None:
            self._cancelled = True
            self._cancel()

    def answer(self) -> Answer:
        """The answer so far, after fetching what is still to come."""
        for _ in self:
            pass
        return Answer(tuple(self._kept), self._sent, self._ended or self._sent, self._cancelled)


class Client:
    """Asks a server.

    Args:
        address: the server's; ``TRITON_URL`` where missing, else port 8000 of this machine.
        model: who is asked where a call names nobody.
        protocol: ``grpc`` or ``http``.
        timeout: seconds that a whole answer may take.

    Raises:
        ParameterError: another protocol.

    Example:
        >>> with Client("127.0.0.1:8000") as client:  # doctest: +SKIP
        ...     answer = client.stream("The capital of France is", Sampling(max_tokens=8)).answer()
        ...     print(answer.text, answer.ttft)
    """

    def __init__(
        self,
        address: Address | str | None = None,
        *,
        model: str = BLS,
        protocol: Literal["grpc", "http"] = "grpc",
        timeout: float = 120.0,
    ) -> None:
        if protocol not in ("grpc", "http"):
            raise ParameterError(f"protocol {protocol!r}", why="Triton speaks two", fix="grpc or http")
        self.address = resolve(address)
        self.model, self.protocol, self.timeout = model, protocol, timeout
        self._models: dict[str, Model] = {}
        self._wire = _Grpc(self.address, timeout) if protocol == "grpc" else _Http(self.address, timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._wire.close()

    def generate(self, prompt: Prompt, sampling: Sampling | None = None, *, model: str | None = None) -> Answer:
        """Ask, and wait for the whole answer in one response.

        Args:
            prompt: a text, chat messages (the server applies the model's template), or token ids for the model
                ``tensorrt_llm``.
            sampling: defaults to ``Sampling()``.
            model: whom to ask.

        Raises:
            ServerError: nobody answers.
            RequestError: the server refuses, or breaks off.
        """
        return self._ask(prompt, sampling, model, stream=False).answer()

    def stream(self, prompt: Prompt, sampling: Sampling | None = None, *, model: str | None = None) -> Stream:
        """Ask, and get the answer in chunks as it is written. Arguments and errors are those of ``generate``."""
        return self._ask(prompt, sampling, model, stream=True)

    def about(self, model: str | None = None) -> Model:
        """The inputs of a model, asked once.

        Raises:
            RequestError: the server has no such model.
        """
        name = model or self.model
        if name not in self._models:
            self._models[name] = Model.of(self._wire.config(name))
        return self._models[name]

    def ask(self, tensors: Mapping[str, Any], *, model: str | None = None, stream: bool = False) -> Stream:
        """Ask with tensors by their names, for what a ``Sampling`` does not say. Errors are those of ``generate``."""
        return self._wire.ask(self.about(model), dict(tensors), stream=stream)

    def _ask(self, prompt: Prompt, sampling: Sampling | None, model: str | None, *, stream: bool) -> Stream:
        return self.ask(tensors_of(prompt, sampling or Sampling(), stream=stream), model=model, stream=stream)


class _Grpc:
    def __init__(self, address: Address, timeout: float) -> None:
        import grpc
        from tritonclient.grpc import service_pb2_grpc

        self.address, self.timeout = address, timeout
        self._channel = grpc.insecure_channel(address.grpc, options=CHANNEL)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def config(self, name: str) -> dict[str, Any]:
        import grpc
        from tritonclient.grpc import service_pb2

        try:
            reply = self._stub.ModelConfig(service_pb2.ModelConfigRequest(name=name), timeout=self.timeout)
        except grpc.RpcError as problem:
            raise grpc_problem(problem, self.address) from None
        return config_of(reply)

    def ask(self, model: Model, tensors: dict[str, Any], *, stream: bool) -> Stream:  # noqa: ARG002
        request = to_grpc(model, tensors)
        sent = time.perf_counter()
        call = self._stub.ModelStreamInfer(iter([request]), timeout=self.timeout)
        return Stream(self._chunks(call), call.cancel, sent, grows=model.grows)

    def _chunks(self, call: Any) -> Iterator[Chunk]:
        """A thread reads the call: Ctrl-C inside gRPC's own loop can leave its lock taken, and the channel dead."""
        import grpc

        came: SimpleQueue[tuple[Any, float] | BaseException | None] = SimpleQueue()
        threading.Thread(target=_read, args=(call, came), daemon=True).start()
        try:
            while (item := came.get()) is not None:
                if isinstance(item, grpc.RpcError):
                    raise grpc_problem(item, self.address) from None
                if isinstance(item, BaseException):
                    raise item
                if chunk := from_grpc(*item):
                    yield chunk
        finally:
            call.cancel()

    def close(self) -> None:
        self._channel.close()


def _read(call: Any, came: SimpleQueue[tuple[Any, float] | BaseException | None]) -> None:
    """What the call gives, with the time of each; last the error that ended it, or None."""
    end = None
    try:
        for response in call:
            came.put((response, time.perf_counter()))
    except BaseException as problem:
        end = problem
    came.put(end)


class _Http:
    def __init__(self, address: Address, timeout: float) -> None:
        self.address, self.timeout = address, timeout

    def config(self, name: str) -> dict[str, Any]:
        connection, response = self._call("GET", f"/v2/models/{name}/config")
        with connection:
            found: dict[str, Any] = json.loads(response.read())
        return found

    def ask(self, model: Model, tensors: dict[str, Any], *, stream: bool) -> Stream:
        body = to_http(model, tensors)
        sent = time.perf_counter()
        path = f"/v2/models/{model.name}/generate{'_stream' if stream else ''}"
        connection, response = self._call("POST", path, body)
        return Stream(self._chunks(connection, response), connection.cut, sent, grows=model.grows)

    def _chunks(self, connection: _Connection, response: HTTPResponse) -> Iterator[Chunk]:
        events = response.getheader("Content-Type", "").startswith("text/event-stream")
        try:
            with connection:
                if not events:
                    text = response.read().decode()
                    yield from_http(text, time.perf_counter())
                    return
                for line in _lines(response):
                    if line.startswith(b"data:"):
                        yield from_http(line.decode(), time.perf_counter())
        except (OSError, HTTPException, ValueError, AttributeError) as problem:  # the last two: closed while it is read
            raise unreachable(self.address.http, f"the connection broke: {problem}") from None

    def _call(self, method: str, path: str, body: bytes | None = None) -> tuple[_Connection, HTTPResponse]:
        connection = _Connection(self.address.host, self.address.port, timeout=self.timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            if response.status != 200:
                with connection:
                    from_http(response.read().decode(), 0.0)
                    raise refused(f"HTTP status {response.status}")
        except (OSError, HTTPException) as problem:
            connection.close()
            raise unreachable(self.address.http, f"{type(problem).__name__}: {problem}") from None
        return connection, response

    def close(self) -> None:
        """Each request has a connection of its own."""


def _lines(response: HTTPResponse) -> Iterator[bytes]:
    """The lines of a body. Iterating over the response itself takes a connection that breaks for the end."""
    rest = b""
    while piece := response.read1():
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    yield rest


class _Connection(HTTPConnection):
    def cut(self) -> None:
        """Close it, also under a thread that waits for it."""
        with suppress(OSError):
            if self.sock:
                self.sock.shutdown(socket.SHUT_RDWR)
        self.close()

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resolve(address: Address | str | None) -> Address:
    """The address that was given, or ``TRITON_URL``'s, or port 8000 of this machine."""
    if isinstance(address, str):
        return Address.parse(address)
    return address or Address.from_environment() or Address()


def config_of(reply: Any) -> dict[str, Any]:
    """A ``ModelConfigResponse`` as the JSON that HTTP gives."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(reply.config, preserving_proto_field_name=True)
    return found


def grpc_problem(problem: Any, address: Address) -> ServerError:
    """The error for a call of gRPC that failed."""
    import grpc

    code, details = problem.code(), problem.details() or ""
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return unreachable(address.grpc, f"gRPC says {code.name}: {details}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return unreachable(address.grpc, "the answer was not whole when the client's timeout had passed")
    return refused(details or code.name)
