"""Sixty requests that are wrong, or nearly, and what a person must be able to read in the answer to each.

Each goes out as bytes: a client library would refuse half of them itself, and the server must not rely on that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPConnection
from typing import Any, NamedTuple

import numpy as np

from labsupport.serving import Address

BLS, ENGINE, ENSEMBLE = "tensorrt_llm_bls", "tensorrt_llm", "ensemble"
QUESTION = "The capital of France is"
LONG = "word " * 3000
NAN, INF = float("nan"), float("inf")
TYPES = {"INT32": "<i4", "INT64": "<i8", "UINT64": "<u8", "FP32": "<f4", "BOOL": "?"}


class Tensor(NamedTuple):
    """A tensor as it stands in a request: nothing makes sure that the three fit."""

    kind: str
    shape: list[int]
    values: Any

    def raw(self) -> bytes:
        if isinstance(self.values, bytes):
            return self.values
        if self.kind != "BYTES":
            return np.array(self.values, TYPES[self.kind]).tobytes()
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in self.values]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def int32(*values: int) -> Tensor:
    return Tensor("INT32", [1, len(values)], values)


def fp32(*values: float) -> Tensor:
    return Tensor("FP32", [1, len(values)], values)


def text(*values: str | bytes) -> Tensor:
    return Tensor("BYTES", [1, len(values)], values)


def asked(**given: Tensor | None) -> dict[str, Tensor]:
    """A good request to the BLS or the ensemble, but for what is given; None takes away."""
    found = {"text_input": text(QUESTION), "max_tokens": int32(3), **given}
    return {name: tensor for name, tensor in found.items() if tensor}


def ids(**given: Tensor | None) -> dict[str, Tensor]:
    """The same for the engine's model."""
    found = {"input_ids": int32(504, 3575, 282), "input_lengths": int32(3), "request_output_len": int32(3), **given}
    return {name: tensor for name, tensor in found.items() if tensor}


def words(*rows: tuple[int, ...]) -> Tensor:
    return Tensor("INT32", [1, len(rows), len(rows[0])], rows)


