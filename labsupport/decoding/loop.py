"""The autoregressive loop, and the bridge from a Hugging Face model to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from labsupport.decoding.beam import NextLogprobs
from labsupport.decoding.sampler import Context, Sampler
from labsupport.decoding.steps import Array, log_softmax
from labsupport.decoding.streams import Stream

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NextLogits = Callable[[Sequence[int]], Array]
"""A sequence of ids -> the logits [V] of the token after it."""


@dataclass(frozen=True)
class Generation:
    """What a loop wrote.

    Args:
        tokens: the new ids, the end token included.
        logprobs: ln p of each under the *model*, before any sampling step.
        stopped: ``end`` (an end token) or ``length``.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    stopped: Literal["end", "length"]


def generate(
    next_logits: NextLogits,
    prompt: Sequence[int],
    sampler: Sampler,
    stream: Stream,
    *,
    max_new_tokens: int,
    end_ids: Sequence[int] = (),
) -> Generation:
    """Write tokens one at a time: logits, steps, draw, append.

    A greedy sampler leaves one token to draw from, so any stream gives the same text.
    """
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(tokens) < max_new_tokens:
        logits = next_logits([*prompt, *tokens])
        token = sampler.sample(logits, stream, Context(tuple(prompt), tuple(tokens)))
        tokens.append(token)
        logprobs.append(float(log_softmax(logits)[token]))
        if token in end_ids:
            return Generation(tuple(tokens), tuple(logprobs), "end")
    return Generation(tuple(tokens), tuple(logprobs), "length")


def all_logits(model: PreTrainedModel, sequences: Sequence[Sequence[int]], *, last_only: bool = False) -> Array:
    """One forward pass over n sequences of equal length T: float32 logits [n, T, V], or [n, 1, V] of the last token."""
    import torch

    ids = torch.tensor([list(sequence) for sequence in sequences], device=model.device)
    with torch.inference_mode():
        # Without a mask transformers warns whenever a prompt holds the padding id, as chat prompts do.
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=int(last_only)).logits
    return np.asarray(logits.float().cpu().numpy())


def next_logits(model: PreTrainedModel) -> NextLogits:
    """The model as ``generate`` wants it."""
    return lambda tokens: np.asarray(all_logits(model, [tokens], last_only=True)[0, 0])


def next_logprobs(model: PreTrainedModel) -> NextLogprobs:
    """The model as ``beam_search`` wants it."""
    return lambda sequences: log_softmax(all_logits(model, sequences, last_only=True)[:, 0])
