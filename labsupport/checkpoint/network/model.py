"""The decoder: pipeline stages in a row, each a run of layers; the first has the embedding, the last the head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labsupport.checkpoint.network.memory import Memory, NoCache


class Inputs(nn.Module):
    """Token ids -> hidden states.

    Args:
        tokens: the vocabulary's table.
        positions: a learned table of positions (OPT, GPT-2), or None where attention is rotary.
        scale: factor on the token's row; sqrt(hidden) for Gemma, whose table is stored unscaled, else 1.
    """

    def __init__(self, tokens: nn.Module, positions: nn.Module | None, scale: float) -> None:
        super().__init__()
        self.tokens, self.positions, self.scale = tokens, positions, scale

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """tokens: int64 [batch, tokens]; positions: [tokens] -> [batch, tokens, hidden]."""
        x: Tensor = self.tokens(tokens) * self.scale
        return x if self.positions is None else x + self.positions(positions)


class Stage(nn.Module):
    """The layers of one pipeline rank, over all its tensor-parallel ranks.

    Args:
        inputs: on the first stage, else None.
        layers: the layers of this stage, in order.
        norm: the last norm (ln_f), on the last stage of most families, else None.
        head: on the last stage, else None.
    """

    def __init__(
        self, inputs: nn.Module | None, layers: Sequence[nn.Module], norm: nn.Module | None, head: nn.Module | None
    ) -> None:
        super().__init__()
        self.inputs, self.layers = inputs, nn.ModuleList(layers)
        self.norm, self.head = norm, head

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """Token ids (first stage) or hidden states -> hidden states, or logits (last stage)."""
        if self.inputs is not None:
            x = self.inputs(x, memory.positions)
        for layer in self.layers:
            x = layer(x, memory)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.head is None else self.head(x)


class Network(nn.Module):
    """All stages in one process: the hidden state is handed from each to the next.

    Args:
        stages: in pipeline order.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, tokens: Tensor, memory: Memory | None = None) -> Tensor:
        """Token ids, int64 [batch, tokens] -> logits, float32 [batch, tokens, vocab_size].

        Without a ``memory`` the tokens stand at positions 0, 1, 2 ... and nothing came before them.
        """
        memory = memory or NoCache(torch.arange(tokens.shape[1], device=tokens.device))
        x = tokens
        for stage in self.stages:
            x = stage(x, memory)
        return x
