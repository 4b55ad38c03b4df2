"""The friendly front of an engine: prompts in, tokens out, with the executor doing the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.decoding import Settings, token_logprobs
from labsupport.engine.executor import Executor
from labsupport.engine.limits import ExecutorConfig, Limits
from labsupport.engine.protocol import Logits, Model
from labsupport.engine.requests import Request, Response, Result
from labsupport.errors import ParameterError

_OF_REQUEST = {field.name for field in fields(Request)} - {"input_token_ids", "max_tokens", "sampling"}


class Runner:
    """Runs prompts of token ids, a batch at a time, in the caller's thread.

    Args:
        model: an engine folder, or a model that is loaded already.
        limits: default to those that the engine was built with; a model without any gets ``Limits()`` as far as its
            rows go.
        config: of the executor.

    Raises:
        EngineError: the folder is no engine, or was built for another machine.
    """

    def __init__(self, model: Model | Path | str, limits: Limits | None = None, config: ExecutorConfig | None = None):
        self.model = _load(Path(model)) if isinstance(model, (str, Path)) else model
        self.limits = limits or _limits_of(self.model)
        self._executor = Executor(self.model, self.limits, config, threaded=False)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, max_new_tokens: int = 20, **settings: Any
    ) -> list[list[Result]]:
        """Write on from each prompt.

        Args:
            prompts: ids, at most ``max_batch_size`` prompts.
            max_new_tokens: tokens to write for each.
            settings: fields of :class:`Request` and of ``decoding.Settings``, such as seed, end_ids, temperature.

        Returns:
            For each prompt its results, one for each of ``num_return_sequences``.

        Raises:
            ParameterError: beyond a limit of the engine, or a setting out of range.
        """
        if len(prompts) > (most := self.limits.max_batch_size):
            raise ParameterError(
                f"Input batch size ({len(prompts)}) exceeds the engine or specified limit ({most})",
                why="the runner takes one batch at a time",
                fix="call it several times; the executor queues as many requests as you like",
            )
        requests = [_request(prompt, max_new_tokens, settings) for prompt in prompts]
        numbers: list[int] = []
        try:
            numbers += (self._executor.enqueue_request(request) for request in requests)
        except ParameterError:
            for number in numbers:  # those before the refused one are not to run on
                self._executor.cancel_request(number)
                self._results(number)
            raise
        return [self._results(number) for number in numbers]

    def stream(self, prompt: Sequence[int], *, max_new_tokens: int = 20, **settings: Any) -> Iterator[Result]:
        """The same for one prompt, a result for each token. Closing the iterator cancels the request."""
        request = _request(prompt, max_new_tokens, {**settings, "streaming": True})
        number = self._executor.enqueue_request(request)
        done = False
        try:
            for response in self._executor.stream(number):
                done = response.is_final
                yield response.result_or_raise()
        finally:
            if not done:
                self._executor.cancel_request(number)
                self._drain(number)

    def beam_search(
        self,
        prompt: Sequence[int],
        *,
        width: int,
        max_new_tokens: int = 20,
        length_penalty: float = 1.0,
        **settings: Any,
    ) -> Result:
        """Search for likely continuations -> all beams, best first, with their log-probabilities."""
        wanted = {"return_log_probs": True, **settings, "beam_width": width, "length_penalty": length_penalty}
        [[result]] = self.generate([prompt], max_new_tokens=max_new_tokens, **wanted)
        return result

    def context_logits(self, prompt: Sequence[int]) -> Logits:
        """float32 logits [len(prompt), V]: row t says what the model expects after ``prompt[t]``."""
        [[result]] = self.generate([prompt], max_new_tokens=1, return_context_logits=True)
        if result.context_logits is None:
            raise AssertionError("context logits were asked for")
        return result.context_logits

    def score(self, prompt: Sequence[int]) -> NDArray[np.float64]:
        """ln p of each token of a prompt but the first, given those before it: float64 [len(prompt) - 1]."""
        logits = self.context_logits(prompt)[:-1]
        return np.asarray(token_logprobs(logits.astype(np.float64), list(prompt[1:])))

    def _results(self, number: int) -> list[Result]:
        results = [response.result_or_raise() for response in self._drain(number)]
        return sorted(results, key=lambda result: result.sequence_index)

    def _drain(self, number: int) -> list[Response]:
        return list(self._executor.stream(number))


def _load(folder: Path) -> Model:
    from labsupport.engine.loaded import Engine

    return Engine(folder)


def _limits_of(model: Model) -> Limits:
    built = getattr(model, "build_config", None)
    if built is None:
        return Limits(max_batch_size=min(Limits().max_batch_size, model.max_rows))
    return Limits(**{field.name: getattr(built, field.name) for field in fields(Limits)})


def _request(prompt: Sequence[int], max_new_tokens: int, settings: dict[str, Any]) -> Request:
    of_request = {name: value for name, value in settings.items() if name in _OF_REQUEST}
    sampling = {name: value for name, value in settings.items() if name not in _OF_REQUEST}
    return Request(prompt, max_new_tokens, Settings.of(**sampling), **of_request)
