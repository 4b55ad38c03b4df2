"""How much at once: the limits that were built into an engine, and how the executor shares them out."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from labsupport.errors import ParameterError

DEFAULT_POOL = 8192  # tokens of KV cache when nothing is said, unless one request of full length needs more


class CapacitySchedulerPolicy(enum.Enum):
    """When a request is let in: when its last token is sure to find room, or already when its next one does."""

    GUARANTEED_NO_EVICT = "guaranteed_no_evict"
    MAX_UTILIZATION = "max_utilization"


class BatchingType(enum.Enum):
    """``STATIC``: a batch is filled, and the next one waits for its last request. ``INFLIGHT``: slots are refilled."""

    STATIC = "V1"
    INFLIGHT = "inflight_fused_batching"


@dataclass(frozen=True)
class Limits:
    """The limits of an engine, named as ``trtllm-build`` names them.

    Args:
        max_batch_size: requests that run at once.
        max_input_len: tokens of a prompt.
        max_seq_len: tokens of prompt and output together.
        max_num_tokens: tokens that one iteration runs, over all requests.
        max_beam_width: beams of one request.
        gather_context_logits, gather_generation_logits: whether a request may ask for logits.

    Raises:
        ParameterError: a limit below 1, or limits that contradict each other.
    """

    max_batch_size: int = 8
    max_input_len: int = 1024
    max_seq_len: int = 2048
    max_num_tokens: int = 1024
    max_beam_width: int = 1
    gather_context_logits: bool = True
    gather_generation_logits: bool = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith("max_") and value < 1:
                raise ParameterError(
                    f"{name} {value} is below 1", why="it counts what runs at once", fix="use 1 or more"
                )
        if self.max_num_tokens < self.max_beam_width:
            raise ParameterError(
                f"max_num_tokens {self.max_num_tokens} with max_beam_width {self.max_beam_width}",
                why="all beams of a request run in the same iteration, one token each",
                fix=f"use max_num_tokens={self.max_beam_width} or more",
            )
        if self.max_input_len > self.max_seq_len:
            raise ParameterError(
                f"max_input_len {self.max_input_len} with max_seq_len {self.max_seq_len}",
                why="the prompt is a part of the sequence",
                fix=f"use max_input_len={self.max_seq_len} or less",
            )


@dataclass(frozen=True)
class KvCacheConfig:
    """The paged KV cache.

    Args:
        enable_block_reuse: take over the blocks of an earlier prompt that began with the same tokens.
        max_tokens: size of the pool in tokens, over all requests; rounded down to whole blocks.
    """

    enable_block_reuse: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True)
class ExecutorConfig:
    """How the executor shares out what the engine can do.

    Args:
        enable_chunked_context: run a long prompt in pieces, so that others can generate in between.
        iter_stats_max_iterations: iterations whose statistics are kept.
    """

    capacity_scheduler_policy: CapacitySchedulerPolicy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT
    batching_type: BatchingType = BatchingType.INFLIGHT
    kv_cache_config: KvCacheConfig = field(default_factory=KvCacheConfig)
    enable_chunked_context: bool = True
    iter_stats_max_iterations: int = 1000

    def pool_blocks(self, limits: Limits, tokens_per_block: int) -> int:
        """Blocks of the pool, scratch included.

        Raises:
            ParameterError: the pool would hold no block, or a chunk of a prompt would.
        """
        every_slot = limits.max_batch_size * limits.max_seq_len
        tokens = self.kv_cache_config.max_tokens
        blocks = max(limits.max_seq_len, min(every_slot, DEFAULT_POOL)) if tokens is None else tokens
        # Without a number of its own the pool is rounded up: one request of full length has to fit.
        blocks = -(-blocks // tokens_per_block) if tokens is None else blocks // tokens_per_block
        if blocks < 1:
            raise ParameterError(
                f"kv_cache_config.max_tokens {tokens} is less than a block",
                why=f"the cache is handed out in blocks of {tokens_per_block} tokens",
                fix=f"use {tokens_per_block} or more",
            )
        if limits.max_num_tokens < tokens_per_block:
            raise ParameterError(
                f"max_num_tokens {limits.max_num_tokens} with blocks of {tokens_per_block} tokens",
                why="a chunk ends where a block ends, so an iteration must have room for a whole block",
                fix=f"use max_num_tokens={tokens_per_block} or more",
            )
        return blocks + 1
