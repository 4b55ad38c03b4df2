"""What attention looks back on. A layer hands its keys and values over and gets back the mix; it never sees a cache."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from labsupport.checkpoint.network.attention import Heads, attend, visible


class Memory(Protocol):
    """The tokens before the tokens of this call.

    Args:
        positions: of the tokens of this call, int64 [tokens].
    """

    positions: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
        """q [batch, tokens, queries, size]; k, v [batch, tokens, keys, size], of this call -> the shape of q."""
        ...


class NoCache:
    """Nothing is kept: the tokens of this call see each other, and there are none before them.

    Args:
        positions: int64 [tokens].
    """

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
        """Plain causal attention; see :class:`Memory`."""
        return attend(q, k, v, visible(self.positions, self.positions, heads.window), heads)
