"""A request on its way: what it has written, what it runs next, and what it makes of the logits that come back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from labsupport.decoding import Context, Sampler, Stream, dialect, log_softmax, softmax, stream_for
from labsupport.decoding.beam import BeamSettings, Lane
from labsupport.decoding.sampler import NO_CONTEXT
from labsupport.engine.blocks import ROOT, Key, chain_key
from labsupport.engine.protocol import Logits
from labsupport.engine.requests import FinishReason, PerfMetrics, Request, Result
from labsupport.engine.scheduler import Job
from labsupport.errors import ParameterError

CUTS = ("greedy", "top_k", "top_p", "min_p")  # steps that a beam search has no use for: it draws nothing


class Active(Job, ABC):
    """What one sequence, and a search with its beams, have in common.

    Args:
        request: as admitted.
        id: a number of its own; samples of one request have one each.
        request_id: the number that the client knows.
        index: which sample of the request it is.
        tokens_per_block: for the keys of its blocks; 0 turns reuse off.
    """

    def __init__(self, request: Request, id: int, request_id: int, index: int, tokens_per_block: int) -> None:
        self.prompt = list(request.input_token_ids)
        last = len(self.prompt) + request.max_tokens - 1  # the last token that it writes is never run
        super().__init__(id, len(self.prompt), last, priority=request.priority, beams=request.beam_width)
        self.request, self.request_id, self.index = request, request_id, index
        self.slot = -1
        self.finished = False
        self.cancelled = False
        self.metrics = PerfMetrics(arrival_time_ns=time.monotonic_ns())
        self._size = tokens_per_block
        self._chain: list[Key] = []
        self._prompt_logits: list[Logits] = []
        self._sampler = dialect("trtllm-cpp", **request.sampling_fields())
        self.wait()

    @property
    def cached_tokens(self) -> Sequence[int]:
        """The tokens whose keys and values are or will be in the cache, as far as they are known."""
        return self.prompt

    def wait(self) -> None:
        """Begin, or begin again after a pause: everything that is known must be computed before it goes on."""
        self.context, self.computed, self.slot = len(self.cached_tokens), 0, -1
        # At least one token must run to give logits, and a request for all prompt logits must run them all.
        reusable = 0 if self.wants_prompt_logits else self.context - 1
        self.keys = self.chain(reusable)

    def chain(self, tokens: int) -> Sequence[Key]:
        """Keys of the full blocks among the first ``tokens`` tokens."""
        count = tokens // self._size if self._size else 0
        while len(self._chain) < count:
            start = len(self._chain) * self._size
            before = self._chain[-1] if self._chain else ROOT
            self._chain.append(chain_key(before, self.cached_tokens[start : start + self._size]))
        return self._chain[:count]

    @property
    def wants_prompt_logits(self) -> bool:
        """Whether its prompt's logits are asked for and not complete."""
        return self.request.return_context_logits and sum(map(len, self._prompt_logits)) < len(self.prompt)

    def keep_prompt_logits(self, start: int, logits: Logits) -> None:
        """Logits [n, V] of the prompt's tokens from ``start`` on; at 0, those from before a pause are forgotten."""
        self._prompt_logits = [*self._prompt_logits, np.array(logits)] if start else [np.array(logits)]

    @abstractmethod
    def rows(self) -> list[int]:
        """The token that each beam runs next, at the position ``computed``."""

    @abstractmethod
    def accept(self, logits: Logits) -> Sequence[int]:
        """Write the next token of each beam, from logits [rows, V] -> which beam each new beam continues."""

    @abstractmethod
    def result(self, *, is_final: bool) -> Result:
        """What there is to report."""

    def _stamp(self) -> None:
        now = time.monotonic_ns()
        first = self.metrics.first_token_time_ns or now
        self.metrics = replace(self.metrics, first_token_time_ns=first, last_token_time_ns=now)

    def _context_logits(self) -> Logits | None:
        complete = self._prompt_logits and not self.wants_prompt_logits
        return np.concatenate(self._prompt_logits) if complete and self.finished else None

    def _perf_metrics(self) -> PerfMetrics | None:
        return self.metrics if self.request.return_perf_metrics and self.finished else None