# model, tensors, what the answer says; text that is only generated stands as None
OVER_GRPC: dict[str, tuple[str, Mapping[str, Tensor], str | None]] = {
    "no prompt": (BLS, asked(text_input=None), "missing required input(s) ['text_input']"),
    "no max_tokens": (ENSEMBLE, asked(max_tokens=None), "missing required input(s) ['max_tokens']"),
    "no inputs at all": (BLS, {}, "missing required input(s) ['text_input','max_tokens']"),
    "another type": (
        BLS, asked(max_tokens=Tensor("INT64", [1, 1], [3])),
        "inference input 'max_tokens' data-type is 'INT64', but model 'tensorrt_llm_bls' expects 'INT32'",
    ),
    "a number for the prompt": (BLS, asked(text_input=int32(5)), "'text_input' data-type is 'INT32'"),
    "no batch dimension": (
        BLS, asked(text_input=Tensor("BYTES", [1], ["Hi"])),
        "unexpected shape for input 'text_input' for model 'tensorrt_llm_bls'. Expected [-1,1], got [1]",
    ),
    "a dimension too many": (ENGINE, ids(input_ids=Tensor("INT32", [1, 1, 2], [5, 6])), "[-1,-1], got [1,1,2]"),
    "two values where one goes": (ENGINE, ids(temperature=fp32(1, 1)), "input 'temperature' for model"),
    "batches that differ": (
        BLS, asked(max_tokens=Tensor("INT32", [2, 1], [3, 3])), "'text_input' batch size does not match other inputs"
    ),
    "fewer bytes than the shape": (
        BLS, asked(max_tokens=Tensor("INT32", [1, 1], b"\1")), "mismatch for input 'max_tokens'"
    ),
    "a string without its length": (
        BLS, asked(text_input=Tensor("BYTES", [1, 1], b"Hello, raw")), "incomplete string data for inference input"
    ),
    "an empty array": (BLS, asked(text_input=Tensor("BYTES", [1, 0], [])), "Expected [-1,1], got [1,0]"),
    "an unknown parameter": (BLS, asked(temprature=fp32(0.5)), "unexpected inference input 'temprature'"),
    "an unknown model": ("tensorrt_llm_bsl", asked(), "Request for unknown model: 'tensorrt_llm_bsl' is not found"),
    "a negative max_tokens": (BLS, asked(max_tokens=int32(-5)), "max_tokens is -5, and must be greater than 0"),
    "a temperature that is no number": (BLS, asked(temperature=fp32(NAN)), "temperature nan is not finite"),
    "an endless temperature": (BLS, asked(temperature=fp32(INF), top_k=int32(5)), "temperature inf is not finite"),
    "an endless penalty": (BLS, asked(frequency_penalty=fp32(INF)), "frequency_penalty inf is not finite"),
    "a negative top_k": (BLS, asked(top_k=int32(-3)), "top_k -3 is out of range"),
    "a huge top_k": (BLS, asked(top_k=int32(2**30)), None),
    "a probability above 1": (BLS, asked(top_p=fp32(2)), "top_p 2.0 is out of range"),
    "a negative min_tokens": (BLS, asked(min_tokens=int32(-1)), "min_tokens -1 is out of range"),
    "an end id beyond the vocabulary": (BLS, asked(end_id=int32(2**30)), "end_ids holds 1073741824"),
    "no beam": (BLS, asked(beam_width=int32(0)), "beam width (0) is below 1"),
    "more beams than the engine's": (BLS, asked(beam_width=int32(2)), "beam width (2) is not 1 to max_beam_width (1)"),
    "a million answers": (
        BLS, asked(num_return_sequences=int32(10**6)), "num_return_sequences 1000000 is above 256"
    ),
    "bytes that are not UTF-8": (BLS, asked(text_input=text(b"caf\xe9")), "a text is not UTF-8"),
    "a stop word that is not UTF-8": (BLS, asked(stop_words=text(b"\xff")), "a text is not UTF-8"),
    "an empty prompt": (BLS, asked(text_input=text("")), None),
    "a prompt over the limit": (
        ENSEMBLE, asked(text_input=text(LONG)), "Prompt length (3001) exceeds maximum input length (1024)"
    ),
    "chat messages without text": (
        BLS, asked(text_input=text('[{"role": "user", "content": 5}]')), "each needs a role and a content, both text"
    ),
    "weights without words": (BLS, asked(embedding_bias_weights=fp32(1)), "go together, and one is missing"),
    "a weight that is no number": (
        BLS, asked(embedding_bias_words=text("a"), embedding_bias_weights=fp32(NAN)),
        "config: embedding_bias is nan for token",
    ),
    "a bias of the wrong length": (ENGINE, ids(embedding_bias=fp32(1, 2)), "same as vocab size: 49152"),
    "an id beyond the vocabulary": (ENGINE, ids(input_ids=int32(5, 60000, 6)), "input_token_ids holds 60000"),
    "a length beyond the ids": (ENGINE, ids(input_lengths=int32(9)), "input_lengths 9 with 3 input_ids"),
    "a negative length": (ENGINE, ids(input_lengths=int32(-2)), "input_lengths -2 with 3 input_ids"),
    "stop words in one row": (ENGINE, ids(stop_words_list=words((5, 6))), "Expected [-1,2,-1], got [1,1,2]"),
    "stop words that end before they begin": (
        ENGINE, ids(stop_words_list=words((5, 6), (-3, 1))), "must not have non-increasing offsets: 5 6 -3 1"
    ),
    "what the engine has not": (BLS, asked(lora_task_id=Tensor("UINT64", [1, 1], [7])), "lora_task_id is not served"),
}  # fmt: skip

