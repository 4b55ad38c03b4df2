"""The tensors of the five models: what each takes and gives, by name, type and shape.

A client made for NVIDIA's templates must find here what it found there: this module is the contract and nothing else.
Shapes are without the batch dimension. Names are those of TensorRT-LLM 0.20; ``named`` gives those of another version.

Source: TensorRT-LLM 0.20, ``triton_backend/all_models/inflight_batcher_llm/*/config.pbtxt``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from labsupport.compatibility import load_compatibility

MODELS = ("preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls", "ensemble")
LOGITS = "LOGITS"  # stands for FP32 or FP16: the engine's own
FEATURES = "FEATURES"  # stands for the type of an encoder's input features


@dataclass(frozen=True)
class Tensor:
    """One input or output.

    Args:
        name: as requests spell it.
        kind: Triton's type without ``TYPE_``; LOGITS and FEATURES are filled in by the engine's.
        dims: the shape without the batch dimension; -1 is any length.
        optional: a request may leave it out. Meaningless for outputs.
        scalar: the shape [1] is handed to the model as [].
        ragged: requests of one batch may differ in shape.
    """

    name: str
    kind: str
    dims: tuple[int, ...] = (1,)
    optional: bool = True
    scalar: bool = False
    ragged: bool = False


def _all(
    kind: str, *names: str, dims: tuple[int, ...] = (1,), scalar: bool = False, ragged: bool = False
) -> list[Tensor]:
    return [Tensor(name, kind, dims, scalar=scalar, ragged=ragged) for name in names]


def _required(*tensors: Tensor) -> list[Tensor]:
    return [replace(tensor, optional=False) for tensor in tensors]


_ANY, _ANY2, _ANY3, _ANY4 = (-1,), (-1, -1), (-1, -1, -1), (-1, -1, -1, -1)

PREPROCESSING_IN = [
    *_required(Tensor("QUERY", "STRING"), Tensor("REQUEST_OUTPUT_LEN", "INT32")),
    *_all("STRING", "DECODER_QUERY", "IMAGE_URL"),
    *_all("UINT8", "IMAGE_BYTES", "VIDEO_BYTES", dims=_ANY4),
    *_all("STRING", "BAD_WORDS_DICT", "STOP_WORDS_DICT", "EMBEDDING_BIAS_WORDS", dims=_ANY),
    Tensor("EMBEDDING_BIAS_WEIGHTS", "FP32", _ANY),
    *_all("INT32", "END_ID", "PAD_ID"),
    Tensor("PROMPT_TABLE_EXTRA_ID", "UINT64"),
]
PREPROCESSING_OUT = [
    *_all("INT32", "INPUT_ID", "DECODER_INPUT_ID", "REQUEST_OUTPUT_LEN", "VISION_INPUT_ID", dims=_ANY),
    *_all("INT32", "REQUEST_INPUT_LEN", "REQUEST_DECODER_INPUT_LEN", "OUT_END_ID", "OUT_PAD_ID"),
    *_all("INT32", "BAD_WORDS_IDS", "STOP_WORDS_IDS", dims=(2, -1)),
    Tensor("EMBEDDING_BIAS", "FP32", _ANY),
    Tensor("OUT_PROMPT_TABLE_EXTRA_IDS", "UINT64", _ANY),
    Tensor("PIXEL_VALUES", "FP16", _ANY4),
    *_all("INT64", "ASPECT_RATIO_IDS", "ATTENTION_MASK", dims=_ANY),
    Tensor("ASPECT_RATIO_MASK", "INT64", _ANY2),
    Tensor("CROSS_ATTENTION_MASK", "INT64", _ANY3),
    Tensor("IMAGE_SIZES", "INT64", (2,)),
    Tensor("IMAGE_GRID_THW", "INT64", (3,)),
    Tensor("IS_VIDEO_INPUT", "BOOL"),
]
POSTPROCESSING_IN = _required(Tensor("TOKENS_BATCH", "INT32", _ANY2), Tensor("SEQUENCE_LENGTH", "INT32", _ANY))
POSTPROCESSING_OUT = [Tensor("OUTPUT", "STRING", _ANY)]

SAMPLING = [
    *_all("INT32", "runtime_top_k", "min_tokens", "beam_width", scalar=True),
    *_all(
        "FP32", "temperature", "runtime_top_p", "len_penalty", "repetition_penalty", "presence_penalty",
        "frequency_penalty", scalar=True,
    ),
    Tensor("seed", "UINT64", scalar=True),
]  # fmt: skip
FLAGS = _all(
    "BOOL", "return_log_probs", "return_context_logits", "return_generation_logits", "return_perf_metrics", scalar=True
)
LORA = [
    Tensor("lora_task_id", "UINT64", scalar=True),
    Tensor("lora_weights", "FP16", _ANY2, ragged=True),
    Tensor("lora_config", "INT32", (-1, 3), ragged=True),
]
GUIDED = ("guided_decoding_guide_type", "guided_decoding_guide")

TENSORRT_LLM_IN = [
    *_required(*_all("INT32", "input_lengths", "request_output_len", scalar=True)),
    *_all("INT32", "input_ids", "draft_input_ids", "decoder_input_ids", dims=_ANY, ragged=True),
    Tensor("encoder_input_features", FEATURES, _ANY2, ragged=True),
    *_all("INT32", "encoder_output_lengths", "num_return_sequences", "decoder_input_lengths", scalar=True),
    Tensor("draft_logits", LOGITS, _ANY2, ragged=True),
    Tensor("draft_acceptance_threshold", "FP32", scalar=True),
    *_all("INT32", "end_id", "pad_id", scalar=True),
    *_all("INT32", "stop_words_list", "bad_words_list", dims=(2, -1), ragged=True),
    Tensor("embedding_bias", "FP32", _ANY, ragged=True),
    *SAMPLING,
    *_all("FP32", "runtime_top_p_min", "runtime_top_p_decay", "beam_search_diversity_rate", scalar=True),
    Tensor("runtime_top_p_reset_ids", "INT32", scalar=True),
    *FLAGS,
    *_all("BOOL", "early_stopping", "exclude_input_in_output", "stop", "streaming", scalar=True),
    Tensor("prompt_embedding_table", "FP16", _ANY2, ragged=True),
    Tensor("prompt_table_extra_ids", "UINT64", _ANY, ragged=True),
    Tensor("prompt_vocab_size", "INT32", scalar=True),
    Tensor("cross_attention_mask", "BOOL", _ANY2, ragged=True),
    Tensor("mrope_rotary_cos_sin", "FP32", _ANY),
    Tensor("mrope_position_deltas", "INT64"),
    *LORA,
    Tensor("context_phase_params", "UINT8", _ANY, ragged=True),
    Tensor("skip_cross_attn_blocks", "BOOL", ragged=True),
    *_all(
        "INT32", "retention_token_range_starts", "retention_token_range_ends", "retention_token_range_priorities",
        "retention_token_range_durations_ms", dims=_ANY, ragged=True,
    ),
    *_all("INT32", "retention_decode_priority", "retention_decode_duration_ms", ragged=True),
    *_all("STRING", *GUIDED, ragged=True),
    *_all("INT32", "lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size", ragged=True),
]  # fmt: skip

RESULTS = [
    Tensor("cum_log_probs", "FP32", _ANY),
    Tensor("output_log_probs", "FP32", _ANY2),
    Tensor("context_logits", LOGITS, _ANY2),
    Tensor("generation_logits", LOGITS, _ANY3),
    *_all("INT32", "batch_index", "sequence_index"),
    *_all("INT32", "kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks"),
    *_all("INT64", "arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "last_token_time_ns"),
    Tensor("acceptance_rate", "FP32"),
    *_all("INT32", "total_accepted_draft_tokens", "total_draft_tokens"),
]
TENSORRT_LLM_OUT = [
    Tensor("output_ids", "INT32", _ANY2),
    Tensor("sequence_length", "INT32", _ANY),
    *RESULTS,
    Tensor("context_phase_params", "UINT8", _ANY),
]

# What a client sends to the ensemble or the BLS -> what it is called inside tensorrt_llm.
CLIENT_NAMES = {
    "top_k": "runtime_top_k", "top_p": "runtime_top_p", "length_penalty": "len_penalty", "stream": "streaming",
    "temperature": "temperature", "repetition_penalty": "repetition_penalty", "min_tokens": "min_tokens",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty", "seed": "seed",
    "return_log_probs": "return_log_probs", "return_context_logits": "return_context_logits",
    "return_generation_logits": "return_generation_logits", "return_perf_metrics": "return_perf_metrics",
    "num_return_sequences": "num_return_sequences", "beam_width": "beam_width",
    "exclude_input_in_output": "exclude_input_in_output", "prompt_embedding_table": "prompt_embedding_table",
    "prompt_vocab_size": "prompt_vocab_size", "lora_task_id": "lora_task_id", "lora_weights": "lora_weights",
    "lora_config": "lora_config", "guided_decoding_guide_type": "guided_decoding_guide_type",
    "guided_decoding_guide": "guided_decoding_guide",
}  # fmt: skip
# What a client sends -> what preprocessing calls it, and what preprocessing gives -> what tensorrt_llm calls it.
PROMPT_NAMES = {
    "text_input": "QUERY", "decoder_text_input": "DECODER_QUERY", "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT", "stop_words": "STOP_WORDS_DICT", "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS", "end_id": "END_ID", "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}  # fmt: skip
ENCODED_NAMES = {
    "INPUT_ID": "input_ids", "REQUEST_INPUT_LEN": "input_lengths", "DECODER_INPUT_ID": "decoder_input_ids",
    "REQUEST_DECODER_INPUT_LEN": "decoder_input_lengths", "REQUEST_OUTPUT_LEN": "request_output_len",
    "STOP_WORDS_IDS": "stop_words_list", "BAD_WORDS_IDS": "bad_words_list", "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id", "OUT_PAD_ID": "pad_id", "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}  # fmt: skip


def _client_inputs(*, scalars: Iterable[str], ragged: Iterable[str]) -> list[Tensor]:
    """The list that ensemble and BLS share; ``scalars`` and ``ragged`` name the few that are."""
    preprocessing = {tensor.name: tensor for tensor in PREPROCESSING_IN}
    inner = {tensor.name: tensor for tensor in TENSORRT_LLM_IN}
    taken = {client: replace(preprocessing[name], name=client) for client, name in PROMPT_NAMES.items()}
    taken |= {client: replace(inner[name], name=client) for client, name in CLIENT_NAMES.items()}
    flat, uneven = set(scalars), set(ragged)
    return [replace(t, scalar=t.name in flat, ragged=t.name in uneven) for t in taken.values()]


ENSEMBLE_IN = _client_inputs(scalars=(), ragged=("lora_weights", "lora_config", *GUIDED))
BLS_IN = [
    *_client_inputs(
        scalars=[*(flag.name for flag in FLAGS), "num_return_sequences", "lora_task_id"],
        ragged=["lora_weights", "lora_config"],
    ),
    Tensor("image_input", "FP16", (-1, 3, -1, -1)),
    *_all("UINT8", "image_bytes_input", "video_bytes_input", dims=_ANY4),
    Tensor("image_url_input", "STRING"),
    Tensor("num_draft_tokens", "INT32"),
    Tensor("use_draft_logits", "BOOL", scalar=True),
]
CLIENT_OUT = [Tensor("text_output", "STRING", _ANY), *RESULTS]

INPUTS = {
    "preprocessing": PREPROCESSING_IN,
    "tensorrt_llm": TENSORRT_LLM_IN,
    "postprocessing": POSTPROCESSING_IN,
    "tensorrt_llm_bls": BLS_IN,
    "ensemble": ENSEMBLE_IN,
}
OUTPUTS = {
    "preprocessing": PREPROCESSING_OUT,
    "tensorrt_llm": TENSORRT_LLM_OUT,
    "postprocessing": POSTPROCESSING_OUT,
    "tensorrt_llm_bls": CLIENT_OUT,
    "ensemble": CLIENT_OUT,
}


def named(name: str, version: str) -> str:
    """``name`` as TensorRT-LLM ``version`` spells it.

    Example:
        >>> named("seed", "0.19.0"), named("seed", "0.20.0")
        ('random_seed', 'seed')
    """
    return load_compatibility().tensor_name(name, version)
