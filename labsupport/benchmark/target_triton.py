"""A Triton server as a target: streams over gRPC, or server-sent events over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from labsupport.benchmark.target import Answered, Arrival, answered, now
from labsupport.benchmark.workload import Job
from labsupport.serving import Address, AsyncClient, Sampling
from labsupport.serving.answer import Growing
from labsupport.serving.sampling import tensors_of
from labsupport.serving.wire import Model, from_grpc, from_http, refused, to_grpc, to_http, unreachable

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
TIMEOUT_S = 600.0
NO_END = -1  # the end id that no token has


class _Triton:
    own_process = True
    protocol = ""

    def __init__(self, address: Address, model: str, *, ignore_end: bool = True) -> None:
        self.address, self.model, self.ignore_end = address, model, ignore_end
        self.title = f"{model} over {self.protocol}"
        self._about = Model(model, {}, False)

    async def _ask_about(self) -> None:
        async with AsyncClient(self.address, model=self.model, timeout=10) as client:
            self._about = await client.about()

    def _tensors(self, job: Job) -> dict[str, Any]:
        prompt = list(job.ids) if self.model == "tensorrt_llm" else job.text
        return tensors_of(prompt, Sampling(job.new, end_id=NO_END if self.ignore_end else None), stream=True)

    def _answered(self, pieces: list[tuple[float, str]]) -> Answered:
        if self._about.grows:
            growing = Growing()
            pieces = [(at, growing.new((text,))[0]) for at, text in pieces]
        return answered(pieces)


class GrpcTarget(_Triton):
    """One request a stream over one connection; messages stay bytes until the run is over.

    Args:
        address: of the server.
        model: ``ensemble``, ``tensorrt_llm_bls``, or ``tensorrt_llm`` with token ids.
        ignore_end: ask for an end token that never comes, so that answers have the length that was asked for.
    """

    protocol = "gRPC"

    async def __aenter__(self) -> GrpcTarget:
        import grpc
        from tritonclient.grpc import service_pb2

        await self._ask_about()
        options = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))
        self._channel = grpc.aio.insecure_channel(self.address.grpc, options=options)
        self._method = self._channel.stream_stream(METHOD, service_pb2.ModelInferRequest.SerializeToString)
        self._end = grpc.aio.EOF
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def prepare(self, job: Job) -> Any:
        """A ``ModelInferRequest``."""
        return to_grpc(self._about, self._tensors(job))

    async def send(self, request: Any) -> list[Arrival]:
        """The stream ends when the answer is whole, since ours is closed after one request."""
        import grpc

        arrivals = []
        try:
            call = self._method(iter([request]), timeout=TIMEOUT_S)
            while (message := await call.read()) is not self._end:
                arrivals.append(Arrival(now(), message))
            code = await call.code()
        except grpc.RpcError as problem:
            raise unreachable(self.address.grpc, f"gRPC says {problem.details()}") from None
        if code != grpc.StatusCode.OK:
            raise unreachable(self.address.grpc, f"gRPC says {code.name}: {await call.details()}")
        return arrivals

    def read(self, arrivals: Sequence[Arrival]) -> Answered:
        """Text, or, of ``tensorrt_llm``, ids."""
        from tritonclient.grpc import service_pb2

        message = service_pb2.ModelStreamInferResponse
        found = [from_grpc(message.FromString(one.data), one.at) for one in arrivals]
        kept = [chunk for chunk in found if chunk]
        if any(chunk.ids for chunk in kept):
            whole = answered([(chunk.at, "x" * len(chunk.ids)) for chunk in kept])
            return Answered(whole.chunks, ids=tuple(id for chunk in kept for id in chunk.ids))
        return self._answered([(chunk.at, chunk.text) for chunk in kept])


class HttpTarget(_Triton):
    """``generate_stream``: a connection for each request in flight, kept open for the next. Arguments: GrpcTarget's."""

    protocol = "HTTP"

    async def __aenter__(self) -> HttpTarget:
        import aiohttp

        await self._ask_about()
        everything = aiohttp.ClientTimeout(total=TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=everything)
        self._url = f"http://{self.address.http}/v2/models/{self.model}/generate_stream"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def prepare(self, job: Job) -> Any:
        """The body, as JSON."""
        return to_http(self._about, self._tensors(job))

    async def send(self, request: Any) -> list[Arrival]:
        """Pieces as the network gives them: an event may be cut, or several may come together."""
        import aiohttp

        arrivals = []
        try:
            async with self._session.post(self._url, data=request) as response:
                async for data in response.content.iter_any():
                    arrivals.append(Arrival(now(), data))
                if response.status != 200:
                    from_http(b"".join(one.data for one in arrivals).decode("utf-8", "replace"), 0.0)
                    raise refused(f"HTTP status {response.status}")
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise unreachable(self.address.http, f"{type(problem).__name__}: {problem}") from None
        return arrivals

    def read(self, arrivals: Sequence[Arrival]) -> Answered:
        """The events; each has the time of the piece that completed it."""
        chunks = [from_http(text, at) for at, text in events(arrivals)]
        return self._answered([(chunk.at, chunk.text) for chunk in chunks])


def events(arrivals: Sequence[Arrival]) -> list[tuple[float, str]]:
    """The data of server-sent events, however the network cut them."""
    found, rest = [], b""
    for one in arrivals:
        *whole, rest = (rest + one.data).split(b"\n\n")
        found += [(one.at, line[5:].decode().strip()) for event in whole for line in event.splitlines()
                  if line.startswith(b"data:")]  # fmt: skip
    return found