GENERATE = f"/v2/models/{BLS}/generate"
GOOD = {"text_input": QUESTION, "max_tokens": 3}
# path, body, status, what the answer says
OVER_HTTP: dict[str, tuple[str, bytes | dict[str, Any], int, str]] = {
    "JSON that breaks off": (GENERATE, b'{"text_input": "a", ', 500, "failed to parse the request JSON buffer"),
    "no JSON": (GENERATE, b"hello", 500, "failed to parse the request JSON buffer: Invalid value. at 0"),
    "no body": (GENERATE, b"", 500, "The document is empty"),
    "no object": (GENERATE, b"[1, 2]", 500, "attempt to get members for non-object"),
    "no max_tokens": (GENERATE, {"text_input": "a"}, 400, "missing required input(s) ['max_tokens']"),
    "a number for the prompt": (GENERATE, GOOD | {"text_input": 5}, 500, "attempt to access JSON non-string as string"),
    "a text for a number": (GENERATE, GOOD | {"max_tokens": "3"}, 500, "JSON non-signed-integer as signed-integer"),
    "half a token": (GENERATE, GOOD | {"max_tokens": 4.5}, 500, "JSON non-signed-integer as signed-integer"),
    "a negative seed": (GENERATE, GOOD | {"seed": -1}, 500, "non-unsigned-integer as unsigned-integer"),
    "a temperature that is no number": (GENERATE, GOOD | {"temperature": NAN}, 400, "temperature nan is not finite"),
    "a number beyond all numbers": (
        GENERATE, b'{"text_input": "a", "max_tokens": 3, "temperature": 1e400}', 500, "Number too big"
    ),
    "bytes that are not UTF-8": (GENERATE, b'{"text_input": "caf\xe9", "max_tokens": 3}', 400, "not UTF-8"),
    "half a character": (GENERATE, b'{"text_input": "\\ud83d", "max_tokens": 3}', 500, "surrogate pair"),
    "a key twice": (
        GENERATE, b'{"text_input": "a", "max_tokens": 3, "max_tokens": 2}', 400, "'max_tokens' already exists"
    ),
    "a stream into one answer": (GENERATE, GOOD | {"stream": True}, 200, "use generate stream"),
    "a prompt over the limit": (GENERATE + "_stream", GOOD | {"text_input": LONG, "stream": True}, 400, "exceeds"),
    "more beams than the engine's": (GENERATE, GOOD | {"beam_width": 2}, 400, "is not 1 to max_beam_width (1)"),
    "an unknown parameter": (GENERATE, GOOD | {"temprature": 0.5}, 200, "text_output"),  # Triton passes over it
    "an unknown model": ("/v2/models/nobody/generate", GOOD, 404, "unknown model: 'nobody' is not found"),
    "an unknown version": (f"/v2/models/{BLS}/versions/9/generate", GOOD, 404, "version 9 is not found"),
    "an unknown verb": (f"/v2/models/{BLS}/genrate", GOOD, 404, "Not Found"),
    "a stream that infer has not": (
        f"/v2/models/{ENSEMBLE}/infer",
        {"inputs": [{"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]},
                    {"name": "max_tokens", "shape": [1, 1], "datatype": "INT32", "data": [3]}]},
        501, "doesn't support models with decoupled transaction policy",
    ),
}  # fmt: skip


def by_grpc(address: Address, model: str, tensors: Mapping[str, Tensor]) -> str:
    """What the server says to it: the error, or the names of what it answers with."""
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    request = service_pb2.ModelInferRequest(model_name=model)
    for name, tensor in tensors.items():
        request.inputs.add(name=name, datatype=tensor.kind, shape=tensor.shape)
        request.raw_input_contents.append(tensor.raw())
    with grpc.insecure_channel(address.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answers = list(stub.ModelStreamInfer(iter([request]), timeout=20))
    return str(answers[0].error_message or [output.name for output in answers[0].infer_response.outputs])


def by_http(address: Address, path: str, body: bytes | dict[str, Any]) -> tuple[int, str]:
    """Status and body of the answer."""
    connection = HTTPConnection(address.host, address.port, timeout=20)
    try:
        connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
