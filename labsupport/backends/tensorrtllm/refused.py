"""What this backend does not serve, each by its name and with the reason: no client gets less than it asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.errors import ParameterError

_SPECULATIVE = "the executor writes one token a step and verifies no draft"
_ENCODER = "the engine is a decoder; it has no encoder and no cross attention"
_ROTARY = "the engine computes its positions itself"
_LORA = "the engine was built without a place for adapters"
_GUIDED = "no grammar is compiled in this backend"
_RETENTION = "blocks of the cache are kept by age alone"

INPUTS = {
    "encoder_input_features": _ENCODER,
    "encoder_output_lengths": _ENCODER,
    "cross_attention_mask": _ENCODER,
    "skip_cross_attn_blocks": _ENCODER,
    "draft_input_ids": _SPECULATIVE,
    "draft_logits": _SPECULATIVE,
    "draft_acceptance_threshold": _SPECULATIVE,
    "lookahead_window_size": _SPECULATIVE,
    "lookahead_ngram_size": _SPECULATIVE,
    "lookahead_verification_set_size": _SPECULATIVE,
    "prompt_embedding_table": "the engine takes token ids, not embeddings",
    "mrope_rotary_cos_sin": _ROTARY,
    "mrope_position_deltas": _ROTARY,
    "lora_task_id": _LORA,
    "lora_weights": _LORA,
    "lora_config": _LORA,
    "context_phase_params": "prompt and answer run in one executor, not in two",
    "retention_token_range_starts": _RETENTION,
    "retention_token_range_ends": _RETENTION,
    "retention_token_range_priorities": _RETENTION,
    "retention_token_range_durations_ms": _RETENTION,
    "retention_decode_priority": _RETENTION,
    "retention_decode_duration_ms": _RETENTION,
    "guided_decoding_guide_type": _GUIDED,
    "guided_decoding_guide": _GUIDED,
}
# As the C++ backend does with a decoder: these come along from preprocessing, and say nothing to it.
IGNORED = ("decoder_input_ids", "decoder_input_lengths", "prompt_table_extra_ids", "prompt_vocab_size", "pad_id")
NEUTRAL = {"runtime_top_p_decay": 1.0, "beam_search_diversity_rate": 0.0}  # any other value would change the tokens


def require_served(given: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a request for what is not there. Empty tensors and neutral values ask for nothing.

    Raises:
        ParameterError: names the first such tensor.
    """
    for name, why in INPUTS.items():
        if name in given and given[name].size:
            raise ParameterError(f"{name} is not served", why=why, fix=f"leave {name} out")
    for name, neutral in NEUTRAL.items():
        if name in given and np.any(given[name] != neutral):
            raise ParameterError(
                f"{name} {given[name].flat[0]} is not served",
                why="the sampler of this engine does not read it",
                fix=f"leave it out, or send {neutral}",
            )
