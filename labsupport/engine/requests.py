"""What goes into the executor and what comes out, named as in ``tensorrt_llm.bindings.executor``."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.decoding import Settings
from labsupport.engine.protocol import Logits
from labsupport.errors import LabError


@dataclass(frozen=True)
class Request:
    """One prompt and what is wanted for it. What a field may be is checked when it is enqueued.

    Args:
        input_token_ids: the prompt.
        max_tokens: tokens to write at most.
        sampling: how tokens are drawn, in the dialect ``trtllm-cpp``: with nothing set it is greedy.
        seed: of the random stream; unset is 0, so that unseeded requests repeat each other.
        end_ids: each ends the text and is part of it; -1 stands for none.
        stop_words: each, a list of ids, ends the text and stays in it.
        bad_words: each, a list of ids, is never completed.
        beam_width: above 1, beam search; then sampling draws nothing, and only its penalties count.
        num_return_sequences: samples with the seeds seed, seed + 1, ...; of a beam search, the beams to return.
        length_penalty, early_stopping: as in ``decoding.beam_search``; the defaults are TensorRT-LLM's.
        return_log_probs: ln p of each token under the model, before penalties and cuts.
        return_context_logits: logits of all prompt tokens; the prompt is then computed in full.
        return_generation_logits: the logits that each token was drawn from.
        return_perf_metrics: times and blocks.
        streaming: a response for each token instead of one at the end.
        priority: 0 to 1; a higher one is served first.
    """

    input_token_ids: Sequence[int]
    max_tokens: int
    sampling: Settings = field(default_factory=Settings)
    seed: int | None = None
    end_ids: Sequence[int] = ()
    stop_words: Sequence[Sequence[int]] = ()
    bad_words: Sequence[Sequence[int]] = ()
    beam_width: int = 1
    num_return_sequences: int = 1
    length_penalty: float = 0.0
    early_stopping: bool | str = True
    return_log_probs: bool = False
    return_context_logits: bool = False
    return_generation_logits: bool = False
    return_perf_metrics: bool = False
    streaming: bool = False
    priority: float = 0.5

    def sampling_fields(self) -> dict[str, Any]:
        """The keywords of ``decoding.dialect`` for this request, its end ids and bad words among them."""
        wanted = replace(
            self.sampling,
            bad_words=[*self.bad_words, *(self.sampling.bad_words or ())] or None,
            end_ids=self.ends or self.sampling.end_ids,
        )
        return {f.name: getattr(wanted, f.name) for f in fields(wanted)}

    @property
    def ends(self) -> tuple[int, ...]:
        """The ids that end the text."""
        return tuple(end for end in self.end_ids if end != -1)


class FinishReason(enum.Enum):
    """Why a sequence is over."""

    NOT_FINISHED = "not finished"
    END_ID = "end id"
    STOP_WORDS = "stop words"
    LENGTH = "length"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class PerfMetrics:
    """Times of a request on the monotonic clock, in nanoseconds (0: it never came to that), and its blocks.

    Args:
        kv_cache_alloc_total_blocks: blocks that it was given, reused ones included; of these
        kv_cache_alloc_new_blocks: were empty or evicted, and
        kv_cache_reused_blocks: held the beginning of its prompt already.
        paused: how often it lost its blocks and started over.
    """

    arrival_time_ns: int = 0
    first_scheduled_time_ns: int = 0
    first_token_time_ns: int = 0
    last_token_time_ns: int = 0
    kv_cache_alloc_new_blocks: int = 0
    kv_cache_reused_blocks: int = 0
    paused: int = 0

    @property
    def kv_cache_alloc_total_blocks(self) -> int:
        """New and reused blocks together."""
        return self.kv_cache_alloc_new_blocks + self.kv_cache_reused_blocks


@dataclass(frozen=True)
class Result:
    """Tokens of one sequence, or of all beams of a search, best first.

    Args:
        output_token_ids: for each beam its new ids, the end id included. While streaming, only those since the last
            response; of beams, which may change altogether, always all.
        finish_reasons: one for each beam.
        is_final: nothing more comes for this request.
        sequence_index: which of ``num_return_sequences`` samples this is.
        cum_log_probs: for each beam, the sum of its log_probs since the beginning.
        log_probs: for each beam, one for each of ``output_token_ids``.
        context_logits: float32 [prompt, V].
        generation_logits: float32 [tokens, V], a row for each of ``output_token_ids``.
        perf_metrics: with the last response of a sequence.
    """

    output_token_ids: tuple[tuple[int, ...], ...]
    finish_reasons: tuple[FinishReason, ...]
    is_final: bool
    sequence_index: int = 0
    cum_log_probs: tuple[float, ...] | None = None
    log_probs: tuple[tuple[float, ...], ...] | None = None
    context_logits: Logits | None = field(default=None, repr=False)
    generation_logits: Logits | None = field(default=None, repr=False)
    perf_metrics: PerfMetrics | None = None

    def padded(self, pad_id: int = -1) -> NDArray[np.int32]:
        """The ids as Triton's ``output_ids``: int32 [beams, longest], shorter beams filled up."""
        longest = max(map(len, self.output_token_ids), default=0)
        return np.array([[*ids, *[pad_id] * (longest - len(ids))] for ids in self.output_token_ids], dtype=np.int32)


@dataclass(frozen=True)
class Response:
    """One answer to a request: a result, or the error that ended it."""

    request_id: int
    result: Result | None = None
    error: LabError | None = None

    @property
    def has_error(self) -> bool:
        """Whether the request failed."""
        return self.error is not None

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes for this request."""
        return self.result is None or self.result.is_final

    def result_or_raise(self) -> Result:
        """The result.

        Raises:
            LabError: what the request failed with.
        """
        if self.result is None:
            raise self.error if self.error is not None else AssertionError("a response is a result or an error")
        return self.result
