"""Text to text over preprocessing and tensorrt_llm, with a memory.

What the ensemble cannot do, because its models forget: give out whole characters and every space, stop on the text of a
stop word, pass cancellation on, and put the final flag on the last response that carries data. The tensors are those of
NVIDIA's template at TensorRT-LLM 0.20; what is not served is refused by name.
"""

from __future__ import annotations

import json
import threading
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from answers import Answer
from detokenizer import Detokenizer
from numpy.typing import NDArray
from stops import Stopper
from tokenizer_folder import asset, flag, load_tokenizer, string
from watch import Watch

Tensors = dict[str, NDArray[Any]]
Send = Callable[..., object]
Cancelled = Callable[[], bool]
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
TO_PREPROCESSING = {
    "text_input": "QUERY", "decoder_text_input": "DECODER_QUERY", "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT", "stop_words": "STOP_WORDS_DICT", "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS", "end_id": "END_ID", "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}  # fmt: skip
FROM_PREPROCESSING = {
    "INPUT_ID": "input_ids", "REQUEST_INPUT_LEN": "input_lengths", "REQUEST_OUTPUT_LEN": "request_output_len",
    "STOP_WORDS_IDS": "stop_words_list", "BAD_WORDS_IDS": "bad_words_list", "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id", "OUT_PAD_ID": "pad_id", "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}  # fmt: skip
RENAMED = {"top_k": "runtime_top_k", "top_p": "runtime_top_p", "length_penalty": "len_penalty", "stream": "streaming"}
PASSED = {
    *RENAMED, "temperature", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_tokens", "min_length",
    "seed", "random_seed", "return_log_probs", "return_context_logits", "return_generation_logits",
    "return_perf_metrics", "num_return_sequences", "beam_width", "prompt_embedding_table", "prompt_vocab_size",
    "lora_task_id", "lora_weights", "lora_config", "guided_decoding_guide_type", "guided_decoding_guide",
}  # fmt: skip
NOT_SERVED = (
    "image_input", "image_bytes_input", "image_url_input", "video_bytes_input", "num_draft_tokens", "use_draft_logits",
)  # fmt: skip
ALWAYS = ["output_ids", "sequence_length", "cum_log_probs", "output_log_probs", "sequence_index"]
ON_REQUEST = {
    "return_context_logits": ["context_logits"],
    "return_generation_logits": ["generation_logits"],
    "return_perf_metrics": [
        "kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks", "arrival_time_ns",
        "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns", "acceptance_rate",
        "total_accepted_draft_tokens", "total_draft_tokens",
    ],
}  # fmt: skip


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = config["parameters"]
        if draft := string(parameters, "tensorrt_llm_draft_model_name"):
            raise ValueError(f"tensorrt_llm_draft_model_name {draft!r}: speculative decoding in the BLS is not served")
        self.tokenizer = load_tokenizer(asset(args["model_repository"], string(parameters, "tokenizer_dir")))
        self.skip_special_tokens = flag(parameters, "skip_special_tokens", True)
        self.cumulative = flag(parameters, "accumulate_tokens", False)
        self.engine = string(parameters, "tensorrt_llm_model_name", "tensorrt_llm")
        self.decoupled = config.get("model_transaction_policy", {}).get("decoupled", False)
        self.watch = Watch()
        self.turn = threading.Lock()

    def finalize(self) -> None:
        self.watch.close()

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """Each request has a thread of its own; decoupled, this returns at once and the threads answer."""
        threads: list[threading.Thread] = []
        answers: list[list[Any]] = [[] for _ in requests]
        for request, answer in zip(requests, answers):
            sender = request.get_response_sender() if self.decoupled else None
            given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            is_cancelled = (sender or request).is_cancelled
            send = sender.send if sender else keep(answer)
            threads.append(threading.Thread(target=self.serve, args=(given, is_cancelled, send), daemon=True))
            threads[-1].start()
        if self.decoupled:
            return None
        for thread in threads:
            thread.join()
        return [answer[-1] for answer in answers]

    def serve(self, given: Tensors, is_cancelled: Cancelled, send: Send) -> None:
        """Answer one request; whatever happens, the last thing sent carries the final flag."""
        try:
            last = self.generate(given, is_cancelled, send)
        except Exception as problem:
            if not isinstance(problem, (ValueError, pb_utils.TritonModelException)):
                pb_utils.Logger.log_error(traceback.format_exc())
            last = pb_utils.InferenceResponse(error=pb_utils.TritonError(str(problem)))
        send(last, flags=FINAL)

    def generate(self, given: Tensors, is_cancelled: Cancelled, send: Send) -> Any:
        """Send all responses but the last, which is returned."""
        check(given)
        encoded = self.preprocess(given)
        prompts = len(given["text_input"])
        if prompts == 1:
            parts = [self.generate_one(given, encoded, 0, is_cancelled, send if self.decoupled else None)]
        else:
            parts = self.generate_many(given, encoded, prompts, is_cancelled, send)
        if not self.decoupled:
            return response(stacked([part[-1] for part in parts]))
        *before, last = [tensors for part in parts for tensors in part]
        for tensors in before:
            send(response(tensors))
        return response(last)

    def generate_many(
        self, given: Tensors, encoded: Tensors, prompts: int, is_cancelled: Cancelled, send: Send
    ) -> list[list[Tensors]]:
        """The engine takes one prompt a request, so each prompt of a batch becomes a request."""
        parts: list[list[Tensors]] = [[] for _ in range(prompts)]
        problems: list[Exception] = []
        lock = threading.Lock()

        def sending(answer: Any) -> None:
            with lock:
                send(answer)

        def run(index: int) -> None:
            try:
                parts[index] = self.generate_one(
                    given, encoded, index, is_cancelled, sending if self.decoupled else None, numbered=True
                )
            except Exception as problem:
                problems.append(problem)

        threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(prompts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if problems:
            raise problems[0]
        return parts

    def generate_one(
        self,
        given: Tensors,
        encoded: Tensors,
        index: int,
        is_cancelled: Cancelled,
        send: Send | None,
        numbered: bool = False,
    ) -> list[Tensors]:
        """Run one prompt. What streams is sent at once; the tensors of the last responses are returned."""
        name = uuid.uuid4().hex
        inputs = self.engine_inputs(given, encoded, index)
        streaming = bool(one(given, "stream", index, False))
        request = pb_utils.InferenceRequest(
            model_name=self.engine,
            request_id=name,
            requested_output_names=wanted(given, index),
            inputs=[pb_utils.Tensor(key, array) for key, array in inputs.items()],
        )
        answers: dict[int, Answer] = {}
        ended = False
        with self.watch.over(is_cancelled, lambda: self.stop(name)):
            for tensors in self.run(request):
                which = int(tensors.get("sequence_index", np.zeros(1)).flat[0])
                answer = answers.setdefault(which, self.new_answer(given, encoded, index, streaming, numbered))
                with self.turn:  # the more threads want Python's lock at once, the likelier the standstill of watch.py
                    if tensors and not answer.ended:
                        text = answer.take(tensors)
                        if streaming and send and (text or answer.carries_more):
                            send(response(answer.tensors(self.cumulative)))
                if not ended and answers and all(answer.ended for answer in answers.values()):
                    ended = True
                    self.stop(name)  # a stop word that the engine missed
        if not answers:
            answers[0] = self.new_answer(given, encoded, index, streaming, numbered)
        for answer in answers.values():
            answer.finish()
        return [answer.tensors(self.cumulative) for _, answer in sorted(answers.items())]

    def new_answer(self, given: Tensors, encoded: Tensors, index: int, streaming: bool, numbered: bool) -> Answer:
        words = given.get("stop_words", np.empty((index + 1, 0)))[index]
        prompt = ""
        if (
            not streaming
            and "exclude_input_in_output" in given
            and not one(given, "exclude_input_in_output", index, True)
        ):
            ids = encoded["INPUT_ID"][index, : encoded["REQUEST_INPUT_LEN"][index, 0]]
            prompt = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(
            lambda: Detokenizer(self.tokenizer, self.skip_special_tokens),
            lambda: Stopper([word.decode() if isinstance(word, bytes) else str(word) for word in words]),
            prompt=prompt,
            beams=int(one(given, "beam_width", index, 1)),
            streaming=streaming,
            batch_index=index if numbered and self.decoupled else None,
        )

    def run(self, request: Any) -> Iterator[Tensors]:
        """The engine's responses, as arrays by name."""
        answers = request.exec(decoupled=True) if self.decoupled else [request.exec()]
        for answer in answers:
            if answer.has_error():
                raise pb_utils.TritonModelException(answer.error().message())
            yield {tensor.name(): tensor.as_numpy() for tensor in answer.output_tensors()}

    def preprocess(self, given: Tensors) -> Tensors:
        inputs = [pb_utils.Tensor(name, given[key]) for key, name in TO_PREPROCESSING.items() if key in given]
        names = [name for name in FROM_PREPROCESSING if name != "OUT_PROMPT_TABLE_EXTRA_IDS"]
        if "prompt_table_extra_id" in given:
            names.append("OUT_PROMPT_TABLE_EXTRA_IDS")
        answer = pb_utils.InferenceRequest(
            model_name="preprocessing", requested_output_names=names, inputs=inputs
        ).exec()
        if answer.has_error():
            raise pb_utils.TritonModelException(answer.error().message())
        return {tensor.name(): tensor.as_numpy() for tensor in answer.output_tensors()}

    def engine_inputs(self, given: Tensors, encoded: Tensors, index: int) -> Tensors:
        inputs = {name: encoded[key][index : index + 1] for key, name in FROM_PREPROCESSING.items() if key in encoded}
        inputs["input_ids"] = inputs["input_ids"][:, : inputs["input_lengths"][0, 0]]  # without the batch's padding
        inputs["exclude_input_in_output"] = np.array([[True]])  # the prompt's text is put in front here, if asked for
        for key in PASSED & given.keys():
            row = given[key][index : index + 1]
            inputs[RENAMED.get(key, key)] = row.reshape(1, 1) if row.ndim == 1 else row
        return {name: array for name, array in inputs.items() if array.size}

    def stop(self, name: str) -> None:
        """Ask the engine to end request ``name``; its slot is free then, and its last response comes."""
        inputs = {
            "input_ids": np.zeros((1, 1), np.int32),
            "input_lengths": np.ones((1, 1), np.int32),
            "request_output_len": np.ones((1, 1), np.int32),
            "stop": np.array([[True]]),
        }
        request = pb_utils.InferenceRequest(
            model_name=self.engine,
            request_id=name,
            requested_output_names=["output_ids"],
            inputs=[pb_utils.Tensor(key, array) for key, array in inputs.items()],
        )
        try:
            for _ in request.exec(decoupled=True) if self.decoupled else [request.exec()]:
                pass
        except Exception:
            pb_utils.Logger.log_warn(f"request {name} could not be stopped: {traceback.format_exc(limit=0)}")


def keep(kept: list[Any]) -> Send:
    """What stands for a sender where the answers are returned at the end."""

    def sending(answer: Any, flags: int = 0) -> None:  # noqa: ARG001
        kept.append(answer)

    return sending


def check(given: Tensors) -> None:
    if sent := [name for name in NOT_SERVED if name in given]:
        raise ValueError(f"{sent[0]} is not served: this repository takes text only, and no draft model")
    if not given["text_input"].size:
        raise ValueError("text_input is empty: it needs one text for each prompt")
    for value in given["max_tokens"].flat:
        if value < 1:
            raise ValueError(f"max_tokens is {value}, and must be greater than 0")


def one(given: Tensors, key: str, index: int, default: object) -> Any:
    """The value of a one-element input for prompt ``index``."""
    return given[key][index].flat[0] if key in given else default


def wanted(given: Tensors, index: int) -> list[str]:
    return ALWAYS + [name for key, names in ON_REQUEST.items() if one(given, key, index, False) for name in names]


def response(tensors: Tensors) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])


def stacked(rows: Sequence[Tensors]) -> Tensors:
    """One response for a batch: arrays of different lengths are filled up with zeros."""
    tensors = {}
    for name in set.intersection(*(set(row) for row in rows)):
        arrays = [row[name] for row in rows]
        shape = np.max([array.shape for array in arrays], axis=0)
        whole = np.full((len(arrays), *shape[1:]), b"" if name == "text_output" else 0, arrays[0].dtype)
        for place, array in zip(whole, arrays):
            place[tuple(slice(0, size) for size in array.shape[1:])] = array[0]
        tensors[name] = whole
    return tensors
