"""What can be validated: whatever answers requests. Every target speaks these few types and nothing else."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from labsupport.decoding import Settings


class Message(NamedTuple):
    """One turn of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


Prompt = str | tuple[Message, ...]
"""Text as it is, or a conversation that the target puts through its chat template."""

Finish = Literal["end", "stop", "length", "cancelled", "unknown"]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Ask:
    """One request.

    Args:
        prompt: text or conversation.
        max_tokens: tokens to write at most.
        settings: the sampling fields, as the target's dialect has them; none set is greedy for ``trtllm-cpp``.
        seed: of the random stream; None leaves it out.
        stop_words: texts that end the answer.
        ignore_end: write on after an end token.
    """

    prompt: Prompt
    max_tokens: int
    settings: Settings = field(default_factory=Settings)
    seed: int | None = None
    stop_words: tuple[str, ...] = ()
    ignore_end: bool = False


class Event(NamedTuple):
    """One message of a stream: its new text, its new ids (empty where the target names none), and the final flag."""

    text: str
    ids: tuple[int, ...]
    final: bool


@dataclass(frozen=True)
class Answer:
    """What came back.

    Args:
        output_ids: the new ids, the end token included where the target gives it.
        text: without the prompt and without special tokens.
        finish: why it stopped.
        input_ids: the prompt as the target tokenized it, or None where it does not say.
        log_probs: ln p of each output id under the model, before any sampling step; None where not given.
        logits: float32 [len(output_ids), V] that each id was drawn from; None where not given.
        events: the stream, if it was one.
        error: what the target said instead of answering.
    """

    output_ids: tuple[int, ...] = ()
    text: str = ""
    finish: Finish = "unknown"
    input_ids: tuple[int, ...] | None = None
    log_probs: tuple[float, ...] | None = None
    logits: Logits | None = field(default=None, repr=False, compare=False)
    events: tuple[Event, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a target before it is asked.

    Args:
        name: for reports.
        kind: engine, triton, huggingface or trtllm.
        dialect: how it samples: a name of ``decoding.DIALECTS``.
        dtype: of its weights: float32, float16 or bfloat16.
        quantization: such as W8A16, or None.
        page: tokens in a block of its KV cache, or None.
        batch: requests that it serves at once.
    """

    name: str
    kind: str
    dialect: str = "trtllm-cpp"
    dtype: str = "float32"
    quantization: str | None = None
    page: int | None = None
    batch: int = 8

    @property
    def exact(self) -> bool:
        """Whether it computes as the float32 reference does, but for the order of additions."""
        return self.dtype == "float32" and self.quantization is None


class Target(Protocol):
    """Something that answers requests."""

    @property
    def facts(self) -> Facts:
        """What it is."""
        ...

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer requests that arrive together; one that is refused has an ``error``."""
        ...

    def stream(self, ask: Ask) -> Answer:
        """Answer one request piece by piece; ``events`` holds the pieces as they came."""
        ...

    def tokenize(self, prompt: Prompt) -> tuple[int, ...] | None:
        """The ids that the target makes of a prompt; None where it does not show them."""
        ...

    def received(self, ask: Ask) -> Mapping[str, Any] | None:
        """The numbers of a request as they reach the sampler, by their names in an ask; None where not shown."""
        ...


class OneByOne(ABC):
    """The part of a target that answers one request at a time and streams none."""

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Answer requests, one after the other."""
        return [self._answer(ask) for ask in asks]

    def stream(self, ask: Ask) -> Answer:
        """As one event: the text as a whole."""
        answer = self._answer(ask)
        return replace(answer, events=(Event(answer.text, answer.output_ids, True),))

    @abstractmethod
    def _answer(self, ask: Ask) -> Answer: ...


class Wrapped:
    """A target around another one, to change one thing: a planted fault, or a harmless variation."""

    def __init__(self, inner: Target) -> None:
        self.inner = inner

    @property
    def facts(self) -> Facts:
        """Of the inner one."""
        return self.inner.facts

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """As the inner one does."""
        return self.inner.generate(asks)

    def stream(self, ask: Ask) -> Answer:
        """As the inner one does."""
        return self.inner.stream(ask)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...] | None:
        """As the inner one does."""
        return self.inner.tokenize(prompt)

    def received(self, ask: Ask) -> Mapping[str, Any] | None:
        """As the inner one does."""
        return self.inner.received(ask)


def conversation(*turns: tuple[str, str]) -> tuple[Message, ...]:
    """A prompt of turns.

    Example:
        >>> conversation(("user", "Hi"))
        (Message(role='user', content='Hi'),)
    """
    return tuple(Message(*turn) for turn in turns)


def as_text(prompt: Prompt) -> str:
    """A prompt as our server's ``text_input`` takes it: a conversation is a JSON list of messages."""
    if isinstance(prompt, str):
        return prompt
    return json.dumps([message._asdict() for message in prompt], ensure_ascii=False)
