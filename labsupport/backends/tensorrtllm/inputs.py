"""The tensors of a Triton request -> requests for the executor, one for each prompt.

Names, shapes and types as in the config of ``tensorrt_llm`` at 0.20; two names are known as 0.19 spelled them too.
The rules and the wording of errors: TensorRT-LLM 0.20, ``triton_backend/inflight_batcher_llm/src/utils.cc``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.backends.tensorrtllm.refused import require_served
from labsupport.decoding import Settings
from labsupport.engine.requests import Request
from labsupport.errors import ParameterError

Tensors = Mapping[str, NDArray[Any]]
OLD_NAMES = {"seed": "random_seed", "min_tokens": "min_length"}  # as 0.19 called them
SAMPLING = {
    "temperature": "temperature",
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_length": "min_tokens",
}
MOST_SEQUENCES = 256
FLAGS = (
    "return_log_probs", "return_context_logits", "return_generation_logits", "return_perf_metrics", "streaming",
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """One prompt of a Triton request.

    Args:
        request: for the executor.
        exclude_input: whether the answer leaves the prompt out; a stream always does.
        batch_index: which prompt of the request it is; None where there is only one.
    """

    request: Request
    exclude_input: bool = True
    batch_index: int | None = None


def read(given: Tensors, *, decoupled: bool, exclude_input: bool, vocab_size: int) -> list[Prompt]:
    """The prompts of a Triton request.

    Args:
        given: the tensors by name; each ``[B, ...]``, or without B where a model has no batch dimension.
        decoupled: whether a request may have more than one response.
        exclude_input: the model's parameter ``exclude_input_in_output``, for requests that do not say it.
        vocab_size: V, the entries of the engine's logits.

    Raises:
        ParameterError: a tensor is missing, malformed or not served, or the request needs a decoupled model.
    """
    require_served(given)
    if "input_ids" not in given:
        raise _bad("inputTokens or encoderInputFeatures tensor not provided", "there is no prompt", "send input_ids")
    batch = len(given["input_ids"]) if given["input_ids"].ndim > 1 else 1
    if batch > 1 and not decoupled:
        raise _bad(
            "Batch size > 1 requires the tensorrt_llm backend to be using decoupled transaction policy",
            "each prompt of a request is answered by a response of its own",
            "send one prompt a request, or set model_transaction_policy { decoupled: true }",
        )
    prompts = [_prompt(_Row(given, index, batch), exclude_input, vocab_size) for index in range(batch)]
    for prompt in prompts:
        _require_one_response(prompt.request, decoupled)
    return prompts


class _Row:
    """The tensors of one prompt of a request."""

    def __init__(self, given: Tensors, index: int, batch: int) -> None:
        self._given, self.index, self.batch = given, index, batch

    def one(self, name: str, default: Any = None) -> Any:
        """A scalar."""
        tensor = self._given.get(name, self._given.get(OLD_NAMES.get(name, "")))
        if tensor is None or not tensor.size:
            return default
        if tensor.size != self.batch:
            raise _bad(
                f"Expected a scalar tensor for tensor {name}", f"its shape is {list(tensor.shape)}", "send one value"
            )
        return tensor.reshape(-1)[self.index].item()

    def array(self, name: str, dims: int) -> NDArray[Any] | None:
        """A tensor of ``dims`` dimensions, the batch's not counted; None where it is missing or empty."""
        tensor = self._given.get(name)
        if tensor is None or not tensor.size:
            return None
        tensor = tensor[None] if tensor.ndim == dims else tensor
        if tensor.ndim != dims + 1 or len(tensor) != self.batch:
            raise _bad(
                f"Expected batch size doesn't match batch size for tensor {name}. Expected {self.batch} "
                f"got {len(tensor)}",
                f"its shape is {list(tensor.shape)}, and there are {self.batch} prompt(s)",
                f"send {dims + 1} dimensions, the first of which counts the prompts",
            )
        row: NDArray[Any] = tensor[self.index]
        return row


def _prompt(row: _Row, exclude_input: bool, vocab_size: int) -> Prompt:
    ids = row.array("input_ids", 1)
    ids = np.empty(0, np.int32) if ids is None else ids
    length, end = row.one("input_lengths", len(ids)), row.one("end_id", -1)
    if not 0 <= length <= len(ids):
        raise _bad(
            f"input_lengths {length} with {len(ids)} input_ids",
            "it says how many of them are the prompt; the rest is padding",
            f"send 1 to {len(ids)}",
        )
    max_tokens, beams = row.one("request_output_len"), row.one("beam_width", 1)
    if beams < 1:
        raise _bad(
            f"beam width ({beams}) is below 1",
            "a search keeps at least one beam",
            "send 1 for no search, or leave it out",
        )
    if max_tokens is None:
        raise _bad("request_output_len is not present in the request", "nobody says how much to write", "send it")
    request = Request(
        ids[:length].tolist(),
        max_tokens,
        _sampling(row, end, vocab_size),
        seed=row.one("seed"),
        end_ids=(end,),
        stop_words=words(row.array("stop_words_list", 2)),
        bad_words=words(row.array("bad_words_list", 2)),
        beam_width=beams,
        num_return_sequences=_sequences(row),
        length_penalty=row.one("len_penalty", 0.0),
        early_stopping=bool(row.one("early_stopping", True)),
        **{name: bool(row.one(name, False)) for name in FLAGS},
    )
    if beams > 1:  # a word of one token ends a beam just as an end id does, and only those can be told to a search
        single = [word[0] for word in request.stop_words if len(word) == 1]
        longer = [word for word in request.stop_words if len(word) > 1]
        request = replace(request, stop_words=longer, end_ids=(*request.end_ids, *single))
    exclude = bool(row.one("exclude_input_in_output", exclude_input)) or request.streaming
    return Prompt(request, exclude, row.index if row.batch > 1 else None)


