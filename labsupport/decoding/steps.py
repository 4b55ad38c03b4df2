"""What is done to logits before a token is drawn: one pure function per step.

Every function takes logits of shape [..., V] (float32 or float64) and returns new logits of the same shape and dtype.
A removed token gets -inf, so that its probability is exactly 0 and steps can be chained in any order.
``tokens`` are the ids already in the sequence; ids outside the vocabulary are ignored, as the servers do.

Source: the formulas are those of Hugging Face ``generation/logits_process.py`` and of TensorRT-LLM
``kernels/penaltyKernels.cu``; where the two disagree there are two functions or an argument.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labsupport.errors import ParameterError

Array = npt.NDArray[np.floating[Any]]
Tokens = Sequence[int]


def softmax(logits: Array) -> Array:
    """Probabilities: ``p_i = exp(z_i) / sum_j exp(z_j)``, over the last axis.

    Raises:
        ParameterError: a row has no token left (all -inf), so there is nothing to normalize.

    Example:
        >>> softmax(np.log([0.4, 0.3, 0.2, 0.1])).round(3)
        array([0.4, 0.3, 0.2, 0.1])
    """
    weights = np.exp(logits - _peak(logits))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_softmax(logits: Array) -> Array:
    """Natural logarithms of ``softmax``, computed without leaving log space, so that nothing underflows."""
    shifted = logits - _peak(logits)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def greedy(logits: Array) -> Array:
    """Keep only the largest logit; among equals the lowest id."""
    return top_k(logits, 1, keep_ties=False)


def temperature(logits: Array, t: float) -> Array:
    """Divide by the temperature: below 1 sharpens, above 1 flattens.

    The division is inside the exponential of *every* term: ``p_i = exp(z_i / t) / sum_j exp(z_j / t)``.
    """
    if not t > 0:
        raise ParameterError(
            f"temperature {t} is not positive",
            why="logits are divided by it; 0 would mean a division by zero",
            fix="use a value such as 0.7, or the greedy step for the limit t -> 0",
        )
    return np.asarray(logits / t)


def top_k(logits: Array, k: int, *, keep_ties: bool = True) -> Array:
    """Keep the k largest logits.

    Args:
        keep_ties: keep every token that equals the k-th largest (Hugging Face), or exactly k, the lowest ids first
            (the TensorRT-LLM kernels keep exactly k; which of the equals survive depends on their reduction order).
    """
    _require(k >= 1, f"top_k {k} is below 1", "at least one token must stay", "use 1 or more, or leave the step out")
    if k >= logits.shape[-1]:
        return logits.copy()
    smallest_kept = np.partition(logits, -k, axis=-1)[..., -k, None]
    if keep_ties:
        return _only(logits, logits >= smallest_kept)
    larger, equal = logits > smallest_kept, logits == smallest_kept
    room = k - larger.sum(axis=-1, keepdims=True)
    return _only(logits, larger | equal & (equal.cumsum(axis=-1) <= room))


def top_p(logits: Array, p: float) -> Array:
    """Nucleus: keep the smallest set of likeliest tokens whose mass reaches p. The token that crosses p stays whole.

    Example:
        >>> softmax(top_p(np.log([0.4, 0.3, 0.2, 0.1]), 0.5)).round(3)
        array([0.571, 0.429, 0.   , 0.   ])
    """
    mass, before = _mass_and_mass_before(logits, p)
    return greedy(logits) if p == 0 else _only(logits, (before < p) & (mass > 0))


def top_p_cut(logits: Array, p: float) -> Array:
    """Nucleus as TensorRT-LLM's C++ sampler draws it: the token that crosses p keeps only what fits under p.

    The kernel draws ``u * p`` with u in (0, 1] and walks down the sorted probabilities, so nothing beyond p is ever
    reached. The result holds log-probabilities: the remaining mass of each token, divided by p.
    Source: TensorRT-LLM ``kernels/samplingTopKKernels.cu``, ``samplingTopPKernels.cu``.

    Example:
        >>> softmax(top_p_cut(np.log([0.4, 0.3, 0.2, 0.1]), 0.5)).round(3)
        array([0.8, 0.2, 0. , 0. ])
    """
    mass, before = _mass_and_mass_before(logits, p)
    if p == 0:
        return greedy(logits)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.clip(p - before, 0, mass) / p), dtype=logits.dtype)


def min_p(logits: Array, p: float) -> Array:
    """Keep the tokens that are at least p times as likely as the likeliest."""
    _require(
        0 <= p <= 1, f"min_p {p} is outside 0 to 1", "it is a share of the top probability", "use a value like 0.1"
    )
    return _only(logits, np.exp(logits - _peak(logits)) >= p)


def repetition_penalty(logits: Array, penalty: float, tokens: Tokens) -> Array:
    """Make every token already seen less likely: divide its logit if positive, multiply it if negative.

    Source: Keskar et al. 2019, CTRL, section 4.1 (with the sign rule that all systems add).
    """
    _require(penalty > 0, f"repetition_penalty {penalty} is not positive", "logits are divided by it", "1.0 is neutral")
    penalized = np.where(logits < 0, logits * penalty, logits / penalty)
    return np.where(_counts(tokens, logits) > 0, penalized, logits).astype(logits.dtype)


def presence_penalty(logits: Array, penalty: float, tokens: Tokens) -> Array:
    """Subtract the penalty once from every token already seen; a negative penalty rewards repetition."""
    return (logits - penalty * (_counts(tokens, logits) > 0)).astype(logits.dtype)


def frequency_penalty(logits: Array, penalty: float, tokens: Tokens) -> Array:
    """Subtract the penalty from a token as many times as it was seen."""
    return (logits - penalty * _counts(tokens, logits)).astype(logits.dtype)


def no_repeat_ngram(logits: Array, n: int, tokens: Tokens) -> Array:
    """Remove every token that would complete an n-gram that the sequence already holds."""
    _require(n >= 1, f"no_repeat_ngram {n} is below 1", "it is the length of the n-gram", "use 2 or more")
    if len(tokens) < n:
        return logits.copy()
    start = tuple(tokens[len(tokens) - n + 1 :])
    windows = (tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
    return _without(logits, [window[-1] for window in windows if window[:-1] == start])


def bad_words(logits: Array, words: Sequence[Tokens], tokens: Tokens) -> Array:
    """Remove the last token of each word (a list of ids) whose beginning the sequence ends with."""
    _require(all(words), "a bad word is empty", "it has no token to remove", "drop it from the list")
    return _without(logits, [word[-1] for word in words if _ends_with(tokens, word[:-1])])


def logit_bias(logits: Array, bias: Mapping[int, float]) -> Array:
    """Add a number to the logits of chosen ids; -inf forbids one, a large number forces it."""
    outside = [i for i in bias if not 0 <= i < logits.shape[-1]]
    _require(
        not outside, f"logit_bias names the ids {outside}", f"the vocabulary has {logits.shape[-1]}", "check the ids"
    )
    added = logits.copy()
    added[..., list(bias)] += np.array(list(bias.values()), dtype=logits.dtype)
    return added


def min_length(logits: Array, minimum: int, length: int, end_ids: Sequence[int]) -> Array:
    """Remove the end tokens while the sequence is shorter than the minimum."""
    _require(minimum >= 0, f"min_length {minimum} is negative", "it is a number of tokens", "use 0 or more")
    return _without(logits, end_ids if length < minimum else [])


def _peak(logits: Array) -> Array:
    peak = logits.max(axis=-1, keepdims=True)
    _require(
        not np.isneginf(peak).any(),
        "no token is left to choose from",
        "the steps before removed the whole vocabulary",
        "loosen the bad words, the n-gram rule or the logit bias",
    )
    return np.asarray(peak)


def _mass_and_mass_before(logits: Array, p: float) -> tuple[Array, Array]:
    """The probability of each token, and of all likelier ones together; in float64, where a boundary is decided.

    The second is exact where it is below p, and 1 for tokens that are sure to lie beyond.
    """
    _require(0 <= p <= 1, f"top_p {p} is outside 0 to 1", "it is a probability mass", "use a value such as 0.9")
    scores = np.asarray(logits, dtype=np.float64)
    mass = softmax(scores)
    before = np.ones_like(mass)
    vocabulary = mass.shape[-1]
    rows = (array.reshape(-1, vocabulary) for array in (scores, mass, before))
    for score, row, sums in zip(*rows, strict=True):
        # All tokens below this bound together weigh at most (1 - p) / 2, so p is reached without them: sort the others.
        likely = np.flatnonzero(row >= (1 - p) / (2 * vocabulary))
        order = likely[np.argsort(-score[likely], kind="stable")]  # as greedy sees it, where masses round to equals
        sums[order] = np.cumsum(row[order]) - row[order]
    return mass, before


def _only(logits: Array, kept: npt.NDArray[np.bool_]) -> Array:
    return np.where(kept, logits, -np.inf).astype(logits.dtype)


def _without(logits: Array, removed: Sequence[int]) -> Array:
    remaining = logits.copy()
    remaining[..., [i for i in removed if i < logits.shape[-1]]] = -np.inf
    return remaining


def _counts(tokens: Tokens, logits: Array) -> npt.NDArray[np.int64]:
    vocabulary = logits.shape[-1]
    return np.bincount([t for t in tokens if 0 <= t < vocabulary], minlength=vocabulary).astype(np.int64)


def _ends_with(tokens: Tokens, suffix: Tokens) -> bool:
    return len(suffix) == 0 or tuple(tokens[-len(suffix) :]) == tuple(suffix)


def _require(condition: bool | np.bool_, what: str, why: str, fix: str) -> None:
    if not condition:
        raise ParameterError(what, why=why, fix=fix)
