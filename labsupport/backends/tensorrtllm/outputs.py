"""A result of the executor -> the tensors of a response, shapes and types as in the config of ``tensorrt_llm``.

What nobody asked for is not sent: log-probs, logits and metrics are there on request, ``batch_index`` where a request
has several prompts, ``sequence_index`` where it wants several sequences.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.backends.tensorrtllm.inputs import Prompt
from labsupport.engine.requests import PerfMetrics, Result

COUNTS = ("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks")
TIMES = ("arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns")


def tensors(result: Result, prompt: Prompt, logits: type[np.floating[Any]] = np.float32) -> dict[str, NDArray[Any]]:
    """The tensors of a response to ``prompt``, by name, each with a batch dimension of 1.

    Args:
        result: of the executor.
        prompt: which prompt it answers.
        logits: the type that the config gives to logits.
    """
    if not prompt.exclude_input:
        before = tuple(prompt.request.input_token_ids)
        result = replace(result, output_token_ids=tuple(before + ids for ids in result.output_token_ids))
    found: dict[str, NDArray[Any]] = {
        "output_ids": result.padded()[None],
        "sequence_length": np.array([[len(ids) for ids in result.output_token_ids]], np.int32),
    }
    if result.cum_log_probs is not None and result.log_probs is not None:
        found["cum_log_probs"] = np.array([result.cum_log_probs], np.float32)
        longest = max(map(len, result.log_probs), default=0)
        rows = [[*row, *[-1.0] * (longest - len(row))] for row in result.log_probs]
        found["output_log_probs"] = np.array([rows], np.float32)
    if result.context_logits is not None:
        found["context_logits"] = result.context_logits[None].astype(logits)
    if result.generation_logits is not None and result.generation_logits.size:
        found["generation_logits"] = result.generation_logits[None, None].astype(logits)
    if prompt.batch_index is not None:
        found["batch_index"] = np.array([[prompt.batch_index]], np.int32)
    if prompt.request.num_return_sequences > 1:
        found["sequence_index"] = np.array([[result.sequence_index]], np.int32)
    return found | (_metrics(result.perf_metrics) if result.perf_metrics else {})


def _metrics(metrics: PerfMetrics) -> dict[str, NDArray[Any]]:
    counts = {name: np.array([[getattr(metrics, name)]], np.int32) for name in COUNTS}
    times = {name: np.array([[getattr(metrics, name)]], np.int64) for name in TIMES}
    drafts = {name: np.zeros((1, 1), np.int32) for name in ("total_accepted_draft_tokens", "total_draft_tokens")}
    return counts | times | drafts | {"acceptance_rate": np.zeros((1, 1), np.float32)}