def _sequences(row: _Row) -> int:
    count: int = row.one("num_return_sequences", 1)
    if count > MOST_SEQUENCES:
        raise _bad(
            f"num_return_sequences {count} is above {MOST_SEQUENCES}",
            "each is a sequence of its own, and they would keep everybody else waiting",
            "send several requests, with a seed each",
        )
    return count


def _sampling(row: _Row, end: int, vocab_size: int) -> Settings:
    values = {ours: row.one(name) for ours, name in SAMPLING.items()}
    for name in (*SAMPLING.values(), "len_penalty"):
        if not np.isfinite(row.one(name, 0)):
            raise _bad(
                f"Incorrect sampling config: {name} {row.one(name)} is not finite",
                "with it no probability is a number",
                "send a finite number, or leave it out",
            )
    if values["top_p"] is not None and values["top_p"] <= 0:
        values["top_p"] = None  # counts as unset
    if end == -1:
        values["min_length"] = None  # there is no end that could be put off
    try:
        return Settings.of(**values, logit_bias=_bias(row, vocab_size), end_ids=() if end == -1 else (end,))
    except ParameterError as problem:
        what = problem.what.replace("min_length", "min_tokens")  # as the request spells it
        raise _bad(f"Incorrect sampling config: {what}", problem.why, problem.fix) from None


def _bias(row: _Row, vocab_size: int) -> dict[int, float] | None:
    bias = row.array("embedding_bias", 1)
    if bias is None:
        return None
    if len(bias) < vocab_size or np.any(bias[vocab_size:]):
        raise _bad(
            "The embedding bias shape is not as expected. Expected last dimension to be same as vocab size: "
            f"{vocab_size}.",
            f"it has {len(bias)} entries, and each stands for a token",
            "make it as long as the engine's logits",
        )
    if np.isnan(bias).any() or np.isposinf(bias).any():
        token = int(np.flatnonzero(np.isnan(bias) | np.isposinf(bias))[0])
        raise _bad(
            f"embedding_bias is {bias[token]} for token {token}",
            "it is added to a logit, and no probability would be a number",
            "send a finite number, or -inf to forbid the token",
        )
    return {int(token): float(bias[token]) for token in np.flatnonzero(bias)}


def words(packed: NDArray[Any] | None) -> list[list[int]]:
    """The words of a packed list: row 0 holds all ids one after another, row 1 where each word ends; the rest is -1.

    Args:
        packed: int32 ``[2, L]``, or None.

    Raises:
        ParameterError: it is not packed like this.

    Example:
        >>> words(np.array([[7, 8, 9, 10, 11], [2, 5, -1, -1, -1]]))
        [[7, 8], [9, 10, 11]]
    """
    if packed is None:
        return []
    if len(packed) != 2:
        raise _list("must have two rows", packed)
    ids, ends = packed.tolist()
    count = ends.index(-1) if -1 in ends else len(ends)
    if any(end != -1 for end in ends[count:]):
        raise _list("must not have additional -1s", packed)
    ends = ends[:count]
    if any(end > len(ids) for end in ends):
        raise _list("must not have out-of-bound offsets", packed)
    if any(after <= before for before, after in pairwise([0, *ends])):
        raise _list("must not have non-increasing offsets", packed)
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _require_one_response(request: Request, decoupled: bool) -> None:
    if decoupled:
        return
    if request.streaming:
        raise _bad(
            "Streaming is only supported if model is deployed using decoupled mode.",
            "a model that is not decoupled gives one response a request",
            "set model_transaction_policy { decoupled: true }, or send streaming=false",
        )
    if request.num_return_sequences > 1 and request.beam_width == 1:
        raise _bad(
            "num_return_sequences > 1 requires the tensorrt_llm backend to be using decoupled transaction policy",
            "each sequence is answered by a response of its own",
            "set model_transaction_policy { decoupled: true }, or send several requests with seeds of their own",
        )


def _list(rule: str, packed: NDArray[Any]) -> ParameterError:
    return _bad(
        f"Sparse list {rule}: {' '.join(map(str, packed.reshape(-1).tolist()))}",
        "stop_words_list and bad_words_list hold all ids in row 0, and in row 1 where each word ends",
        "pack them as preprocessing does",
    )


def _bad(what: str, why: str, fix: str) -> ParameterError:
    return ParameterError(what, why=why, fix=fix)
