"""What an iteration did: numbers for a dashboard, and the slots for a drawing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Work = Literal["context", "generation", "waiting"]


@dataclass(frozen=True)
class SlotWork:
    """What one slot did in one iteration.

    Args:
        slot: from 0 to max_batch_size - 1.
        request_id, sequence_index: whose it was.
        work: ``context`` (its prompt, or after a pause its prompt and output again), ``generation``, or ``waiting``
            when the iteration had no tokens left for it.
        start, tokens: position of the first token that was run, and how many were, over all beams.
        finished: this was its last iteration.
    """

    slot: int
    request_id: int
    sequence_index: int
    work: Work
    start: int = 0
    tokens: int = 0
    finished: bool = False


@dataclass(frozen=True)
class IterationStats:
    """One iteration, named as in ``tensorrt_llm.bindings.executor``.

    Args:
        iter: its number, from 0.
        iter_latency_ms: how long it took; of this
        model_latency_ms: the model ran.
        num_queued_requests: waiting when it began, paused ones included.
        num_active_requests: in a slot while it ran.
        paused: request ids that lost their slot and their blocks in it.
        used_num_blocks, free_num_blocks: of the KV cache when it ended; cached blocks that nobody uses count as free.
        slots: those that were taken, by number; the others stood idle.
    """

    iter: int
    iter_latency_ms: float
    model_latency_ms: float
    num_queued_requests: int
    num_active_requests: int
    paused: tuple[int, ...]
    used_num_blocks: int
    free_num_blocks: int
    slots: tuple[SlotWork, ...]

    @property
    def num_ctx_tokens(self) -> int:
        """Tokens of prompts that ran."""
        return sum(slot.tokens for slot in self.slots if slot.work == "context")

    @property
    def num_gen_tokens(self) -> int:
        """Tokens that were generated from the last one."""
        return sum(slot.tokens for slot in self.slots if slot.work == "generation")

    @property
    def overhead_ms(self) -> float:
        """What the iteration took beside the model."""
        return self.iter_latency_ms - self.model_latency_ms
