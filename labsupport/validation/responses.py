"""``responses.jsonl``: what a target answered, one JSON object a line; ids beside text, bits beside decimals.

What a person reads: ``conversations``, ``parameters``, ``input`` (the prompt after its template, special tokens too),
``output`` (without the prompt, its end token included). A number of 64 bits is a string, because JSON readers keep only
53; a float has its float32 bits beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labsupport.errors import ParameterError
from labsupport.validation.levels.l0_parameters import f32
from labsupport.validation.prompts import U64, Variation, complaint
from labsupport.validation.target import Answer, Ask, Target
from labsupport.workspace import atomic_text

FLOATS = ("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_p")
Ids = tuple[Annotated[int, Field(ge=0)], ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Float(_Strict):
    """A number with the bits of its float32."""

    v: float
    f32: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]

    @model_validator(mode="after")
    def _bits(self) -> Float:
        if f32(self.v) != self.f32:
            raise ValueError(f"{self.v} has the bits {f32(self.v)}, not {self.f32}")
        return self


class Turn(_Strict):
    """Who said what."""

    role: Literal["system", "user", "assistant", "model", "tool"]
    content: str


class Conversation(_Strict):
    """The turns, the answer last."""

    contents: tuple[Turn, ...]


class Parameters(_Strict):
    """As sent; what is null was left out."""

    temperature: Float | None = None
    top_p: Float | None = None
    repetition_penalty: Float | None = None
    presence_penalty: Float | None = None
    frequency_penalty: Float | None = None
    min_p: Float | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    seed: U64 | None = None
    max_tokens: Annotated[int, Field(ge=0)]
    stream: bool


class Piece(_Strict):
    """One event of a stream."""

    text: str
    ids: Ids = ()
    final: bool


class System(_Strict):
    """Who answered."""

    name: str
    kind: str
    sampler_dialect: str
    dtype: str
    quantization: str | None = None


class Response(_Strict):
    """One answer.

    Args:
        id, prompt_id: of the variation and of its prompt.
        conversations, parameters, input, output: for people; the rest is for programs.
        input_ids, output_ids: None or () where the target names none.
        text: the output as a user sees it.
        log_probs: ln p of each output id under the model; None where not given.
        error: what the target said instead.
    """

    schema_: Literal["trtllm-lab/response/2"] = Field("trtllm-lab/response/2", alias="schema")
    id: str
    prompt_id: str
    conversations: Conversation
    parameters: Parameters
    input: str
    input_ids: Ids | None
    output: str
    output_ids: Ids
    text: str
    finish_reason: Literal["end", "stop", "length", "cancelled", "unknown"]
    log_probs: tuple[float, ...] | None
    events: tuple[Piece, ...] = ()
    system: System
    error: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Response:
        if self.log_probs is not None and len(self.log_probs) != len(self.output_ids):
            raise ValueError(f"{len(self.log_probs)} log_probs for {len(self.output_ids)} output_ids")
        if self.parameters.stream and not self.events and self.error is None:
            raise ValueError("a stream without events")
        if self.events and "".join(piece.text for piece in self.events) != self.text:
            raise ValueError("the events, joined, are not the text")
        return self


def respond(target: Target, tokenizer: Any, variations: Sequence[Variation]) -> Iterator[Response]:
    """Ask a target all variations, streams one by one and the rest together.

    Args:
        tokenizer: of the original model, for ``input`` and ``output``.
    """
    whole = [variation for variation in variations if not variation.stream]
    answers = dict(zip([v.id for v in whole], target.generate([v.ask for v in whole]), strict=True))
    for variation in variations:
        answer = answers[variation.id] if not variation.stream else target.stream(variation.ask)
        yield _response(target, tokenizer, variation, answer)


def _response(target: Target, tokenizer: Any, variation: Variation, answer: Answer) -> Response:
    ask, facts = variation.ask, target.facts
    ids = answer.input_ids if answer.input_ids is not None or answer.error else target.tokenize(ask.prompt)
    turns = [Turn(role="user", content=ask.prompt)] if isinstance(ask.prompt, str) else [
        Turn(role=message.role, content=message.content) for message in ask.prompt
    ]  # fmt: skip
    return Response(
        id=variation.id,
        prompt_id=variation.prompt_id,
        conversations=Conversation(contents=(*turns, Turn(role="model", content=answer.text))),
        parameters=_parameters(ask, variation.stream),
        input="" if ids is None else tokenizer.decode(list(ids)),
        input_ids=ids,
        output=tokenizer.decode(list(answer.output_ids)) if answer.output_ids else answer.text,
        output_ids=answer.output_ids,
        text=answer.text,
        finish_reason=answer.finish,
        log_probs=answer.log_probs,
        events=tuple(Piece(text=text, ids=ids, final=final) for text, ids, final in answer.events),
        system=System(
            name=facts.name, kind=facts.kind, sampler_dialect=facts.dialect, dtype=facts.dtype,
            quantization=facts.quantization,
        ),
        error=answer.error,
    )  # fmt: skip


def _parameters(ask: Ask, stream: bool) -> Parameters:
    given = {name: value for name in FLOATS if (value := getattr(ask.settings, name)) is not None}
    return Parameters(
        **{name: Float(v=value, f32=f32(value)) for name, value in given.items()},
        top_k=ask.settings.top_k, seed=None if ask.seed is None else str(ask.seed), max_tokens=ask.max_tokens,
        stream=stream,
    )  # fmt: skip


def write_responses(path: Path, responses: Iterable[Response]) -> int:
    """Write a file of responses, whole or not at all -> how many."""
    lines = [response.model_dump_json(by_alias=True) for response in responses]
    atomic_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_responses(path: Path) -> list[Response]:
    """Read and check a file of responses.

    Raises:
        ParameterError: it cannot be read, or a line breaks the schema; the message names line and field.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold what splitlines takes for a line's end
    except OSError as problem:
        raise ParameterError(f"{path} cannot be read", why=str(problem), fix="labs respond TARGET") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            found.append(Response.model_validate_json(line))
        except ValidationError as problem:
            place, why = complaint(problem)
            raise ParameterError(
                f"{path}, line {number}: {place or 'the object'}", why=why, fix="labs respond TARGET"
            ) from None
    return found
