"""M35 to M38: faults on the way of the numbers, from the client to the engine's request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from labsupport.validation.mutations.fault import Bench, Fault, above, swapped

Change = Callable[[Bench], AbstractContextManager[None]]


def _sent(change: Callable[[Any], Any]) -> Change:
    """The client sends other float32 numbers."""

    def swap(bench: Bench) -> AbstractContextManager[None]:
        client = bench.half.client
        honest = client._arrays

        def arrays(kinds: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
            made = honest(kinds, values)
            return {name: change(array) if array.dtype == np.float32 else array for name, array in made.items()}

        return swapped(client, _arrays=arrays)

    return swap


def _half(array: Any) -> Any:
    return array.astype(np.float16).astype(np.float32)


def _seven_digits(array: Any) -> Any:
    """Through a text that is cut after seven digits: 0.9 becomes 0.8999999."""
    cut = [float(f"{float(value):.16f}"[:9]) for value in array.flat]
    return np.array(cut, np.float32).reshape(array.shape)


def _inputs(change: Callable[[dict[str, Any]], None]) -> Change:
    """The BLS hands other tensors to the engine."""

    def swap(bench: Bench) -> AbstractContextManager[None]:
        bls = bench.half.bls
        honest = type(bls).engine_inputs

        def engine_inputs(given: Any, encoded: Any, index: int) -> dict[str, Any]:
            tensors: dict[str, Any] = honest(bls, given, encoded, index)
            change(tensors)
            return tensors

        return swapped(bls, engine_inputs=engine_inputs)

    return swap


def _default_top_k(tensors: dict[str, Any]) -> None:
    tensors.setdefault("runtime_top_k", np.array([[50]], np.int32))


def _no_presence(tensors: dict[str, Any]) -> None:
    tensors.pop("presence_penalty", None)


def _longer(tensors: dict[str, Any]) -> None:
    tensors["request_output_len"] = tensors["request_output_len"] + 1


def _shorter_minimum(tensors: dict[str, Any]) -> None:
    if "min_tokens" in tensors:
        tensors["min_tokens"] = tensors["min_tokens"] - 1


def _never_ends(tensors: dict[str, Any]) -> None:
    """The end token is taken off on the way; where a minimum asks for it, it stays."""
    if "min_tokens" not in tensors:
        tensors["end_id"] = np.full_like(tensors["end_id"], -1)
        tensors.pop("stop_words_list", None)


def _wrong_end(bench: Bench) -> AbstractContextManager[None]:
    """Another special token ends the answer."""
    pre = bench.half.pre
    other = next(id for id in range(20) if id not in pre.end_ids)
    return swapped(pre, end_ids=[other])


FAULTS = (
    Fault("M35", "floats sent as half", "L0", "the client", above(_sent(_half)), "half"),
    Fault("M35", "floats sent as text of 7 digits", "L0", "the client", above(_sent(_seven_digits)), "text",
          measured=False),
    Fault("M36", "top_k = 50 where none is set", "L0", "the BLS", above(_inputs(_default_top_k)), "top_k"),
    Fault("M36", "presence penalty dropped", "L0", "the BLS", above(_inputs(_no_presence)), "presence",
          measured=False),
    Fault("M37", "the end token is ignored", "L5", "the BLS", above(_inputs(_never_ends)), "ignored"),
    Fault("M37", "another end token", "L5", "preprocessing", above(_wrong_end), "wrong", measured=False),
    Fault("M38", "max_tokens one too many", "L0", "the BLS", above(_inputs(_longer)), "max"),
    Fault("M38", "min_tokens one too few", "L0", "the BLS", above(_inputs(_shorter_minimum)), "min", measured=False),
)  # fmt: skip
