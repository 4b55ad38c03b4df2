"""TensorRT-LLM's own Python runtime in its container, on the engine that Triton serves. Not run here.

``tensorrt_llm.runtime.ModelRunnerCpp`` drives the same C++ executor as Triton's backend, so it differs from the server
in what stands around the engine: template, end ids, text. One call has one set of sampling settings for its whole
batch, one seed included, so requests go one by one. It takes one end id; further ones are handed over as stop words.

Source: TensorRT-LLM 0.20, ``tensorrt_llm/runtime/model_runner_cpp.py``, ``examples/run.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labsupport.errors import EngineError
from labsupport.repository.models.preprocessing.prompts import encode
from labsupport.validation.target import Answer, Ask, Event, Facts, Finish, Prompt, as_text

RENAMED = {"min_length": "min_tokens", "no_repeat_ngram": "no_repeat_ngram_size"}
LEFT_OUT = ("end_ids", "do_sample", "min_new_tokens", "logit_bias", "bad_words")


class TensorRTLLMTarget:
    """Requests into ``ModelRunnerCpp.generate``, answers out.

    Args:
        runner: a ``ModelRunnerCpp``.
        tokenizer: of the original model.
        end_ids: tokens that end an answer.
        facts: what it is.
    """

    def __init__(self, runner: Any, tokenizer: Any, end_ids: Sequence[int], facts: Facts) -> None:
        self.runner, self.tokenizer, self.end_ids, self.facts = runner, tokenizer, tuple(end_ids), facts

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer requests, one after the other."""
        return [self._answer(ask) for ask in asks]

    def stream(self, ask: Ask) -> Answer:
        """As one event: what is validated of a stream is the server's."""
        answer = self._answer(ask)
        return Answer(**{**vars(answer), "events": (Event(answer.text, answer.output_ids, True),)})

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """As the server's preprocessing does."""
        return tuple(encode(self.tokenizer, as_text(prompt)))

    def received(self, ask: Ask) -> dict[str, Any] | None:  # noqa: ARG002
        """Not shown."""
        return None

    def _answer(self, ask: Ask) -> Answer:
        import torch

        if ask.settings.logit_bias:
            return Answer(error="ModelRunnerCpp.generate takes no logit bias")
        ids = self.tokenize(ask.prompt)
        ends = () if ask.ignore_end else self.end_ids
        stops = [self.tokenizer.encode(word, add_special_tokens=False) for word in ask.stop_words]
        given = {name: value for name, value in vars(ask.settings).items() if value is not None}
        sampling = {RENAMED.get(name, name): value for name, value in given.items() if name not in LEFT_OUT}
        try:
            found = self.runner.generate(
                [torch.tensor(ids, dtype=torch.int32)], max_new_tokens=ask.max_tokens, end_id=ends[0] if ends else -1,
                pad_id=self.tokenizer.pad_token_id, stop_words_list=[[*stops, *([end] for end in ends[1:])]],
                random_seed=ask.seed, return_dict=True, output_sequence_lengths=True, output_log_probs=True, **sampling,
            )  # fmt: skip
        except (RuntimeError, ValueError) as refused:
            return Answer(error=str(refused).splitlines()[0])
        length = int(found["sequence_lengths"][0][0])
        output = tuple(int(id) for id in found["output_ids"][0][0][len(ids) : length])
        log_probs = tuple(float(value) for value in found["log_probs"][0][0][: len(output)])
        logits = found.get("generation_logits")
        rows = None if logits is None else np.asarray(logits[0][0][: len(output)].float().cpu(), np.float32)
        text = self.tokenizer.decode(list(output), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ended = bool(output) and output[-1] in ends
        finish: Finish = "end" if ended else "length" if len(output) == ask.max_tokens else "stop"
        return Answer(output, text, finish, ids, log_probs, rows)


def open_trtllm(folder: Path, tokenizer: str, dtype: str, quantization: str | None) -> TensorRTLLMTarget:
    """The target of an engine that ``trtllm-build`` wrote.

    Raises:
        EngineError: TensorRT-LLM is not installed here.
    """
    try:
        from tensorrt_llm.runtime import ModelRunnerCpp
    except ImportError:
        raise EngineError(
            f"{folder} cannot be run: there is no tensorrt_llm here",
            why="it installs only in NVIDIA's container",
            fix="start the container (labs serve --container prints how), and run labs validate there",
        ) from None
    from labsupport.models import fetch, load_tokenizer
    from labsupport.repository.models.shared.tokenizer_folder import end_ids

    words = load_tokenizer(tokenizer)
    facts = Facts(f"{folder.name} (tensorrt_llm.runtime)", "trtllm", "trtllm-cpp", dtype, quantization, batch=1)
    runner = ModelRunnerCpp.from_dir(engine_dir=str(folder))
    return TensorRTLLMTarget(runner, words, end_ids(words, fetch(tokenizer)), facts)
