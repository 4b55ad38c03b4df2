"""Dialects: the same request, three systems, three distributions.

==================  ===========================  =================================  ================================
                    ``hf``                       ``trtllm-cpp``                     ``trtllm-torch``
==================  ===========================  =================================  ================================
system              transformers ``generate``    TensorRT-LLM engine, Triton        TensorRT-LLM LLM API, 1.0 to 1.2
temperature         z / T, T = 0 is refused      z / (T + 1e-6), before penalties   z / max(T, 1e-5), T = 0 is greedy
penalties see       prompt and output            prompt and output                  (has none)
min_length counts   prompt and output            output                             output
order of the cuts   top-k, top-p, min-p          min-p, top-k, top-p                top-k, top-p
top-k ties          kept                         exactly k, at most 1024            kept
top-p boundary      crossing token stays whole   crossing token is cut at p         crossing token stays whole
top_p = 0           keeps one token              means unset                        is refused
nothing set         top_k = 50 when sampling     greedy                             greedy
unset seed          from the operating system    0                                  from the operating system
==================  ===========================  =================================  ================================

Source: transformers 5.23 ``generation/utils.py``; TensorRT-LLM ``kernels/penaltyKernels.cu``,
``kernels/samplingTopKKernels.cu``, ``layers/defaultDecodingParams.h``, ``_torch/pyexecutor/sampling_utils.py``.
Unverified: where ``trtllm-cpp`` bans n-grams and bad words; here after the penalties and before the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from labsupport.decoding import steps
from labsupport.decoding.sampler import NO_CONTEXT, Context, Sampler, Step
from labsupport.decoding.settings import Settings
from labsupport.decoding.steps import Array
from labsupport.decoding.streams import Stream, TorchStream, Xorwow
from labsupport.errors import ParameterError

HF_TOP_K = 50  # the default of transformers' GenerationConfig
MAX_TOP_K = 1024  # TensorRT-LLM's kernels clip larger values


def dialect(name: str, **settings: Any) -> Sampler:
    """The sampler that a system runs for a request.

    Args:
        name: ``hf``, ``trtllm-cpp`` or ``trtllm-torch``.
        settings: the fields of ``Settings`` that the request sets.

    Raises:
        ParameterError: an unknown dialect or setting, a value out of range, or a setting that the system lacks.

    Example:
        >>> print(dialect("hf", temperature=0.7, top_p=0.9))
        hf: logits -> temperature=0.7 -> top_k=50 -> top_p=0.9 -> draw
        >>> print(dialect("trtllm-cpp", temperature=0.7))
        trtllm-cpp: logits -> temperature=0.7 -> greedy -> draw
    """
    if name not in DIALECTS:
        raise _unknown(name)
    return Sampler(name, tuple(DIALECTS[name](Settings.of(**settings))))


def exact_distribution(name: str, logits: Array, context: Context = NO_CONTEXT, **settings: Any) -> Array:
    """The exact probabilities [..., V] from which a system draws the next token.

    Example:
        >>> import numpy as np
        >>> exact_distribution("trtllm-cpp", np.log([0.4, 0.3, 0.2, 0.1]), top_p=0.5).round(3)
        array([0.8, 0.2, 0. , 0. ])
    """
    return dialect(name, **settings).probs(logits, context)


def stream_for(name: str, seed: int | None = None) -> Stream:
    """The random stream of a system, and without a seed what the system does without one."""
    if name not in DIALECTS:
        raise _unknown(name)
    return Xorwow(seed or 0) if name == "trtllm-cpp" else TorchStream(seed)


def _hf(request: Settings) -> Iterator[Step]:
    request.refuse("hf", "presence_penalty", "frequency_penalty")
    if request.temperature == 0:
        raise ParameterError(
            "temperature 0 is refused by hf", why="generate would divide by zero", fix="set do_sample=False for greedy"
        )
    yield from _logit_bias(request)
    yield from _repetition_penalty(request)
    yield from _no_repeat_ngram(request)
    end_words = [[end] for end in request.end_ids]  # generate never bans an end token as a bad word
    yield from _bad_words([word for word in request.bad_words or () if list(word) not in end_words])
    if request.min_new_tokens is None:
        yield from _minimum("min_length", request.min_length, request.end_ids, lambda context: len(context.tokens))
    else:  # generate lets it overrule min_length
        yield from _minimum(
            "min_new_tokens", request.min_new_tokens, request.end_ids, lambda context: len(context.output)
        )
    if request.do_sample is False:
        yield _greedy()
        return
    yield from _temperature(request.temperature, lambda t: t)
    yield from _top_k(HF_TOP_K if request.top_k is None else request.top_k, keep_ties=True)
    yield from _top_p(request.top_p, steps.top_p)
    yield from _min_p(request)


def _trtllm_cpp(request: Settings) -> Iterator[Step]:
    request.refuse("trtllm-cpp", "do_sample", "min_new_tokens")
    yield from _logit_bias(request)
    yield from _temperature(request.temperature, lambda t: t + 1e-6)
    yield from _repetition_penalty(request)
    yield from _presence_and_frequency(request)
    yield from _minimum("min_length", request.min_length, request.end_ids, lambda context: len(context.output))
    yield from _no_repeat_ngram(request)
    yield from _bad_words(request.bad_words)
    yield from _min_p(request)
    if not request.top_k and not request.top_p:
        yield _greedy()
        return
    yield from _top_k(min(request.top_k or 0, MAX_TOP_K), keep_ties=False)
    yield from _top_p(request.top_p or None, steps.top_p_cut)


def _trtllm_torch(request: Settings) -> Iterator[Step]:
    absent = ("min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram", "bad_words")
    request.refuse("trtllm-torch", "do_sample", "min_new_tokens", *absent)
    if request.top_p == 0:
        raise ParameterError("top_p 0 is refused by trtllm-torch", why="it must be above 0", fix="leave it out")
    yield from _logit_bias(request)
    yield from _minimum("min_length", request.min_length, request.end_ids, lambda context: len(context.output))
    nothing_set = request.temperature is None and request.top_k is None and request.top_p is None
    if nothing_set or request.temperature == 0 or request.top_k == 1:
        yield _greedy()
        return
    yield from _temperature(request.temperature, lambda t: max(t, 1e-5))
    yield from _top_k(request.top_k or 0, keep_ties=True)
    yield from _top_p(request.top_p, steps.top_p)


DIALECTS: Mapping[str, Callable[[Settings], Iterator[Step]]] = {
    "hf": _hf,
    "trtllm-cpp": _trtllm_cpp,
    "trtllm-torch": _trtllm_torch,
}


def _unknown(name: str) -> ParameterError:
    return ParameterError(f"no dialect {name!r}", why="it is not modelled", fix=f"use one of {', '.join(DIALECTS)}")


# One builder per step: it yields the step, or nothing where the setting is unset or neutral, as the systems do.


def _greedy() -> Step:
    return Step("greedy", None, lambda logits, _: steps.greedy(logits))


def _temperature(t: float | None, divisor: Callable[[float], float]) -> Iterator[Step]:
    if t is not None and t != 1:
        yield Step("temperature", t, lambda logits, _: steps.temperature(logits, divisor(t)))


def _top_k(k: int, *, keep_ties: bool) -> Iterator[Step]:
    if k:
        yield Step("top_k", k, lambda logits, _: steps.top_k(logits, k, keep_ties=keep_ties))


def _top_p(p: float | None, cut: Callable[[Array, float], Array]) -> Iterator[Step]:
    if p is not None and p < 1:
        yield Step("top_p", p, lambda logits, _: cut(logits, p))


def _min_p(request: Settings) -> Iterator[Step]:
    if p := request.min_p:
        yield Step("min_p", p, lambda logits, _: steps.min_p(logits, p))


def _repetition_penalty(request: Settings) -> Iterator[Step]:
    penalty = request.repetition_penalty
    if penalty is not None and penalty != 1:
        yield Step(
            "repetition_penalty",
            penalty,
            lambda logits, context: steps.repetition_penalty(logits, penalty, context.tokens),
        )


def _presence_and_frequency(request: Settings) -> Iterator[Step]:
    if presence := request.presence_penalty:
        yield Step("presence_penalty", presence, lambda z, context: steps.presence_penalty(z, presence, context.tokens))
    if frequency := request.frequency_penalty:
        yield Step(
            "frequency_penalty", frequency, lambda z, context: steps.frequency_penalty(z, frequency, context.tokens)
        )


def _no_repeat_ngram(request: Settings) -> Iterator[Step]:
    if n := request.no_repeat_ngram:
        yield Step("no_repeat_ngram", n, lambda logits, context: steps.no_repeat_ngram(logits, n, context.tokens))


def _bad_words(words: Sequence[Sequence[int]] | None) -> Iterator[Step]:
    if words:
        yield Step("bad_words", words, lambda logits, context: steps.bad_words(logits, words, context.tokens))


def _logit_bias(request: Settings) -> Iterator[Step]:
    if bias := request.logit_bias:
        yield Step("logit_bias", bias, lambda logits, _: steps.logit_bias(logits, bias))


def _minimum(
    name: str, minimum: int | None, end_ids: Sequence[int], length: Callable[[Context], int]
) -> Iterator[Step]:
    if minimum:
        yield Step(name, minimum, lambda z, context: steps.min_length(z, minimum, length(context), end_ids))
