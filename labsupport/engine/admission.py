"""What is let in: a request is held against the limits before it waits for anything."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral

from labsupport.decoding import dialect, stream_for
from labsupport.engine.limits import Limits
from labsupport.engine.requests import Request
from labsupport.errors import ParameterError


def admit(request: Request, limits: Limits, vocab_size: int) -> Request:
    """The request as it will run: checked, its ids plain integers, its output no longer than the engine allows.

    Warns:
        UserWarning: prompt and output together are longer than ``max_seq_len``; the output is shortened, as
            TensorRT-LLM does.

    Raises:
        ParameterError: what the engine cannot do, or nobody could mean.
    """
    request = replace(
        request,
        input_token_ids=_ids("input_token_ids", request.input_token_ids, 0, vocab_size),
        end_ids=_ids("end_ids", request.end_ids, -1, vocab_size),
        stop_words=_words("stop_words", request.stop_words, vocab_size),
        bad_words=_words("bad_words", request.bad_words, vocab_size),
    )
    _check_limits(request, limits)
    _check_fields(request)
    dialect("trtllm-cpp", **request.sampling_fields())  # raises for what the dialect refuses
    return _shortened(request, limits)


def _ids(name: str, ids: Sequence[int], low: int, vocab_size: int) -> tuple[int, ...]:
    wrong = [i for i in ids if not isinstance(i, Integral) or not low <= i < vocab_size]
    _require(
        not wrong,
        f"{name} holds {wrong[0] if wrong else None!r}",
        f"a token id is a whole number from {low} to {vocab_size - 1}, the vocabulary of this engine",
        "check that the tokenizer belongs to the model",
    )
    return tuple(int(i) for i in ids)


def _words(name: str, words: Sequence[Sequence[int]], vocab_size: int) -> tuple[tuple[int, ...], ...]:
    _require(
        all(len(word) for word in words), f"{name} holds an empty word", "it has no token", "drop it from the list"
    )
    return tuple(_ids(name, word, 0, vocab_size) for word in words)


def _check_limits(request: Request, limits: Limits) -> None:
    length = len(request.input_token_ids)
    _require(
        length > 0, "the prompt has no token", "the first token is predicted from one before it", "send a BOS token"
    )
    _require(
        length <= limits.max_input_len,
        f"Prompt length ({length}) exceeds maximum input length ({limits.max_input_len})",
        "the engine was built for shorter prompts",
        f"shorten the prompt, or build with --max_input_len {length}",
    )
    _require(
        1 <= request.beam_width <= limits.max_beam_width,
        f"beam width ({request.beam_width}) is not 1 to max_beam_width ({limits.max_beam_width})",
        "the engine was built for at most so many beams",
        f"use fewer beams, or build with --max_beam_width {max(request.beam_width, 1)}",
    )
    for kind in ("context", "generation"):
        _require(
            getattr(limits, f"gather_{kind}_logits") or not getattr(request, f"return_{kind}_logits"),
            f"the request asks for {kind} logits, and the engine does not gather them",
            "the logits of all tokens take memory, so an engine keeps them only when it was built to",
            f"build with --gather_{kind}_logits",
        )


def _check_fields(request: Request) -> None:
    count, beams = request.num_return_sequences, request.beam_width
    _require(request.max_tokens >= 1, f"max_tokens {request.max_tokens}", "nothing to write", "use 1 or more")
    _require(
        0 <= request.priority <= 1,  # also catches nan
        f"priority {request.priority} is outside 0 to 1",
        "0.5 is that of everybody, 1 goes first",
        "use a value such as 0.9",
    )
    _require(count >= 1, f"num_return_sequences {count}", "nothing would come back", "use 1 or more")
    _require(
        beams == 1 or count <= beams,
        f"num_return_sequences {count} of {beams} beams",
        "a search finds one sequence a beam",
        f"use {beams} or fewer, or more beams",
    )
    _require(
        beams == 1 or not (request.stop_words or request.return_generation_logits),
        "a beam search with stop_words or return_generation_logits",
        "its beams change places at every step, so neither has a fixed owner",
        "use end_ids, or beam_width=1",
    )
    _require(
        request.early_stopping in (True, False, "never") and math.isfinite(request.length_penalty),
        f"early_stopping {request.early_stopping!r}, length_penalty {request.length_penalty}",
        "there are three rules to stop, and scores are divided by length ** length_penalty",
        'use True, False or "never", and a number such as 1.0',
    )
    seed = request.seed
    _require(
        seed is None or (isinstance(seed, Integral) and not isinstance(seed, bool)),
        f"seed {seed!r} is not a whole number",
        "the request field is a uint64",
        "use 0 to 18446744073709551615, or None for 0",
    )
    for last in (0, count - 1 if beams == 1 else 0):
        stream_for("trtllm-cpp", (seed or 0) + last)  # raises for one that is no uint64


def _shortened(request: Request, limits: Limits) -> Request:
    length = len(request.input_token_ids)
    if length + request.max_tokens <= limits.max_seq_len:
        return request
    allowed = max(1, limits.max_seq_len - length)  # a prompt of max_seq_len tokens still yields one
    if allowed < request.max_tokens:
        warnings.warn(
            f"prompt ({length}) and max_tokens ({request.max_tokens}) exceed max_seq_len ({limits.max_seq_len}): "
            f"max_tokens is reduced to {allowed}",
            stacklevel=4,
        )
    return replace(request, max_tokens=allowed)


def _require(condition: bool, what: str, why: str, fix: str) -> None:
    if not condition:
        raise ParameterError(what, why=why, fix=fix)
