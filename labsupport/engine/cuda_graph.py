"""A whole step as one CUDA graph: hundreds of kernel launches are recorded once and then started by a single call.

A token of a small model takes a GPU less time than Python needs to launch its kernels. A graph reads and writes the
same memory at each replay, so what changes from step to step is copied into fixed tensors first.

Source: PyTorch, ``torch.cuda.CUDAGraph``; TensorRT-LLM's name for it is ``cuda_graph_mode``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""tokens [1, rows], positions [rows], table [rows, blocks] -> logits [rows, vocab]."""


class Captured:
    """A step of so many rows and blocks, recorded.

    Args:
        step: what to record; it must launch the same kernels whatever the numbers are.
        rows: sequences.
        width: blocks of a table.
    """

    def __init__(self, step: Step, rows: int, width: int) -> None:
        self.tokens = torch.zeros(1, rows, dtype=torch.int64, device="cuda")
        self.positions = torch.zeros(rows, dtype=torch.int64, device="cuda")
        self.table = torch.zeros(rows, width, dtype=torch.int64, device="cuda")
        side: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # the first calls load kernels and fill the allocator, which may not be recorded
            for _ in range(3):
                step(self.tokens, self.positions, self.table)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = step(self.tokens, self.positions, self.table)

    def __call__(self, tokens: Tensor, positions: Tensor, table: Tensor) -> Tensor:
        """Run the step on these numbers; the result is overwritten by the next call."""
        self.tokens.copy_(tokens)
        self.positions.copy_(positions)
        self.table.copy_(table)
        self.graph.replay()
        return self.logits


def bucket(width: int) -> int:
    """The next power of two: a graph for each table width would be recorded for every 32 tokens.

    Example:
        >>> [bucket(width) for width in (2, 3, 17)]
        [2, 4, 32]
    """
    return 1 << (width - 1).bit_length()
