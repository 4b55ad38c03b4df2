"""A Triton server over the network: its models one by one for the ids, its BLS for the text.

The BLS answers with text alone, so the ids, log-probabilities and logits come from the models behind it, asked as the
BLS asks them: preprocessing, ``tensorrt_llm``, postprocessing. Streams are the BLS's own. That both routes agree is one
of the things that L6 tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labsupport.errors import ParameterError, RequestError
from labsupport.repository.contract import ENCODED_NAMES, PROMPT_NAMES
from labsupport.serving import Chunk, Client, Sampling
from labsupport.serving.sampling import KINDS
from labsupport.validation.target import Answer, Ask, Event, Facts, Finish, Prompt, as_text
from labsupport.validation.trace import SAMPLER, stages

ENGINE = "tensorrt_llm"
SAMPLING = {
    "temperature": "temperature", "top_k": "runtime_top_k", "top_p": "runtime_top_p", "min_length": "min_tokens",
    "repetition_penalty": "repetition_penalty", "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}  # fmt: skip


class TritonTarget:
    """A running server with the five models of ``labs assemble``, ours or NVIDIA's.

    Args:
        address: ``HOST:PORT`` of HTTP.
        tokenizer: of the original model; it only names single tokens for ``embedding_bias_words``.
        dtype, quantization: of the engine behind it, which a server does not say.
        protocol: of the text routes; tensors always go over gRPC.
        trace: what a server of ``trace.traced_server`` writes to; then received numbers are shown.

    Raises:
        ServerError: nobody answers.
    """

    def __init__(
        self, address: str, tokenizer: Any, *, dtype: str = "float32", quantization: str | None = None,
        protocol: Literal["grpc", "http"] = "grpc", trace: Path | None = None,
    ) -> None:  # fmt: skip
        self.tensors, self.text = Client(address), Client(address, protocol=protocol)
        self.tokenizer = tokenizer
        self.facts = Facts(f"{protocol}://{address}", "triton", dtype=dtype, quantization=quantization, page=32)
        self._trace = trace
        self._gives_logits = True
        self._gives_logits = self._answer(Ask("Hi", 1)).error is None

    def close(self) -> None:
        """Close the connections."""
        self.tensors.close()
        self.text.close()

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer requests, as many at once as the engine has slots."""
        with ThreadPoolExecutor(self.facts.batch) as pool:
            return list(pool.map(self._answer, asks))

    def stream(self, ask: Ask) -> Answer:
        """The BLS's stream; it names no ids, and its client keeps the final flag to itself."""
        try:
            chunks = self.text.stream(*self._text_request(ask)).answer().chunks
        except (RequestError, ParameterError) as refused:
            return Answer(error=refused.why)
        last = len(chunks) - 1
        events = tuple(Event(chunk.text, chunk.ids, place == last) for place, chunk in enumerate(chunks))
        return Answer(text="".join(event.text for event in events), events=events)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """What preprocessing makes of a prompt."""
        return _ids(self._preprocess(Ask(prompt, 1)))

    def received(self, ask: Ask) -> Mapping[str, Any] | None:
        """What the sampler of a traced server is made from; other servers do not show it."""
        if self._trace is None:
            return None
        self.text.generate(*self._text_request(ask))
        last = [stage for stage in stages(self._trace) if stage.name == SAMPLER][-1]
        renamed = {"min_length": last.number("min_tokens")}
        return {field: last.number(field) for field in (*SAMPLING, "seed", "max_tokens")} | renamed

    def _answer(self, ask: Ask) -> Answer:
        try:
            encoded = self._preprocess(ask)
            [chunk] = self._call(ENGINE, {**self._engine_tensors(ask), **encoded})
            ids = chunk.ids
            text = self.text.generate(*self._text_request(ask)).text if ask.stop_words else self._decode(ids)
        except (RequestError, ParameterError) as refused:
            return Answer(error=refused.why)
        log_probs = chunk.tensors["output_log_probs"].reshape(-1)[: len(ids)]
        logits = chunk.tensors["generation_logits"] if self._gives_logits else None
        rows = None if logits is None else logits.reshape(-1, logits.shape[-1])[: len(ids)].astype(np.float32)
        return Answer(ids, text, _finish(ids, encoded, ask), _ids(encoded), tuple(map(float, log_probs)), rows)

    def _preprocess(self, ask: Ask) -> dict[str, Any]:
        """The tensors for the engine, by the engine's names."""
        fields: dict[str, Any] = {"text_input": as_text(ask.prompt), "max_tokens": ask.max_tokens}
        fields |= {"stop_words": list(ask.stop_words)} if ask.stop_words else {}
        fields |= {"end_id": -1} if ask.ignore_end else {}
        if bias := ask.settings.logit_bias:
            fields |= {"embedding_bias_words": self._words(bias), "embedding_bias_weights": list(bias.values())}
        [chunk] = self._call("preprocessing", {PROMPT_NAMES[name]: value for name, value in fields.items()})
        return {ENCODED_NAMES[name]: value for name, value in chunk.tensors.items() if _is_for_decoder(name, value)}

    def _engine_tensors(self, ask: Ask) -> dict[str, Any]:
        given = {theirs: getattr(ask.settings, ours) for ours, theirs in SAMPLING.items()} | {"seed": ask.seed}
        flags = {"return_log_probs": True, "streaming": False, "exclude_input_in_output": True}
        flags |= {"return_generation_logits": True} if self._gives_logits else {}
        return {name: value for name, value in given.items() if value is not None} | flags

    def _decode(self, ids: Sequence[int]) -> str:
        [chunk] = self._call("postprocessing", {"TOKENS_BATCH": [list(ids)], "SEQUENCE_LENGTH": [len(ids)]})
        found = chunk.tensors["OUTPUT"].reshape(-1)[0]
        return found.decode() if isinstance(found, bytes) else str(found)

    def _text_request(self, ask: Ask) -> tuple[str, Sampling]:
        fields = {name: getattr(ask.settings, name) for name in SAMPLING if name != "min_length"}
        bias = ask.settings.logit_bias or {}
        return as_text(ask.prompt), Sampling(
            ask.max_tokens, **fields, seed=ask.seed, min_tokens=ask.settings.min_length, stop_words=ask.stop_words,
            end_id=-1 if ask.ignore_end else None, embedding_bias_words=self._words(bias),
            embedding_bias_weights=list(bias.values()), exclude_input_in_output=True,
        )  # fmt: skip

    def _words(self, bias: Mapping[int, float]) -> list[str]:
        return [self.tokenizer.decode([id]) for id in bias]

    def _call(self, model: str, values: Mapping[str, Any]) -> tuple[Chunk, ...]:
        about = self.tensors.about(model)
        arrays = {}
        for name, value in values.items():
            array = np.asarray(value, KINDS[about.inputs[name]])
            arrays[name] = array.reshape(1, *(array.shape or (1,)))
        chunks = self.tensors.ask(arrays, model=model).answer().chunks
        if len(chunks) != 1:
            raise RequestError(
                f"{model} gave {len(chunks)} responses to a request that does not stream",
                why="a whole answer is one response",
                fix="see the server's log",
            )
        return chunks


def _is_for_decoder(name: str, value: Any) -> bool:
    return name in ENCODED_NAMES and not name.startswith(("DECODER_", "REQUEST_DECODER")) and value.size > 0


def _ids(encoded: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(id) for id in encoded["input_ids"].reshape(-1))


def _finish(ids: Sequence[int], encoded: Mapping[str, Any], ask: Ask) -> Finish:
    if ids and ids[-1] == int(np.asarray(encoded["end_id"]).flat[0]):
        return "end"
    return "length" if len(ids) == ask.max_tokens else "stop"
