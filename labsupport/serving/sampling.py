"""What a request asks for: each field has the name of its tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.errors import ParameterError
from labsupport.repository.contract import BLS_IN, CLIENT_NAMES, TENSORRT_LLM_IN

Array = NDArray[Any]
Message = Mapping[str, str]
Prompt = str | Sequence[Message] | Sequence[int]
KINDS = {"INT32": np.int32, "INT64": np.int64, "UINT64": np.uint64, "FP32": np.float32, "FP16": np.float16,
         "BOOL": np.bool_, "STRING": np.object_}  # fmt: skip


@dataclass(frozen=True)
class Sampling:
    """Settings of a request to ``tensorrt_llm_bls``, ``ensemble`` or ``tensorrt_llm``; None is not sent.

    Args:
        max_tokens: tokens to write at most.
        top_k, top_p: with neither of them the choice is greedy, and temperature and seed do nothing.
        seed: 0 where missing, so that a sampled answer repeats itself.
        stop_words, bad_words: each is one word; the stop word stays at the end of the text.
        end_id, pad_id: the tokenizer's where missing.
        embedding_bias_words, embedding_bias_weights: added to the logits of the words' tokens; as many of each.
        beam_width: beams are all returned, best first.
        exclude_input_in_output: False puts the prompt in front of the answer.
        return_log_probs, return_context_logits, return_generation_logits, return_perf_metrics: arrive as
            ``Chunk.tensors``; logits must have been asked for when the engine was built.
        prompt_embedding_table, lora_weights: float16 [n, size]; lora_config: int32 [n, 3].
        num_draft_tokens, use_draft_logits: speculative decoding in NVIDIA's own BLS; ours refuses them.

    Source of the names: TensorRT-LLM 0.20, ``tensorrt_llm_bls/config.pbtxt``.
    """

    max_tokens: int = 64
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    min_tokens: int | None = None
    stop_words: Sequence[str] = ()
    bad_words: Sequence[str] = ()
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    length_penalty: float | None = None
    beam_width: int | None = None
    num_return_sequences: int | None = None
    end_id: int | None = None
    pad_id: int | None = None
    exclude_input_in_output: bool | None = None
    embedding_bias_words: Sequence[str] = ()
    embedding_bias_weights: Sequence[float] = ()
    return_log_probs: bool | None = None
    return_context_logits: bool | None = None
    return_generation_logits: bool | None = None
    return_perf_metrics: bool | None = None
    guided_decoding_guide_type: str | None = None
    guided_decoding_guide: str | None = None
    decoder_text_input: str | None = None
    prompt_embedding_table: Array | None = None
    prompt_vocab_size: int | None = None
    prompt_table_extra_id: int | None = None
    lora_task_id: int | None = None
    lora_weights: Array | None = None
    lora_config: Array | None = None
    num_draft_tokens: int | None = None
    use_draft_logits: bool | None = None

    def given(self) -> dict[str, Any]:
        """What is set, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in pairs if value is not None and not (_is_list(value) and not len(value))}


def tensors_of(prompt: Prompt, sampling: Sampling, *, stream: bool) -> dict[str, Array]:
    """The tensors of a request, each with the batch dimension 1 in front.

    Args:
        prompt: a text, chat messages (the server applies the model's template), or token ids. Ids are what the model
            ``tensorrt_llm`` takes, so then the names are that model's.
        sampling: the settings.
        stream: whether the answer is to come in pieces.

    Raises:
        ParameterError: token ids together with a setting that only text has, such as stop words.
    """
    import json

    values = sampling.given() | {"stream": stream}
    if isinstance(prompt, str):
        return _arrays(_CLIENT, values | {"text_input": prompt})
    if prompt and isinstance(prompt[0], Mapping):
        return _arrays(_CLIENT, values | {"text_input": json.dumps(list(prompt), ensure_ascii=False)})
    names = CLIENT_NAMES | {"end_id": "end_id", "pad_id": "pad_id", "max_tokens": "request_output_len"}
    if unknown := [name for name in values if name not in names]:
        raise ParameterError(
            f"{unknown[0]} with a prompt of token ids",
            why="ids go to the engine itself, and this setting is text that the models before it encode",
            fix=f"send the prompt as text, or leave {unknown[0]} out",
        )
    ids = {"input_ids": list(prompt), "input_lengths": len(prompt)}
    return _arrays(_ENGINE, {names[name]: value for name, value in values.items()} | ids)


_CLIENT = {tensor.name: tensor.kind for tensor in BLS_IN}
_ENGINE = {tensor.name: tensor.kind for tensor in TENSORRT_LLM_IN}


_FIT = {
    "INT32": "a whole number below 2**31", "INT64": "a whole number below 2**63",
    "UINT64": "a whole number from 0 to 2**64 - 1",
    "FP32": "a number", "FP16": "a number", "BOOL": "True or False", "STRING": "text that UTF-8 can write",
}  # fmt: skip


def _arrays(kinds: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Array]:
    made = {}
    for name, value in values.items():
        array = _array(name, value, kinds[name])
        made[name] = array.reshape(1, *(array.shape or (1,)))
    return made


def _array(name: str, value: Any, kind: str) -> Array:
    """The value as the tensor's type; numpy alone would send 0 for 2**40, and 1 for 1.5."""
    try:
        given = np.asarray(value, np.object_ if kind == "STRING" else None)
        array = given.astype(KINDS[kind])
        fits = "INT" not in kind or np.array_equal(array, given)
        if kind == "STRING":
            [str(text).encode() for text in array.flat]
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        what = f"{name} {str(value)[:60]} does not fit"
        raise ParameterError(what, why=f"the server's tensor is of type {kind}", fix=f"send {_FIT[kind]}")
    return array


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
