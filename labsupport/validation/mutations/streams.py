"""M39 to M43: faults on the way back, from tokens to what the client shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from labsupport.decoding import Context, log_softmax
from labsupport.engine import sequences
from labsupport.validation.mutations.fault import Bench, Fault, above, swapped
from labsupport.validation.target import Answer, Ask, Event, Target, Wrapped

WHERE = "the detokenizer"
STREAM = "the stream"


def _each_alone(decode: Callable[[Bench, list[int]], str]) -> Callable[[Bench], AbstractContextManager[None]]:
    """The BLS decodes every piece for itself."""

    def swap(bench: Bench) -> AbstractContextManager[None]:
        class Alone:
            def __init__(self, *_: Any) -> None:
                pass

            def push(self, ids: list[int]) -> str:
                return decode(bench, list(ids))

            def finish(self) -> str:
                return ""

        return swapped(bench.half.bls_module, Detokenizer=Alone)

    return swap


def _post(bench: Bench, ids: list[int]) -> str:
    """What the ensemble's postprocessing makes of a piece."""
    import numpy as np

    return str(bench.half.post.decode(np.array(ids, np.int32)).decode())


def _stripped(bench: Bench, ids: list[int]) -> str:
    return _post(bench, ids).lstrip(" ")


class Changed(Wrapped):
    """A target whose streams are changed on their way."""

    def __init__(self, inner: Target, change: Callable[[list[Event]], list[Event]]) -> None:
        super().__init__(inner)
        self._change = change

    def stream(self, ask: Ask) -> Answer:
        """The inner one's events, changed."""
        answer = self.inner.stream(ask)
        events = tuple(self._change(list(answer.events)))
        return replace(answer, events=events, text="".join(event.text for event in events))


def _on_the_way(change: Callable[[list[Event]], list[Event]]) -> Callable[[Bench], AbstractContextManager[Target]]:
    @contextmanager
    def plant(bench: Bench) -> Iterator[Target]:
        yield Changed(bench.target(), change)

    return plant


def _without_last(events: list[Event]) -> list[Event]:
    """The last piece with text is lost; the final flag arrives."""
    last = max((place for place, event in enumerate(events) if event.text), default=None)
    return [event._replace(text="") if place == last else event for place, event in enumerate(events)]


def _last_twice(events: list[Event]) -> list[Event]:
    return [*events[:-1], *([events[-2]._replace(final=False)] if len(events) > 1 else []), *events[-1:]]


def _leaking(bench: Bench) -> AbstractContextManager[None]:
    """Nobody looks for stop words in the text, and the engine is not told either."""
    bls = bench.half.bls
    honest = type(bls).engine_inputs

    def engine_inputs(given: Any, encoded: Any, index: int) -> dict[str, Any]:
        tensors: dict[str, Any] = honest(bls, given, encoded, index)
        if "stop_words" in given:
            tensors.pop("stop_words_list", None)
        return tensors

    @contextmanager
    def both() -> Iterator[None]:
        with (
            swapped(bls, engine_inputs=engine_inputs),
            swapped(bench.half.bls_module.Stopper, cut=lambda *_: None),
        ):
            yield

    return both()


def _accumulating(bench: Bench) -> AbstractContextManager[None]:
    """``accumulate_tokens`` on the server, and a client that was not told."""
    return swapped(bench.half.bls, cumulative=True)


@contextmanager
def _after_filtering(_: Bench) -> Iterator[None]:
    """ln p after penalties and cuts, reported as the model's own."""
    honest = sequences.Sampled.accept

    def accept(self: Any, logits: Any) -> Any:
        context = Context(tuple(self.prompt), tuple(self.output))
        done = honest(self, logits)
        if self._log_probs:
            cut = self._sampler.logits(logits[0], context)
            self._log_probs[-1] = float(log_softmax(cut)[self.output[-1]])
        return done

    with swapped(sequences.Sampled, accept=accept):
        yield


@contextmanager
def _one_late(_: Bench) -> Iterator[None]:
    """Each ln p stands beside the token after its own."""
    honest = sequences.Sampled.result

    def result(self: Any, *, is_final: bool) -> Any:
        found = honest(self, is_final=is_final)
        if found.log_probs is None:
            return found
        [row] = found.log_probs
        return replace(found, log_probs=((row[-1], *row[:-1]),) if row else found.log_probs)

    with swapped(sequences.Sampled, result=result):
        yield


FAULTS = (
    Fault("M39", "pieces decoded alone: spaces lost", "L6", WHERE, above(_each_alone(_stripped)),
          note="byte-level BPE keeps its spaces: they are taken off as SentencePiece does"),
    Fault("M40", "pieces decoded alone: characters broken", "L6", WHERE, above(_each_alone(_post))),
    Fault("M41", "the last piece is lost", "L6", STREAM, _on_the_way(_without_last), "lost"),
    Fault("M41", "the last piece comes twice", "L6", STREAM, _on_the_way(_last_twice), "twice", measured=False),
    Fault("M41", "stop words leak", "L6", STREAM, above(_leaking), "leak", measured=False),
    Fault("M42", "whole text sent as new text", "L6", STREAM, above(_accumulating)),
    Fault("M43", "ln p after filtering", "L2", "log-probs", above(_after_filtering), "filtered"),
    Fault("M43", "ln p of the token before", "L2", "log-probs", above(_one_late), "position", measured=False),
)  # fmt: skip
