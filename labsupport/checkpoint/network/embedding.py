"""Both ends of the network: token ids -> hidden states, hidden states -> logits. Either may be cut over the ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from labsupport.checkpoint.network.parallel import Team


class Embedding(nn.Module):
    """A table that every rank holds whole.

    Args:
        tables: one table a hosted rank, [rows, hidden]; they are equal, and the first is read.
        team: unused here; the two cut forms below need it.
    """

    def __init__(self, tables: Sequence[Tensor], team: Team) -> None:
        super().__init__()
        self.team = team
        self.tables = nn.ParameterList(nn.Parameter(table, requires_grad=False) for table in tables)

    def forward(self, rows: Tensor) -> Tensor:
        """Row numbers [...] -> [..., hidden]."""
        return F.embedding(rows, self.tables[0])


class RowsOverRanks(Embedding):
    """``embedding_sharding_dim`` 0: each rank holds some rows and gives zeros for the others; parts are summed."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.team.sum(
            [self._mine(rows, table, rank) for table, rank in zip(self.tables, self.team.ranks, strict=True)]
        )

    @staticmethod
    def _mine(rows: Tensor, table: Tensor, rank: int) -> Tensor:
        local = rows - rank * table.shape[0]
        mine = (local >= 0) & (local < table.shape[0])
        return F.embedding(torch.where(mine, local, 0), table) * mine[..., None]


class ColumnsOverRanks(Embedding):
    """``embedding_sharding_dim`` 1: each rank holds some columns of every row; parts are joined."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.team.join([F.embedding(rows, table) for table in self.tables])


class Head(nn.Module):
    """Hidden states -> logits: each rank scores its range of the vocabulary.

    Args:
        shards: linear layers hidden -> rows of the rank; together they may hold padding rows past the vocabulary.
        vocab_size: how many logits are real.
        softcap: logits are squeezed into (-softcap, softcap) by tanh (Gemma 2), or None.
        team: who joins.
    """

    def __init__(self, shards: Sequence[nn.Module], vocab_size: int, softcap: float | None, team: Team) -> None:
        super().__init__()
        self.shards = nn.ModuleList(shards)
        self.vocab_size, self.softcap, self.team = vocab_size, softcap, team

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, hidden] -> float32 [batch, tokens, vocab_size]."""
        logits = self.team.join([shard(x) for shard in self.shards])[..., : self.vocab_size].float()
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)
