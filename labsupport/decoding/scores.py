"""How likely is a whole sequence, and how to add that up without underflow. All logarithms are natural."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from labsupport.decoding.steps import Array, Tokens, log_softmax
from labsupport.errors import ParameterError


def token_logprobs(logits: Array, tokens: Tokens) -> Array:
    """ln p of each token given what came before it.

    Args:
        logits: [T, V]; row t is what the model said *before* it saw ``tokens[t]``.
        tokens: the T ids that were in fact written.

    Returns:
        [T], each at most 0.

    Raises:
        ParameterError: there is not one row per token, or an id is outside the vocabulary.
    """
    if logits.shape[0] != len(tokens):
        raise ParameterError(
            f"{logits.shape[0]} rows of logits for {len(tokens)} tokens",
            why="row t must predict tokens[t], so the two have the same length",
            fix="cut the logits to the rows of the scored tokens: logits[prompt_length - 1 : -1]",
        )
    if any(not 0 <= token < logits.shape[-1] for token in tokens):
        raise ParameterError(
            f"a token is outside the vocabulary of {logits.shape[-1]}",
            why="its probability is not among the logits",
            fix="check that tokens and logits come from the same model",
        )
    return np.asarray(log_softmax(logits)[np.arange(len(tokens)), list(tokens)])


def sequence_logprob(logits: Array, tokens: Tokens) -> float:
    """ln of the probability of the whole sequence: the sum of its token log-probabilities, added in float64.

    Example:
        >>> logits = np.log([[0.5, 0.5], [0.25, 0.75]])
        >>> round(sequence_logprob(logits, [0, 1]), 4)  # ln(0.5 * 0.75)
        -0.9808
    """
    return float(token_logprobs(logits, tokens).sum(dtype=np.float64))


def perplexity(logprobs: Sequence[float] | Array) -> float:
    """exp of the mean negative log-probability [T]: the number of equally likely choices per token."""
    return float(np.exp(-_mean(logprobs)))


def confidence(logprobs: Sequence[float] | Array) -> float:
    """The geometric mean of the token probabilities [T], in 0 to 1: comparable between lengths, unlike the product."""
    return float(np.exp(_mean(logprobs)))


def log_sum(logprobs: Sequence[float] | Array) -> float:
    """ln of the sum of probabilities that are only known by their logarithms [N].

    Example:
        >>> round(log_sum([-1000.0, -1000.0]) + 1000, 4)  # ln 2, although exp(-1000) is 0 in float64
        0.6931
    """
    values = np.asarray(logprobs, dtype=np.float64)
    peak = values.max()
    return float(peak if np.isneginf(peak) else peak + np.log(np.exp(values - peak).sum()))


def running_product(probs: Sequence[float] | Array, dtype: npt.DTypeLike = np.float32) -> Array:
    """The product of the first 1, 2, ..., T probabilities, rounded to ``dtype`` at each step, as a machine does it.

    Example:
        >>> int(np.argmin(running_product([0.1] * 20, np.float16))) + 1  # the length at which float16 says 0
        8
    """
    product, products = np.ones((), dtype)[()], []
    for p in np.asarray(probs, dtype):
        product = np.asarray(product * p, dtype)[()]
        products.append(product)
    return np.array(products, dtype)


def _mean(logprobs: Sequence[float] | Array) -> float:
    if len(logprobs) == 0:
        raise ParameterError("no tokens to score", why="a mean over nothing is undefined", fix="score at least one")
    return float(np.mean(logprobs, dtype=np.float64))
