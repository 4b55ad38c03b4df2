"""Stands in for a model's ``model.py``: writes down what each request brings, then lets the model do its work.

The model itself lies beside it as ``traced_model.py``; ``trace_to.txt`` names the file that lines of JSON are added to.
A number comes with the bits of its float32, so that nobody mistakes 0.8999999761581421 for another number than 0.9.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path(__file__).resolve().parent
MOST = 16  # numbers of a tensor that are written out
_spec = importlib.util.spec_from_file_location("traced_model", HOME / "traced_model.py")
assert _spec is not None and _spec.loader is not None  # noqa: PT018
original = importlib.util.module_from_spec(_spec)
sys.modules["traced_model"] = original
_spec.loader.exec_module(original)


def write(stage: str, values: dict[str, Any]) -> None:
    """Add a line, in one piece."""
    line = json.dumps({"stage": stage, "values": {name: plain(value) for name, value in values.items()}})
    with Path((HOME / "trace_to.txt").read_text(encoding="utf-8")).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def plain(value: Any) -> Any:
    """A tensor, or a number, as JSON; float32 with its bits."""
    if value is None or isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype == object:
        texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item) for item in array.flat]
        return texts[0] if len(texts) == 1 else texts[:MOST]
    if array.size > MOST:
        return {"shape": list(array.shape)}
    items: list[Any]
    if array.dtype.kind == "f":
        items = [{"v": float(item), "f32": np.float32(item).tobytes()[::-1].hex()} for item in array.flat]
    else:
        items = [str(item) if abs(int(item)) > 2**53 else int(item) for item in array.flat]
    return items[0] if len(items) == 1 else items


class TritonPythonModel(original.TritonPythonModel):  # type: ignore[misc, name-defined]
    """The model, overheard."""

    def initialize(self, args: Any) -> None:
        """Our engine's backend also tells what its sampler is made from."""
        self.traced_as = args["model_name"]
        inputs = getattr(original, "inputs", None)
        if inputs is not None and hasattr(inputs, "read"):
            read = inputs.read

            def overheard(*given: Any, **how: Any) -> Any:
                prompts = read(*given, **how)
                for prompt in prompts:
                    request = prompt.request
                    write("sampler", {
                        **{name: value for name, value in vars(request.sampling).items() if _is_number(value)},
                        "seed": request.seed, "max_tokens": request.max_tokens,
                    })  # fmt: skip
                return prompts

            inputs.read = overheard
        super().initialize(args)

    def execute(self, requests: Any) -> Any:
        """Write down the inputs of all requests."""
        for request in requests:
            write(self.traced_as, {tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        return super().execute(requests)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
