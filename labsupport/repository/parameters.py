"""The parameters of the five models: the official key, its placeholder in NVIDIA's templates, and our value.

``fill_template.py`` leaves what nobody named as ``${...}``, and TensorRT-LLM then takes a default and logs a line.
Here nothing is left: each key has a value, and a key that has none by nature is written empty.

Source: TensorRT-LLM 0.20, the templates' ``parameters`` and ``docs/model_config.md`` of tensorrtllm_backend.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parameter:
    """One key of a model's ``parameters``.

    Args:
        key: as the model reads it.
        placeholder: as the templates call it, without ``${}``; empty where the template has a fixed value.
        value: what we write where neither the engine nor the caller says otherwise.
        unfilled: what an unfilled placeholder means to TensorRT-LLM, in words.
    """

    key: str
    placeholder: str
    value: str
    unfilled: str = "the default"


def _same(**values: str) -> list[Parameter]:
    return [Parameter(key, key, value) for key, value in values.items()]


# C++ throws where one of these is missing; the last three since 0.19. Empty is fine for those, but for the model type.
REQUIRED = ("gpt_model_type", "gpt_model_path")
REQUIRED_MAY_BE_EMPTY = ("tokenizer_dir", "guided_decoding_backend", "xgrammar_tokenizer_info_path")

TENSORRT_LLM = [
    Parameter("gpt_model_type", "batching_strategy", "inflight_fused_batching", "the model does not load"),
    Parameter("gpt_model_path", "engine_dir", "", "the model does not load"),
    Parameter("encoder_model_path", "encoder_engine_dir", ""),
    Parameter("FORCE_CPU_ONLY_INPUT_TENSORS", "", "no"),
    Parameter("executor_worker_path", "", "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker"),
    *_same(
        max_beam_width="1",
        max_tokens_in_paged_kv_cache="",
        max_attention_window_size="",
        sink_token_length="",
        batch_scheduler_policy="guaranteed_no_evict",
        kv_cache_free_gpu_mem_fraction="0.9",
        cross_kv_cache_fraction="",
        kv_cache_host_memory_bytes="0",
        kv_cache_onboard_blocks="true",
        exclude_input_in_output="true",  # the official default echoes the prompt, which nobody expects
        cancellation_check_period_ms="100",
        stats_check_period_ms="100",
        iter_stats_max_iterations="1000",
        request_stats_max_iterations="0",
        enable_kv_cache_reuse="true",
        normalize_log_probs="true",
        enable_chunked_context="false",
        gpu_device_ids="",
        participant_ids="",
        num_nodes="1",
        lora_cache_optimal_adapter_size="8",
        lora_cache_max_adapter_size="64",
        lora_cache_gpu_memory_fraction="0.05",
        lora_cache_host_memory_bytes="1073741824",
        lora_prefetch_dir="",
        decoding_mode="",  # top_k_top_p, or beam_search where max_beam_width is above 1
        lookahead_window_size="",
        lookahead_ngram_size="",
        lookahead_verification_set_size="",
        medusa_choices="",
        eagle_choices="",
        gpu_weights_percent="1.0",
        enable_context_fmha_fp32_acc="false",
        multi_block_mode="true",
        cuda_graph_mode="false",
        cuda_graph_cache_size="0",
        speculative_decoding_fast_logits="false",
        tokenizer_dir="",
        guided_decoding_backend="",
        xgrammar_tokenizer_info_path="",
    ),
]
PREPROCESSING = [
    Parameter("tokenizer_dir", "tokenizer_dir", "", "taken for the name of a model on the hub"),
    Parameter("gpt_model_path", "engine_dir", ""),
    *_same(add_special_tokens="true", multimodal_model_path="", max_num_images=""),
]
POSTPROCESSING = [
    Parameter("tokenizer_dir", "tokenizer_dir", "", "taken for the name of a model on the hub"),
    *_same(skip_special_tokens="true"),
]
BLS = [
    *_same(
        accumulate_tokens="false",
        tensorrt_llm_model_name="tensorrt_llm",
        tensorrt_llm_draft_model_name="",
        multimodal_encoders_name="",
    ),
    Parameter("tokenizer_dir", "", ""),  # ours: our BLS puts tokens together itself, because it must remember
    Parameter("skip_special_tokens", "", "true"),  # ours, as in postprocessing
]
PARAMETERS = {
    "preprocessing": PREPROCESSING,
    "tensorrt_llm": TENSORRT_LLM,
    "postprocessing": POSTPROCESSING,
    "tensorrt_llm_bls": BLS,
    "ensemble": [],
}
OWN_KEYS = {"tensorrt_llm_bls": {"tokenizer_dir", "skip_special_tokens"}}  # keys that NVIDIA's templates do not have

# Placeholders that stand without quotes: Triton cannot even parse a file in which one is left.
UNQUOTED = {
    "triton_max_batch_size": "8",
    "decoupled_mode": "true",
    "logits_datatype": "TYPE_FP32",
    "encoder_input_features_data_type": "TYPE_FP16",
    "prompt_embedding_table_data_type": "TYPE_FP16",
    "max_queue_delay_microseconds": "0",
    "max_queue_size": "0",
    "preprocessing_instance_count": "1",
    "postprocessing_instance_count": "1",
    "bls_instance_count": "1",
}
QUOTED = {"triton_backend": "tensorrtllm"}
