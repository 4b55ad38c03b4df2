"""Calls of the model ``tensorrt_llm`` itself, over one gRPC stream each: token ids in, tensors out."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from labsupport.repository.contract import TENSORRT_LLM_IN

KINDS = {
    "INT32": np.int32,
    "UINT64": np.uint64,
    "INT64": np.int64,
    "FP32": np.float32,
    "FP16": np.float16,
    "BOOL": bool,
}
KIND_OF = {tensor.name: tensor.kind for tensor in TENSORRT_LLM_IN}
Answer = tuple[dict[str, np.ndarray], bool]  # tensors, and whether the response is the last one


def tensors(given: dict[str, Any], batch: int = 1) -> list[Any]:
    """The inputs of a request: each value becomes a tensor ``[batch, ...]`` of the type that the contract names."""
    from tritonclient.grpc import InferInput

    made = []
    for name, value in given.items():
        kind = KIND_OF[name]
        array = np.asarray(value, np.object_ if kind == "STRING" else KINDS[kind])
        array = array.reshape(batch, -1) if array.ndim < 2 else array[None] if name.endswith("_list") else array
        made.append(InferInput(name, list(array.shape), "BYTES" if kind == "STRING" else kind))
        made[-1].set_data_from_numpy(array)
    return made


def request(prompt: list[int], max_tokens: int = 8, **given: Any) -> dict[str, Any]:
    """The tensors of one prompt."""
    return {"input_ids": prompt, "input_lengths": len(prompt), "request_output_len": max_tokens, **given}


class Call:
    """A request on its way."""

    def __init__(self, client: Any, arrived: queue.Queue[tuple[Any, Any]]) -> None:
        self._client, self._arrived = client, arrived

    def __iter__(self) -> Iterator[Answer]:
        """Responses until the last one; an error is raised."""
        last = False
        while not last:
            result, error = self._arrived.get(timeout=60)
            if error:
                raise error
            reply = result.get_response()
            last = reply.parameters["triton_final_response"].bool_param
            yield {output.name: result.as_numpy(output.name) for output in reply.outputs}, last

    def go_away(self) -> None:
        """Cancel it, as a client does that closes its stream."""
        self._client.stop_stream(cancel_requests=True)


@contextmanager
def calling(
    server: Any, given: dict[str, Any], model: str = "tensorrt_llm", *, batch: int = 1, name: str = ""
) -> Iterator[Call]:
    """Send a request; the stream is open as long as the block runs."""
    from tritonclient.grpc import InferenceServerClient

    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: arrived.put((result, error)))
        client.async_stream_infer(model, tensors(given, batch), request_id=name)
        yield Call(client, arrived)


def ask(
    server: Any, given: dict[str, Any], model: str = "tensorrt_llm", *, batch: int = 1, name: str = ""
) -> list[Answer]:
    """All responses to a request."""
    with calling(server, given, model, batch=batch, name=name) as call:
        return list(call)


def tokens(answers: list[Answer]) -> list[int]:
    """The ids of the first beam, over all responses of a stream or in the one of a plain request."""
    return [
        int(id)
        for found, _ in answers
        for id in found["output_ids"].reshape(-1, found["output_ids"].shape[-1])[0]
        if id >= 0
    ]
