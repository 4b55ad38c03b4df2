"""A server that answers at once, for the load generator: ``python -m labsupport.benchmark.instant PORT TOKENS``.

It speaks as much of KServe's protocol as a stream needs, over gRPC and HTTP, computes nothing, and gives each request
TOKENS responses that were made before.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

MODEL = "instant"
SERVICE = "inference.GRPCInferenceService"
EVENT = b'data: {"model_name":"instant","model_version":"1","text_output":" token"}\n\n'


def main(port: int, tokens: int) -> None:
    """Serve until standard input ends: HTTP at ``port``, gRPC at the next."""
    asyncio.run(_serve(port, tokens))


async def _serve(port: int, tokens: int) -> None:
    import grpc

    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((_handlers(tokens),))
    server.add_insecure_port(f"127.0.0.1:{port + 1}")
    await server.start()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer_http(reader, writer, tokens)

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)


def _handlers(tokens: int) -> Any:
    import grpc
    from tritonclient.grpc import model_config_pb2, service_pb2

    config = model_config_pb2.ModelConfig(name=MODEL)
    kinds = {"text_input": "TYPE_STRING", "max_tokens": "TYPE_INT32", "end_id": "TYPE_INT32", "stream": "TYPE_BOOL"}
    for name, kind in kinds.items():
        config.input.add(name=name, data_type=model_config_pb2.DataType.Value(kind), dims=[1])
    described: bytes = service_pb2.ModelConfigResponse(config=config).SerializeToString()
    reply = service_pb2.ModelStreamInferResponse()
    reply.infer_response.model_name = MODEL
    reply.infer_response.outputs.add(name="text_output", datatype="BYTES", shape=[1, 1])
    reply.infer_response.raw_output_contents.append(len(b" token").to_bytes(4, "little") + b" token")
    message = reply.SerializeToString()

    async def describe(_: bytes, __: Any) -> bytes:
        return described

    async def stream(requests: AsyncIterator[bytes], context: Any) -> None:
        async for _ in requests:
            for _ in range(tokens):
                await context.write(message)

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "ModelConfig": grpc.unary_unary_rpc_method_handler(describe),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream),
        },
    )


async def _answer_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tokens: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
    try:
        while True:
            asked = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in asked.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            writer.write(head)
            for _ in range(tokens):
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0)  # so that the network gets each for itself, as from an engine
            writer.write(b"0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
