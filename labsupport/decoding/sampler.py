"""A sampler is a list of named steps and nothing else: print it, trace it, draw from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from labsupport.decoding.steps import Array, softmax
from labsupport.decoding.streams import Stream


@dataclass(frozen=True)
class Context:
    """What came before the token to draw.

    Args:
        prompt: the ids that the user sent.
        output: the ids generated so far. Systems differ in which of the two a penalty looks at.
    """

    prompt: tuple[int, ...] = ()
    output: tuple[int, ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and output together."""
        return self.prompt + self.output


NO_CONTEXT = Context()


@dataclass(frozen=True)
class Step:
    """One named change of the logits.

    Args:
        name: what it is called in the request, e.g. ``top_p``.
        setting: the value it runs with, for people to read.
        apply: (logits [..., V], context) -> logits [..., V].
    """

    name: str
    setting: Any
    apply: Callable[[Array, Context], Array] = field(repr=False)

    def __str__(self) -> str:
        return self.name if self.setting is None else f"{self.name}={self.setting}"


class Snapshot(NamedTuple):
    """The state after one step of a trace: its name, the logits [..., V] and their probabilities [..., V]."""

    name: str
    logits: Array
    probs: Array


@dataclass(frozen=True)
class Sampler:
    """Steps in the order in which they run.

    Args:
        name: the dialect it speaks, e.g. ``hf``.
        steps: the steps; none at all means a draw from the model's own distribution.

    Example:
        >>> from labsupport.decoding import dialect
        >>> print(dialect("trtllm-cpp", top_k=50, top_p=0.9))
        trtllm-cpp: logits -> top_k=50 -> top_p=0.9 -> draw
    """

    name: str
    steps: tuple[Step, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}: " + " -> ".join(["logits", *map(str, self.steps), "draw"])

    def logits(self, logits: Array, context: Context = NO_CONTEXT) -> Array:
        """The logits [..., V] after all steps."""
        for step in self.steps:
            logits = step.apply(logits, context)
        return logits

    def probs(self, logits: Array, context: Context = NO_CONTEXT) -> Array:
        """The exact distribution [..., V] of the next token."""
        return softmax(self.logits(logits, context))

    def trace(self, logits: Array, context: Context = NO_CONTEXT) -> list[Snapshot]:
        """The state before the first step (named ``logits``) and after each step."""
        snapshots = [Snapshot("logits", logits, softmax(logits))]
        for step in self.steps:
            logits = step.apply(logits, context)
            snapshots.append(Snapshot(str(step), logits, softmax(logits)))
        return snapshots

    def sample(self, logits: Array, stream: Stream, context: Context = NO_CONTEXT) -> int:
        """Draw one token id for logits [V], with the stream's own way of turning randomness into a token."""
        return stream.draw(self.probs(logits, context))
