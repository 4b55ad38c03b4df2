"""Words -> the packed tensors of the engine: stop and bad words, and the bias on single tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def pack_words(prompts: Sequence[Sequence[Sequence[int]]]) -> NDArray[np.int32]:
    """Pack words, given as token ids, for a batch of prompts.

    Row 0 holds the ids of all words one after another, row 1 where each word ends; the rest is 0 and -1.

    Args:
        prompts: for each prompt its words, each a list of ids; words without ids are left out.

    Returns:
        int32, ``[prompts, 2, L]``; L is 0 where nobody has a word.

    Example:
        >>> pack_words([[[7, 8], [9, 10, 11]]]).tolist()
        [[[7, 8, 9, 10, 11], [2, 5, -1, -1, -1]]]
    """
    kept = [[word for word in words if len(word)] for words in prompts]
    longest = max((sum(map(len, words)) for words in kept), default=0)
    packed = np.zeros((len(kept), 2, longest), np.int32)
    packed[:, 1] = -1
    for row, words in zip(packed, kept):
        ids = [id for word in words for id in word]
        row[0, : len(ids)] = ids
        row[1, : len(words)] = np.cumsum([len(word) for word in words])
    return packed


def unpack_words(packed: NDArray[np.int32]) -> list[list[int]]:
    """The words of one prompt, from ``[2, L]``; the way back of ``pack_words``."""
    ends = [int(end) for end in packed[1] if end >= 0]
    return [packed[0, start:end].tolist() for start, end in zip([0, *ends], ends)]


def bias_row(words: Sequence[Sequence[int]], weights: Sequence[float], size: int) -> NDArray[np.float32]:
    """A bias on every token's logit: each word's weight on all of its ids; words that share an id add up.

    Args:
        words: ids of each word.
        weights: one for each word.
        size: entries of the engine's logits.

    Raises:
        ValueError: lengths differ, or an id is beyond the logits.
    """
    if len(words) != len(weights):
        raise ValueError(f"{len(words)} embedding_bias_words and {len(weights)} embedding_bias_weights: one for each")
    row = np.zeros(size, np.float32)
    for word, weight in zip(words, weights):
        if beyond := [id for id in word if not 0 <= id < size]:
            raise ValueError(f"token {beyond[0]} of embedding_bias_words is beyond the engine's {size} logits")
        for id in set(word):
            row[id] += weight
    return row
