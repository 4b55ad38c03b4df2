"""Our engine in this process, with the text side of a server around it: template, ids, detokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labsupport.engine import Engine, Executor, ExecutorConfig, Limits, Request, Result
from labsupport.engine.requests import FinishReason
from labsupport.errors import LabError
from labsupport.models import load_tokenizer
from labsupport.repository.models.preprocessing.prompts import encode
from labsupport.repository.models.tensorrt_llm_bls.detokenizer import Detokenizer
from labsupport.validation.target import Answer, Ask, Event, Facts, Finish, Prompt, as_text

if TYPE_CHECKING:
    from labsupport.engine.protocol import Model

FINISH: dict[FinishReason, Finish] = {
    FinishReason.END_ID: "end",
    FinishReason.STOP_WORDS: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELLED: "cancelled",
}


class EngineTarget:
    """Requests into an executor, answers out.

    Args:
        model: whatever satisfies the engine's ``Model``.
        tokenizer: of the original model.
        end_ids: tokens that end an answer.
        facts: what it is.
        limits, config: of the executor.
        logits: hand out the logits that each token was drawn from.
    """

    def __init__(
        self, model: Model, tokenizer: Any, end_ids: Sequence[int], facts: Facts, *, limits: Limits | None = None,
        config: ExecutorConfig | None = None, logits: bool = True,
    ) -> None:  # fmt: skip
        self.facts, self.tokenizer, self.end_ids, self.logits = facts, tokenizer, tuple(end_ids), logits
        limits = limits or Limits(max_batch_size=min(facts.batch, model.max_rows))
        self.executor = Executor(model, replace(limits, gather_generation_logits=True), config, threaded=False)

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer requests in one in-flight batch."""
        return [self._answer(ask, number) for ask, number in [(ask, self._enqueue(ask)) for ask in asks]]

    def stream(self, ask: Ask) -> Answer:
        """Answer one request token by token; text comes in whole characters."""
        number = self._enqueue(ask, streaming=True)
        if isinstance(number, LabError):
            return Answer(error=number.what)
        words, events, parts = Detokenizer(self.tokenizer), list[Event](), list[Result]()
        for response in self.executor.stream(number):
            part = response.result_or_raise()
            parts.append(part)
            [ids] = part.output_token_ids
            text = words.push(ids)
            events.append(Event(text + (words.finish() if part.is_final else ""), ids, part.is_final))
        whole = replace(
            parts[-1],
            output_token_ids=(tuple(id for part in parts for id in part.output_token_ids[0]),),
            log_probs=(tuple(p for part in parts for p in (part.log_probs or ((),))[0]),),
            generation_logits=np.concatenate([part.generation_logits for part in parts]) if self.logits else None,
        )
        return replace(self._read(ask, whole), text="".join(event.text for event in events), events=tuple(events))

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """As the server's preprocessing does."""
        return tuple(encode(self.tokenizer, as_text(prompt)))

    def received(self, ask: Ask) -> dict[str, Any]:
        """The fields of the request that the executor's sampler is made from."""
        request = self._request(ask)
        return {**request.sampling_fields(), "seed": request.seed, "max_tokens": request.max_tokens}

    def _enqueue(self, ask: Ask, *, streaming: bool = False) -> int | LabError:
        try:
            return self.executor.enqueue_request(self._request(ask, streaming=streaming))
        except LabError as refused:
            return refused

    def _request(self, ask: Ask, *, streaming: bool = False) -> Request:
        words = [self.tokenizer.encode(word, add_special_tokens=False) for word in ask.stop_words]
        return Request(
            self.tokenize(ask.prompt), ask.max_tokens, ask.settings, ask.seed,
            end_ids=() if ask.ignore_end else self.end_ids, stop_words=words,
            return_log_probs=True, return_generation_logits=self.logits, streaming=streaming,
        )  # fmt: skip

    def _answer(self, ask: Ask, number: int | LabError) -> Answer:
        if isinstance(number, LabError):
            return Answer(error=number.what)
        try:
            [response] = list(self.executor.stream(number))
            return self._read(ask, response.result_or_raise())
        except LabError as failed:
            return Answer(error=failed.what)

    def _read(self, ask: Ask, result: Result) -> Answer:
        [ids] = result.output_token_ids
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(
            tuple(ids), text, FINISH[result.finish_reasons[0]], self.tokenize(ask.prompt),
            result.log_probs[0] if result.log_probs else None, result.generation_logits,
        )  # fmt: skip


def open_engine(folder: Path, tokenizer: str | Path | None = None, *, logits: bool = True) -> EngineTarget:
    """The target of an engine folder.

    Args:
        folder: what ``labs build`` wrote.
        tokenizer: the model's name or folder; by default that of the engine's parent folder.

    Raises:
        EngineError: the folder is no engine of this machine.
    """
    from labsupport.repository.models.shared.tokenizer_folder import end_ids

    folder = folder.expanduser().resolve()
    model = Engine(folder)
    name = str(tokenizer or folder.parent.name)
    words = load_tokenizer(name)
    built = model.build_config
    limits = Limits(**{field.name: getattr(built, field.name) for field in fields(Limits)})
    quantized = model.config.quantization
    cache = f"KV {quantized.kv_cache_quant_algo}" if quantized.kv_cache_quant_algo else None
    facts = Facts(
        f"{folder.parent.name}/{folder.name}", "engine", "trtllm-cpp", model.config.dtype,
        " ".join(filter(None, (quantized.quant_algo, cache))) or None, model.tokens_per_block, built.max_batch_size,
    )  # fmt: skip
    return EngineTarget(model, words, end_ids(words, _folder(name)), facts, limits=limits, logits=logits)


def _folder(name: str) -> Path:
    from labsupport.models import model_folder

    return Path(name) if Path(name).is_dir() else model_folder(name)
