"""Requests and responses as KServe's protocol has them: protobuf for gRPC, JSON for HTTP.

A stream of gRPC carries one request and is then closed on our side, so its end says that the answer is whole. Nothing
need be known of ``triton_final_response``, which NVIDIA's BLS leaves False on its last chunk of data.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.errors import RequestError, ServerError
from labsupport.repository.contract import named
from labsupport.serving.answer import Chunk

Array = NDArray[Any]
WIRE = {"STRING": "BYTES"}  # a config's name for a type -> the protocol's
OLD = "0.19.0"  # the last version that spells tensors the old way


@dataclass(frozen=True)
class Model:
    """What a client must know of a model before it asks.

    Args:
        name: of the model.
        inputs: name -> type, as a config spells it.
        grows: each chunk has the whole text so far (``accumulate_tokens``).
    """

    name: str
    inputs: Mapping[str, str]
    grows: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Model:
        """From the model's config, as JSON."""
        parameters = config.get("parameters", {})
        grows = str(parameters.get("accumulate_tokens", {}).get("string_value", "")).lower() in ("true", "1")
        inputs = {one["name"]: one["data_type"].removeprefix("TYPE_") for one in config.get("input", [])}
        return cls(config["name"], inputs, grows)

    def fit(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors under the names that this model has for them.

        Raises:
            RequestError: it has no such input. Over HTTP the server would take the request and ignore the input.
        """
        fitted = {}
        for name, array in tensors.items():
            known = next((one for one in (name, named(name, OLD)) if one in self.inputs), None)
            if known is None:
                raise RequestError(
                    f"the model {self.name} has no input {name}",
                    why=f"its config names {', '.join(sorted(self.inputs)) or 'none'}",
                    fix=f"leave {name} out, or ask another model",
                )
            fitted[known] = array
        return fitted


def to_grpc(model: Model, tensors: Mapping[str, Array]) -> Any:
    """The message ``ModelInferRequest``."""
    from tritonclient.grpc import service_pb2
    from tritonclient.utils import serialize_byte_tensor

    request = service_pb2.ModelInferRequest(model_name=model.name, id=uuid.uuid4().hex)
    for name, array in model.fit(tensors).items():
        kind = model.inputs[name]
        request.inputs.add(name=name, datatype=WIRE.get(kind, kind), shape=array.shape)
        if kind == "STRING":
            array = serialize_byte_tensor(np.char.encode(array.astype(np.str_), "utf-8").astype(np.object_))
            request.raw_input_contents.append(array.item())
        else:
            request.raw_input_contents.append(array.tobytes())
    return request


def from_grpc(response: Any, at: float) -> Chunk | None:
    """The chunk in a ``ModelStreamInferResponse``; None for a response that only says that it is the last.

    Raises:
        RequestError: the server reports an error.
    """
    from tritonclient.grpc import InferResult

    if response.error_message:
        raise refused(response.error_message)
    reply = response.infer_response
    if not reply.outputs:
        return None
    result = InferResult(reply)
    return _chunk({output.name: result.as_numpy(output.name)[0] for output in reply.outputs}, at)


def _chunk(outputs: dict[str, Array], at: float) -> Chunk:
    texts = tuple(_text(value) for value in outputs.pop("text_output", np.empty(0)).flat)
    sequence = int(outputs["sequence_index"].flat[0]) if "sequence_index" in outputs else 0
    return Chunk(texts, at, outputs, sequence)


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def to_http(model: Model, tensors: Mapping[str, Array]) -> bytes:
    """The body for ``generate`` and ``generate_stream``: names and plain values, without the batch dimension."""
    body = {}
    for name, array in model.fit(tensors).items():
        value = array[0].tolist()
        body[name] = value[0] if array[0].shape == (1,) else value
    return json.dumps(body, ensure_ascii=False).encode()


def from_http(text: str, at: float) -> Chunk:
    """The chunk in a response's JSON, or in a server-sent event: a line that begins with ``data:``.

    Raises:
        RequestError: the server reports an error.
    """
    try:
        found = json.loads(text.removeprefix("data:"))
    except ValueError:
        raise refused(text) from None
    if "error" in found:
        raise refused(str(found["error"]))
    about = {"model_name", "model_version", "sequence_id", "sequence_start", "sequence_end", "id"}
    return _chunk({name: _array(value) for name, value in found.items() if name not in about}, at)


def _array(value: Any) -> Array:
    """A value of JSON; texts stay Python's, since numpy's own drop a NUL at the end."""
    array = np.atleast_1d(value)
    return np.atleast_1d(np.array(value, dtype=np.object_)) if array.dtype.kind == "U" else array


def refused(message: str) -> RequestError:
    """The error for what a server said."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["it gave no reason"]
    if "Traceback" in message:  # NVIDIA's models send all of it
        del lines[:-1]
    known = (
        ("Streaming is only supported", "labs assemble --decoupled, or generate() instead of stream()"),
        ("maximum queue size", "ask again later; labs assemble --max-queue-size sets how many may wait"),
        ("exceeds", "a shorter prompt, or an engine with larger limits: labs build --max_input_len"),
        ("is not healthy", "ask again in some seconds: the process of a model was killed, and the server starts again"),
        ("unknown model", "curl -X POST http://HOST:PORT/v2/repository/index   lists the models"),
    )
    fix = next((fix for part, fix in known if part.lower() in message.lower()), "mend the request as the message says")
    return RequestError("the server refused the request, or broke off its answer", why=" ".join(lines), fix=fix)


def unreachable(address: str, why: str) -> ServerError:
    """The error for a server that does not answer."""
    return ServerError(
        f"no answer from the server at {address}",
        why=why,
        fix="start one (labs serve), or name another address; labs chat HOST:PORT takes the port of HTTP",
    )