class Sampled(Active):
    """One sequence: greedy, or drawn from its own random stream."""

    def __init__(self, request: Request, id: int, request_id: int, index: int, tokens_per_block: int) -> None:
        self.output: list[int] = []
        self.reason = FinishReason.NOT_FINISHED
        super().__init__(request, id, request_id, index, tokens_per_block)
        self._stream = stream_for("trtllm-cpp", (request.seed or 0) + index)
        self._log_probs: list[float] = []
        self._logits: list[Logits] = []
        self._reported = 0

    @property
    def cached_tokens(self) -> Sequence[int]:
        """Prompt and output."""
        return [*self.prompt, *self.output]

    def rows(self) -> list[int]:
        """The last token that it wrote."""
        return [self.output[-1]]

    def accept(self, logits: Logits) -> Sequence[int]:
        """Choose a token and see whether it was the last one."""
        row, request = logits[0], self.request
        token = choose(self._sampler, row, self._stream, self.prompt, self.output)
        self.output.append(token)
        if request.return_log_probs:
            self._log_probs.append(float(log_softmax(row)[token]))
        if request.return_generation_logits:
            self._logits.append(row.copy())
        self._stamp()
        self.reason = self._reason()
        self.finished = self.reason is not FinishReason.NOT_FINISHED
        return [0]

    def _reason(self) -> FinishReason:
        if self.output[-1] in self.request.end_ids:
            return FinishReason.END_ID
        if any(tuple(self.output[-len(word) :]) == word for word in self.request.stop_words):
            return FinishReason.STOP_WORDS
        return FinishReason.LENGTH if len(self.output) == self.request.max_tokens else FinishReason.NOT_FINISHED

    def result(self, *, is_final: bool) -> Result:
        """Its output; while streaming, what is new of it."""
        new = slice(self._reported if self.request.streaming else 0, None)
        self._reported = len(self.output)
        probs, logits = self.request.return_log_probs, self.request.return_generation_logits
        return Result(
            output_token_ids=(tuple(self.output[new]),),
            finish_reasons=(FinishReason.CANCELLED if self.cancelled else self.reason,),
            is_final=is_final,
            sequence_index=self.index,
            cum_log_probs=(sum(self._log_probs),) if probs else None,
            log_probs=(tuple(self._log_probs[new]),) if probs else None,
            context_logits=self._context_logits(),
            generation_logits=np.array(self._logits[new]) if logits else None,
            perf_metrics=self._perf_metrics(),
        )


def choose(sampler: Sampler, logits: Logits, stream: Stream, prompt: Sequence[int], output: Sequence[int]) -> int:
    """The next token from logits [V], as ``sampler.sample`` would choose it.

    Greedy needs no distribution: it takes the largest logit, among equals the lowest id.
    """
    greedy = bool(sampler.steps) and sampler.steps[-1].name == "greedy"
    steps = sampler.steps[:-1] if greedy else sampler.steps
    context = Context(tuple(prompt), tuple(output)) if steps else NO_CONTEXT
    for step in steps:
        logits = step.apply(logits, context)
    likeliest = int(np.argmax(logits))
    if greedy and logits[likeliest] > -np.inf:
        return likeliest
    return stream.draw(softmax(logits))  # raises where no token is left


class Beams(Active):
    """A beam search, driven step by step."""

    def __init__(self, request: Request, id: int, request_id: int, index: int, tokens_per_block: int) -> None:
        super().__init__(request, id, request_id, index, tokens_per_block)
        stopping = request.early_stopping if request.early_stopping == "never" else bool(request.early_stopping)
        settings = BeamSettings(
            request.beam_width, request.max_tokens, request.ends, request.length_penalty, early_stopping=stopping
        )
        self._lane = Lane(settings)
        self._log_probs: dict[tuple[int, ...], tuple[float, ...]] = {(): ()}  # of every sequence that may be returned
        steps = tuple(step for step in self._sampler.steps if step.name not in CUTS)
        self._penalties = Sampler("beams", steps)

    def rows(self) -> list[int]:
        """The last token of each beam."""
        return [beam.tokens[-1] for beam in self._lane.beams]

    def accept(self, logits: Logits) -> Sequence[int]:
        """Continue all beams, keep the best."""
        if self._penalties.steps:
            prompt = tuple(self.prompt)
            contexts = [Context(prompt, beam.tokens) for beam in self._lane.beams]
            rows = [self._penalties.logits(row, context) for row, context in zip(logits, contexts, strict=True)]
            logits = np.stack(rows)
        step = self._lane.advance(log_softmax(logits), {})
        kept, known = step.with_fate("kept"), self._log_probs
        self._log_probs = {h.tokens: known[h.tokens] for h in self._lane.finished if h.tokens in known}
        for new in [*kept, *step.with_fate("finished")]:
            parent = step.beams[new.parent]
            self._log_probs[new.tokens] = (*known[parent.tokens], new.logprob - parent.logprob)
        if self._lane.stopped and not self._lane.finished:
            raise ParameterError(
                "the search found no sequence", why="every continuation has probability 0", fix="loosen the constraints"
            )
        self._stamp()
        self.finished = bool(self._lane.stopped)
        return [candidate.parent for candidate in kept]

    def result(self, *, is_final: bool) -> Result:
        """All beams, best first: what was found, or while it searches, what runs."""
        found = self._lane.finished if self.finished and not self.cancelled else self._lane.beams
        beams = list(found)[: self.request.num_return_sequences if self.request.num_return_sequences > 1 else None]
        probs = self.request.return_log_probs
        return Result(
            output_token_ids=tuple(beam.tokens for beam in beams),
            finish_reasons=tuple(self._reason(beam.tokens) for beam in beams),
            is_final=is_final,
            cum_log_probs=tuple(beam.logprob for beam in beams) if probs else None,
            log_probs=tuple(self._log_probs[beam.tokens] for beam in beams) if probs else None,
            context_logits=self._context_logits(),
            perf_metrics=self._perf_metrics(),
        )

    def _reason(self, tokens: tuple[int, ...]) -> FinishReason:
        if self.cancelled or not self.finished:
            return FinishReason.CANCELLED if self.cancelled else FinishReason.NOT_FINISHED
        return FinishReason.END_ID if tokens[-1] in self.request.ends else FinishReason.LENGTH
