"""From logits to tokens: steps, samplers, dialects, random streams, beam search, scores.

Everything here is numpy on plain arrays; torch is imported only where its random stream or a model is used.
"""

from __future__ import annotations

from labsupport.decoding.beam import NextLogprobs, beam_search
from labsupport.decoding.dialects import DIALECTS, dialect, exact_distribution, stream_for
from labsupport.decoding.loop import Generation, NextLogits, all_logits, generate, next_logits, next_logprobs
from labsupport.decoding.sampler import Context, Sampler, Snapshot, Step
from labsupport.decoding.scores import (
    confidence,
    log_sum,
    perplexity,
    running_product,
    sequence_logprob,
    token_logprobs,
)
from labsupport.decoding.settings import Settings
from labsupport.decoding.steps import (
    Array,
    bad_words,
    frequency_penalty,
    greedy,
    log_softmax,
    logit_bias,
    min_length,
    min_p,
    no_repeat_ngram,
    presence_penalty,
    repetition_penalty,
    softmax,
    temperature,
    top_k,
    top_p,
    top_p_cut,
)
from labsupport.decoding.streams import Stream, TorchStream, Xorwow, independent_seed, inverse_cdf
from labsupport.decoding.trace import Beam, BeamStep, BeamTrace, Candidate, Fate, Hypothesis

__all__ = [
    "DIALECTS",
    "Array",
    "Beam",
    "BeamStep",
    "BeamTrace",
    "Candidate",
    "Context",
    "Fate",
    "Generation",
    "Hypothesis",
    "NextLogits",
    "NextLogprobs",
    "Sampler",
    "Settings",
    "Snapshot",
    "Step",
    "Stream",
    "TorchStream",
    "Xorwow",
    "all_logits",
    "bad_words",
    "beam_search",
    "confidence",
    "dialect",
    "exact_distribution",
    "frequency_penalty",
    "generate",
    "greedy",
    "independent_seed",
    "inverse_cdf",
    "log_softmax",
    "log_sum",
    "logit_bias",
    "min_length",
    "min_p",
    "next_logits",
    "next_logprobs",
    "no_repeat_ngram",
    "perplexity",
    "presence_penalty",
    "repetition_penalty",
    "running_product",
    "sequence_logprob",
    "softmax",
    "stream_for",
    "temperature",
    "token_logprobs",
    "top_k",
    "top_p",
    "top_p_cut",
]
