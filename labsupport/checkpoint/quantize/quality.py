"""What fewer bits cost: the next-token distributions of two networks on the same text.

The divergence of token t is ``KL(p || q) = sum_v p_v (ln p_v - ln q_v)`` in nats, p of the float model and q of the
quantized one. It is 0 where the two agree, and about the logarithm of the vocabulary where they have nothing in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labsupport.checkpoint.network import Network, load_network

TEXT = "texts/evaluation.txt"
LENGTH = 512  # tokens of a window
ROWS = 256  # tokens whose logits are held at a time: a vocabulary of 262,144 makes 268 MB of them


@dataclass(frozen=True)
class Quality:
    """A network held against the float model.

    Args:
        tokens: positions compared.
        kl_mean: mean divergence, nats a token.
        kl_p999: its 99.9th percentile: what the worst token in a thousand sees.
        agreement: share of positions where both have the same most likely token.
        perplexity: of this network on the text, ``exp`` of the mean surprise in nats.
    """

    tokens: int
    kl_mean: float
    kl_p999: float
    agreement: float
    perplexity: float


class Judge:
    """The float model on a text: run once, then any number of networks are held against it.

    Args:
        folder: its checkpoint.
        windows: token ids, int64 [windows, length].
    """

    def __init__(self, folder: Path, windows: Tensor) -> None:
        self.windows = windows
        self._head, self._states = _run(load_network(folder), windows)

    @property
    def perplexity(self) -> float:
        """Of the float model."""
        return math.exp(torch.cat([_surprise(p, next_ids) for p, _, next_ids in self._pairs(None)]).mean())

    def measure(self, network: Network) -> Quality:
        """Hold a network against the float model; it gives up its head, so load it anew to run it again."""
        divergence, same, surprise = [], [], []
        for p, q, next_ids in self._pairs(_run(network, self.windows)):
            divergence.append(kl(p, q))
            same.append(p.argmax(-1) == q.argmax(-1))
            surprise.append(_surprise(q, next_ids))
        every = torch.cat(divergence)
        return Quality(
            tokens=every.numel(),
            kl_mean=float(every.mean()),
            kl_p999=float(every.double().quantile(0.999)),
            agreement=float(torch.cat(same).float().mean()),
            perplexity=math.exp(torch.cat(surprise).mean()),
        )

    def _pairs(self, other: tuple[nn.Module, list[Tensor]] | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Log-probabilities of both, [rows, vocab], and the tokens that follow, one fewer at the end of a window."""
        head, states = other or (self._head, self._states)
        for window, mine, theirs in zip(self.windows, self._states, states, strict=True):
            for top in range(0, len(window), ROWS):
                rows = slice(top, top + ROWS)
                p = log_probs(self._head, mine[rows])
                yield p, p if other is None else log_probs(head, theirs[rows]), window[top + 1 : top + ROWS + 1]


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Divergence of each row, nats: log-probabilities [rows, vocab] twice -> [rows], never below 0.

    Example:
        >>> kl(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()).round(decimals=3).tolist()
        [0.511]
    """
    return (p.exp() * (p - q)).sum(-1, dtype=torch.float64).clamp_min(0)


@torch.no_grad()
def log_probs(head: nn.Module, states: Tensor) -> Tensor:
    """[rows, hidden] -> log-probabilities [rows, vocab]."""
    logits: Tensor = head(states)
    return logits.log_softmax(-1)


@torch.no_grad()
def _run(network: Network, windows: Tensor) -> tuple[nn.Module, list[Tensor]]:
    """The head, and the states that it would be given, [length, hidden] a window: a hundredth of the logits' size."""
    last = network.stages[-1]
    head: Any = last.head
    last.register_module("head", None)
    return head, [network(window[None])[0] for window in windows]


def _surprise(log_probabilities: Tensor, next_ids: Tensor) -> Tensor:
    """-ln p of the token that really follows, for each row that has one."""
    return -log_probabilities[: len(next_ids)].gather(1, next_ids[:, None])[:, 0]
