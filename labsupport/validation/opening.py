"""A target by its name on the command line: an engine folder, a server's address, or ``hf:`` and a model."""

from __future__ import annotations

from pathlib import Path

from labsupport.errors import ParameterError
from labsupport.validation.reference import Reference
from labsupport.validation.target import Target


def open_target(name: str, reference: str, dtype: str = "float32", quantization: str | None = None) -> Target:
    """The target of a name.

    Args:
        name: a folder that ``labs build`` wrote, ``http://HOST:PORT`` or ``grpc://HOST:PORT`` of a Triton server (the
            port is HTTP's in both), ``hf:MODEL``, ``handler:FAMILY:MODEL`` for an endpoint's handler, or
            ``trtllm:FOLDER`` for TensorRT-LLM's runtime in its container.
        reference: the original model, whose tokenizer a target without one of its own uses.
        dtype, quantization: of the engine behind a server, which does not say it.

    Raises:
        ParameterError: it is none of these.
        EngineError: the engine cannot be loaded.
    """
    if name.startswith("hf:"):
        from labsupport.validation.targets.huggingface import open_huggingface

        return open_huggingface(name.removeprefix("hf:"), dtype)
    if name.startswith("handler:"):
        from labsupport.validation.targets.endpoint import EndpointTarget

        family, _, model = name.removeprefix("handler:").partition(":")
        return EndpointTarget(family, model or reference)
    if name.startswith("trtllm:"):
        from labsupport.validation.targets.trtllm import open_trtllm

        return open_trtllm(Path(name.removeprefix("trtllm:")), reference, dtype, quantization)
    if "://" in name:
        from labsupport.models import load_tokenizer
        from labsupport.validation.targets.triton import TritonTarget

        protocol, _, address = name.partition("://")
        if protocol in ("http", "grpc"):
            words = load_tokenizer(reference)
            return TritonTarget(address, words, dtype=dtype, quantization=quantization, protocol=protocol)  # type: ignore[arg-type]
    if (Path(name) / "config.json").is_file():
        from labsupport.validation.targets.engine import open_engine

        return open_engine(Path(name), reference)
    raise ParameterError(
        f"{name} is no target",
        why="it is neither an engine folder, nor an address, nor hf:MODEL",
        fix="labs validate work/engines/smollm2-135m-instruct/float32-tp1",
    )


def reference_for(target: Target, model: str) -> Reference:
    """The reference, with a twin in the target's type."""
    return Reference(model, target.facts.dtype)
