"""The gauges ``nv_trt_llm_*`` on Triton's metrics port, with the labels of the C++ backend.

Source: TensorRT-LLM 0.20, ``custom_metrics_reporter.cc``. Left out: what a machine without a GPU does not have.
"""

from __future__ import annotations

import time
from typing import Any

from labsupport.backends.tensorrtllm.scheduler import Scheduler
from labsupport.engine.limits import BatchingType

FAMILIES = {
    "nv_trt_llm_request_metrics": ("request_type", ("active", "max", "scheduled", "context", "waiting")),
    "nv_trt_llm_runtime_memory_metrics": ("memory_type", ("cpu",)),
    "nv_trt_llm_kv_cache_block_metrics": (
        "kv_cache_block_type", ("max", "free", "used", "tokens_per", "reused", "fraction"),
    ),
    "nv_trt_llm_general_metrics": ("general_type", ("timestamp", "iteration_counter")),
}  # fmt: skip
SPECIFIC = {
    BatchingType.INFLIGHT: (
        "inflight_batcher", ("total_context_tokens", "generation_requests", "micro_batch_id", "paused_requests"),
    ),
    BatchingType.STATIC: ("v1", ("total_context_tokens", "total_generation_tokens", "empty_generation_slots")),
}  # fmt: skip


def values(scheduler: Scheduler) -> dict[str, float]:
    """What there is to report now, by the last label of each gauge; the first five are of this moment."""
    open_requests, running, stats = scheduler.state()
    blocks, limits = scheduler.executor.blocks, scheduler.executor.limits
    used = blocks.usable - blocks.available
    found: dict[str, float] = {
        "active": open_requests,
        "waiting": max(open_requests - running, 0),
        "free": blocks.available,
        "used": used,
        "fraction": used / blocks.usable,
        "max": limits.max_batch_size,
        "max blocks": blocks.usable,
        "tokens_per": blocks.tokens_per_block,
        "reused": blocks.reused_blocks,
        "timestamp": int(time.time()),
        "micro_batch_id": 0,
        "cpu": _resident(),
    }
    if stats:
        context = sum(slot.work == "context" for slot in stats.slots)
        generation = sum(slot.work == "generation" for slot in stats.slots)
        found |= {
            "scheduled": context + generation,
            "context": context,
            "iteration_counter": stats.iter,
            "total_context_tokens": stats.num_ctx_tokens,
            "total_generation_tokens": stats.num_gen_tokens,
            "generation_requests": generation,
            "paused_requests": len(stats.paused),
            "empty_generation_slots": limits.max_batch_size - len(stats.slots),
        }
    return found


class Gauges:
    """The gauges of one model.

    Args:
        pb_utils: Triton's module for Python models.
        model, version: the labels of every gauge.
        batching: the kind decides one family's name.
    """

    def __init__(self, pb_utils: Any, model: str, version: str, batching: BatchingType) -> None:
        kind, labels = SPECIFIC[batching]
        families = FAMILIES | {f"nv_trt_llm_{kind}_metrics": (f"{kind}_specific_metric", labels)}
        self._families: list[Any] = []  # a family that is forgotten takes its gauges along
        self._gauges: dict[str, Any] = {}
        self._last: dict[str, float] = {}
        for name, (label, kinds) in families.items():
            family = pb_utils.MetricFamily(
                name=name, description=name.replace("_", " "), kind=pb_utils.MetricFamily.GAUGE
            )
            self._families.append(family)
            for one in kinds:
                key = "max blocks" if (name, one) == ("nv_trt_llm_kv_cache_block_metrics", "max") else one
                self._gauges[key] = family.Metric(labels={"model": model, "version": version, label: one})

    def show(self, found: dict[str, float]) -> None:
        """Set what has changed: each gauge is a message to the server."""
        for key, value in found.items():
            if key in self._gauges and self._last.get(key) != value:
                self._gauges[key].set(value)
                self._last[key] = value


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
