"""Our server's way from tensors to text, in this process: all of its parts but Triton's wire between them.

The client's tensors, the BLS's names, preprocessing, the backend's reading of a request, the executor, the backend's
outputs, the BLS's detokenizer and stop words: each is the module that the server runs. Only the loop that hands a
response on is written again here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from labsupport.backends.tensorrtllm import inputs, outputs
from labsupport.engine import Executor, ExecutorConfig, Limits
from labsupport.errors import LabError
from labsupport.serving import Sampling
from labsupport.serving import sampling as client
from labsupport.validation.target import Answer, Ask, Event, Facts, Prompt, as_text
from labsupport.validation.targets.engine import FINISH

if TYPE_CHECKING:
    from labsupport.engine.protocol import Model

MODELS = Path(__file__).parents[2] / "repository" / "models"
FIELDS = ("temperature", "top_k", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty")


class TextHalf:
    """The Python models of a repository: preprocessing, postprocessing, and the BLS around them.

    Args:
        tokenizer: folder of the tokenizer.
    """

    def __init__(self, tokenizer: Path) -> None:
        loaded = {name: _load(name) for name in ("preprocessing", "postprocessing", "tensorrt_llm_bls")}
        self.client, self.bls_module = client, loaded["tensorrt_llm_bls"]
        parameters = {"tokenizer_dir": {"string_value": str(tokenizer.resolve())}}
        given = {"model_repository": "model", "model_config": json.dumps({"parameters": parameters})}
        made = [module.TritonPythonModel() for module in loaded.values()]
        for model in made:
            model.initialize(given)
        self.pre, self.post, self.bls = made
        self.tokenizer = self.pre.tokenizer

    def close(self) -> None:
        """End the BLS's thread."""
        self.bls.finalize()


