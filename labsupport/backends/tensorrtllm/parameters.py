"""The config of the model ``tensorrt_llm`` -> what our executor is told.

A key that is missing, empty or still ``${...}`` counts as unfilled, and means what it means to the C++ backend at 0.20.
What concerns a GPU's speed alone is passed over; what would change an answer and is not there is refused by name.

Source: TensorRT-LLM 0.20, ``triton_backend/inflight_batcher_llm/src/model_instance_state.cc`` and ``model_state.cc``.
Unlike there, ``normalize_log_probs`` makes no difference: our log-probs are always those of the whole vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from labsupport.engine.limits import BatchingType, CapacitySchedulerPolicy
from labsupport.errors import ParameterError

T = TypeVar("T")
BATCHING = {
    "v1": BatchingType.STATIC,
    "inflight_batching": BatchingType.INFLIGHT,
    "inflight_fused_batching": BatchingType.INFLIGHT,
}
POLICIES = {policy.value: policy for policy in CapacitySchedulerPolicy}
DECODING_MODES = ("top_k", "top_p", "top_k_top_p", "beam_search", "auto")


@dataclass(frozen=True)
class Parameters:
    """What the config says, named by its own keys.

    Args:
        engine: the folder of ``gpt_model_path``.
        decoupled: whether a request may have more than one response.
        half_logits: the config gives logits as FP16.
        max_queue_size: requests that may wait; 0 is without limit.
    """

    engine: Path
    batching_type: BatchingType
    decoupled: bool
    half_logits: bool
    max_queue_size: int
    max_beam_width: int
    batch_scheduler_policy: CapacitySchedulerPolicy
    kv_cache_free_gpu_mem_fraction: float
    max_tokens_in_paged_kv_cache: int | None
    max_attention_window_size: int | None
    enable_kv_cache_reuse: bool
    enable_chunked_context: bool
    exclude_input_in_output: bool
    cancellation_check_period_ms: int
    stats_check_period_ms: int
    iter_stats_max_iterations: int


def read(config: Mapping[str, Any], model_folder: Path, warn: Callable[[str], object]) -> Parameters:
    """Read a model's config.

    Args:
        config: as Triton hands it over, parsed.
        model_folder: the model's own folder; a relative ``gpt_model_path`` starts at the folder above it.
        warn: takes a line for the server's log.

    Raises:
        ParameterError: the model cannot be served like this.
    """
    keys = _Keys(config.get("parameters", {}), warn)
    _refuse(keys)
    policy = keys.one("batch_scheduler_policy", str, "guaranteed_no_evict")
    if policy not in POLICIES:
        warn(
            "batch_scheduler_policy parameter was not found or is invalid (must be max_utilization or "
            "guaranteed_no_evict)"
        )
        policy = "guaranteed_no_evict"
    queue = config.get("dynamic_batching", {}).get("default_queue_policy", {})
    window = keys.one("max_attention_window_size", str, None)
    return Parameters(
        engine=_engine(keys.one("gpt_model_path", str, None), model_folder),
        batching_type=_batching(keys.raw("gpt_model_type")),
        decoupled=bool(config.get("model_transaction_policy", {}).get("decoupled", False)),
        half_logits=any(
            output["name"] == "context_logits" and output["data_type"] == "TYPE_FP16"
            for output in config.get("output", ())
        ),
        max_queue_size=int(queue.get("max_queue_size", 0)),
        max_beam_width=keys.one("max_beam_width", int, 1),
        batch_scheduler_policy=POLICIES[policy],
        kv_cache_free_gpu_mem_fraction=keys.one("kv_cache_free_gpu_mem_fraction", float, 0.9),
        max_tokens_in_paged_kv_cache=keys.one("max_tokens_in_paged_kv_cache", int, None),
        max_attention_window_size=min(map(int, window.split(","))) if window else None,
        enable_kv_cache_reuse=keys.one("enable_kv_cache_reuse", _bool, True),
        enable_chunked_context=keys.one("enable_chunked_context", _bool, False),
        exclude_input_in_output=keys.one("exclude_input_in_output", _bool, False),
        cancellation_check_period_ms=keys.one("cancellation_check_period_ms", int, 100),
        stats_check_period_ms=keys.one("stats_check_period_ms", int, 100),
        iter_stats_max_iterations=keys.one("iter_stats_max_iterations", int, 1000),
    )


class _Keys:
    """The config's ``parameters``."""

    def __init__(self, parameters: Mapping[str, Mapping[str, str]], warn: Callable[[str], object]) -> None:
        self._parameters, self._warn = parameters, warn

    def raw(self, key: str) -> str:
        return self._parameters.get(key, {}).get("string_value", "").strip()

    def one(self, key: str, kind: Callable[[str], T], default: Any) -> Any:
        """The value of a key; where it is unfilled or no such value, the default."""
        text = self.raw(key)
        if not text or text.startswith("${"):
            return default
        try:
            return kind(text)
        except ValueError:
            self._warn(f"could not read parameter {key!r} with value {text!r}, {default!r} is used")
            return default


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")


def _batching(text: str) -> BatchingType:
    if text.lower() not in BATCHING:
        raise ParameterError(
            "Invalid gpt_model_type. Must be V1, inflight_batching or inflight_fused_batching.",
            why=f"it is {text!r}, and no batching is the default",
            fix="fill batching_strategy in the template: inflight_fused_batching",
        )
    return BATCHING[text.lower()]


def _engine(text: str | None, model_folder: Path) -> Path:
    if text is None:
        raise ParameterError(
            "Both encoder and decoder model paths are empty",
            why="gpt_model_path is unfilled, and names the engine's folder",
            fix="fill engine_dir in the template, or let labs assemble write the repository",
        )
    for place in (model_folder.parent / text, Path(text)):  # the C++ backend starts at the server's own folder
        if place.exists():
            return place.resolve()
    raise ParameterError(
        f"Decoder (GPT) model path at {text} does not exist.",
        why=f"it is looked for from {model_folder.parent} and from the server's folder",
        fix="start the server in the repository, or write an absolute path: labs assemble --mounted-at FOLDER",
    )


def _refuse(keys: _Keys) -> None:
    refused = {
        "encoder_model_path": "the engine is a decoder",
        "participant_ids": "one process runs all ranks",
        "sink_token_length": "the attention of this engine knows no sinks",
        "lora_prefetch_dir": "the engine was built without a place for adapters",
    }
    for key, why in refused.items():
        if (value := keys.one(key, str, None)) is not None:
            raise ParameterError(f"{key} {value!r} is not served", why=why, fix="leave it empty")
    mode = keys.one("decoding_mode", str, None)
    if mode is not None and mode not in DECODING_MODES:
        raise ParameterError(
            f"decoding_mode {mode!r} is not served",
            why="the executor writes one token a step and verifies no draft",
            fix=f"leave it empty, or use one of {', '.join(DECODING_MODES)}",
        )
    devices, nodes = keys.one("gpu_device_ids", str, ""), keys.one("num_nodes", int, 1)
    if "," in devices or ";" in devices or nodes > 1 or os.environ.get("TRTLLM_ORCHESTRATOR", "0") == "1":
        raise ParameterError(
            f"gpu_device_ids {devices!r}, num_nodes {nodes}, orchestrator mode: several devices are not served",
            why="one process runs all ranks of an engine, one after another",
            fix="leave gpu_device_ids empty and num_nodes at 1; start the server without --multi-model",
        )
