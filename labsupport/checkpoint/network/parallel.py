"""Tensor parallelism: a block is cut into shards, each computes a part, and the parts are summed.

A process hosts one shard or several. All of them in one process is the plain way to read and to test a checkpoint;
one shard a process is how a server runs. The layers do not know the difference: only the :class:`Team` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Team:
    """The tensor-parallel ranks of one pipeline stage, all hosted by this process.

    Args:
        ranks: the tensor-parallel ranks that this process hosts, ascending.
    """

    def __init__(self, ranks: Sequence[int]) -> None:
        self.ranks = tuple(ranks)

    def sum(self, parts: Sequence[Tensor]) -> Tensor:
        """All-reduce: one part a rank, equal shapes -> their sum, the same on every rank."""
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """All-gather: one part a rank -> their concatenation along the last axis, in rank order."""
        return torch.cat(list(parts), dim=-1)


class ProcessTeam(Team):
    """A team with one rank a process, which talks over ``torch.distributed``.

    Args:
        rank: the tensor-parallel rank of this process.
        group: a process group that holds the ranks of this stage.
        size: the number of ranks in ``group``.
    """

    def __init__(self, rank: int, group: Any, size: int) -> None:
        super().__init__([rank])
        self.group, self.size = group, size

    def sum(self, parts: Sequence[Tensor]) -> Tensor:
        from torch import distributed

        total = super().sum(parts).contiguous()
        distributed.all_reduce(total, group=self.group)
        return total

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        from torch import distributed

        mine = super().join(parts).contiguous()
        everyone = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everyone, mine, group=self.group)
        return torch.cat(everyone, dim=-1)


class Sharded(nn.Module):
    """Attention or MLP over all ranks: the sum of what the shards compute, plus the bias, once.

    The last linear of either block is cut along its input, so each shard gives a full-sized *part* of the output.
    The bias stands whole in every rank's file: adding it per shard would add it ``tp_size`` times.

    Args:
        shards: the shards that this process hosts, in rank order.
        bias: bias of the last linear, [hidden], or None.
        team: who sums.
    """

    bias: Tensor | None

    def __init__(self, shards: Sequence[nn.Module], bias: Tensor | None, team: Team) -> None:
        super().__init__()
        self.shards = nn.ModuleList(shards)
        self.register_buffer("bias", bias)
        self.team = team

    def forward(self, x: Tensor, *where: Tensor) -> Tensor:
        """[batch, tokens, hidden] -> the same shape; ``where`` is handed to the shards."""
        total = self.team.sum([shard(x, *where) for shard in self.shards])
        return total if self.bias is None else total + self.bias