def _load(name: str) -> ModuleType:
    """A model's module, with what it finds beside it on a server."""
    utilities = ModuleType("triton_python_backend_utils")
    utilities.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1  # type: ignore[attr-defined]
    folders = [MODELS / name, MODELS / "shared"]
    beside = [path.stem for folder in folders for path in folder.glob("*.py") if path.stem not in ("__init__", "model")]
    names, before = [utilities.__name__, *beside], list(sys.path)
    hidden = {key: sys.modules.pop(key) for key in names if key in sys.modules}
    try:
        sys.modules[utilities.__name__] = utilities
        sys.path[:0] = map(str, folders)
        spec = importlib.util.spec_from_file_location(f"served_{name}", MODELS / name / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
        for key in names:
            sys.modules.pop(key, None)
        sys.modules.update(hidden)
    return module


@dataclass(frozen=True)
class _Running:
    """A request inside: what the client sent, what preprocessing made of it, what the engine was told."""

    given: dict[str, Any]
    encoded: dict[str, Any]
    prompt: inputs.Prompt
    number: int


class ServedTarget:
    """Requests as a client sends them, answers as it gets them.

    Args:
        half: the Python models.
        model: whatever satisfies the engine's ``Model``.
        facts: what it is.
        limits, config: of the executor.
        vocabulary: real entries of the logits; the rest is padding.
    """

    def __init__(
        self, half: TextHalf, model: Model, facts: Facts, *, limits: Limits | None = None,
        config: ExecutorConfig | None = None, vocabulary: int | None = None,
    ) -> None:  # fmt: skip
        self.half, self.facts, self.vocabulary = half, facts, vocabulary or model.vocab_size
        self.executor = Executor(model, limits or Limits(max_batch_size=facts.batch), config, threaded=False)

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer requests in one in-flight batch."""
        return [self._whole(one) for one in [self._start(ask) for ask in asks]]

    def stream(self, ask: Ask) -> Answer:
        """The BLS's stream of one request; it names no ids."""
        one = self._start(ask, stream=True)
        if isinstance(one, Answer):
            return one
        try:
            events = tuple(self.events(one))
        except LabError as failed:
            return Answer(error=str(failed))
        return Answer(text="".join(event.text for event in events), events=events)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """What preprocessing makes of a prompt."""
        return _ids(self._encode(self._tensors(Ask(prompt, 1), stream=False)))

    def received(self, ask: Ask) -> dict[str, Any]:
        """The fields that the executor's sampler is made from."""
        given = self._tensors(ask, stream=False)
        request = self._read(given, self._encode(given)).request
        return {**request.sampling_fields(), "seed": request.seed, "max_tokens": request.max_tokens}

    def events(self, one: _Running) -> Iterator[Event]:
        """The responses that the BLS sends, as its ``generate_one`` does."""
        answer = self.half.bls.new_answer(one.given, one.encoded, 0, True, False)
        stopped = False
        for response in self.executor.stream(one.number):
            if not answer.ended:
                new = answer.take(outputs.tensors(response.result_or_raise(), one.prompt))
                if new or answer.carries_more:
                    yield Event(self._text(answer), (), False)
            if answer.ended and not stopped:
                stopped = True
                self.executor.cancel_request(one.number)  # a stop word that the engine missed
        answer.finish()
        yield Event(self._text(answer), (), True)

    def _start(self, ask: Ask, *, stream: bool = False) -> _Running | Answer:
        try:
            given = self._tensors(ask, stream=stream)
            self.half.bls_module.check(given)
            encoded = self._encode(given)
            prompt = self._read(given, encoded)
            return _Running(given, encoded, prompt, self.executor.enqueue_request(prompt.request))
        except (LabError, ValueError) as refused:
            return Answer(error=str(refused))

    def _tensors(self, ask: Ask, *, stream: bool) -> dict[str, Any]:
        bias = ask.settings.logit_bias or {}
        wanted = Sampling(
            ask.max_tokens, **{name: getattr(ask.settings, name) for name in FIELDS}, seed=ask.seed,
            min_tokens=ask.settings.min_length, stop_words=ask.stop_words, end_id=-1 if ask.ignore_end else None,
            embedding_bias_words=[self.half.tokenizer.decode([id]) for id in bias],
            embedding_bias_weights=list(bias.values()), exclude_input_in_output=True,
            return_log_probs=None if stream else True, return_generation_logits=None if stream else True,
        )  # fmt: skip
        return dict(self.half.client.tensors_of(as_text(ask.prompt), wanted, stream=stream))

    def _encode(self, given: dict[str, Any]) -> dict[str, Any]:
        names = self.half.bls_module.TO_PREPROCESSING
        found: dict[str, Any] = self.half.pre.encoded({names[key]: given[key] for key in names if key in given})
        return found

    def _read(self, given: dict[str, Any], encoded: dict[str, Any]) -> inputs.Prompt:
        tensors = self.half.bls.engine_inputs(given, encoded, 0)
        return inputs.read(tensors, decoupled=True, exclude_input=True, vocab_size=self.vocabulary)[0]

    def _whole(self, one: _Running | Answer) -> Answer:
        if isinstance(one, Answer):
            return one
        try:
            [response] = list(self.executor.stream(one.number))
            result = response.result_or_raise()
        except LabError as failed:
            return Answer(error=str(failed))
        arrays = outputs.tensors(result, one.prompt)
        answer = self.half.bls.new_answer(one.given, one.encoded, 0, False, False)
        answer.take(arrays)
        answer.finish()
        logits = arrays["generation_logits"][0, 0][:, : self.vocabulary]
        ids = tuple(int(id) for id in arrays["output_ids"][0, 0])
        if beyond := [id for id in ids if id >= self.vocabulary]:
            return Answer(error=f"the answer holds the id {beyond[0]}, which is no token")
        return Answer(
            ids, self._text(answer), FINISH[result.finish_reasons[0]],
            _ids(one.encoded), tuple(map(float, arrays["output_log_probs"][0, 0])), logits,
        )  # fmt: skip

    def _text(self, answer: Any) -> str:
        text: bytes = answer.tensors(self.half.bls.cumulative)["text_output"][0, 0]
        return text.decode()


def _ids(encoded: dict[str, Any]) -> tuple[int, ...]:
    row = encoded["INPUT_ID"][0, : int(np.asarray(encoded["REQUEST_INPUT_LEN"]).flat[0])]
    return tuple(int(id) for id in row)
