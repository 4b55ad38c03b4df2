"""Two operations of a generation step on a GPU, as kernels of our own: one row times a matrix, and paged attention.

The compiler's loops for these need a search for good launch sizes in each build, and do not always find them. Attention
would take six of its kernels, each of which waits for the one before. To the compiler they are closed boxes.

Source of the attention: Flash-Decoding, Dao et al. 2023.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

WIDEST = 4096  # numbers of a row that a program holds at once; four warps load 64 bytes a thread


@torch.library.custom_op("labs::multiply", mutates_args=())
def multiply(x: Tensor, weight: Tensor, other: Tensor | None) -> Tensor:
    """One row times a matrix, or times two of the same shape in one launch.

    Args:
        x: [in].
        weight, other: [out, in].

    Returns:
        [1, out], or [2, out], of the type of ``x``; sums are taken in float32.
    """
    import triton

    count, columns = weight.shape
    step = min(WIDEST, triton.next_power_of_2(columns))
    rows = 1 if step > 1024 else 2
    out = torch.empty(1 if other is None else 2, count, dtype=x.dtype, device=x.device)
    _kernels().multiply[(triton.cdiv(count, rows), len(out))](
        x.contiguous(), weight, weight if other is None else other, out, count,
        COLUMNS=columns, WHOLE=count % rows == 0, ROWS=rows, STEP=step, num_warps=max(1, step // 1024),
    )  # fmt: skip
    return out


@multiply.register_fake
def _(x: Tensor, weight: Tensor, other: Tensor | None) -> Tensor:
    return x.new_empty(1 if other is None else 2, weight.shape[0])


@torch.library.custom_op("labs::attend_blocks", mutates_args=())
def attend_blocks(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, bias: Tensor, scale: float,
                  softcap: float) -> Tensor:  # fmt: skip
    """One query of each sequence over its blocks: every block on its own, then all put together.

    Args:
        q: [rows, queries, size]; size is a power of two.
        keys, values: the pools, [blocks, tokens, keys, size].
        table: int64 [rows, width], the blocks of each sequence.
        bias: float32 [rows, width * tokens], 0 where a key may be seen and -inf elsewhere. It is what tells a layer
            with a window from one without, since both may run the same graph.
        scale, softcap: see ``Heads``; 0 for no softcap.

    Returns:
        [rows, queries, size], of the type of ``q``.
    """
    import triton

    (rows, queries, size), width = q.shape, table.shape[1]
    tokens, heads = keys.shape[1:3]
    mixed = torch.empty(rows, queries, width, size, device=q.device)
    top, total = torch.empty(2, rows, queries, width, device=q.device)
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    _kernels().look[(width, queries, rows)](
        q.contiguous(), keys, values, table.contiguous(), bias.contiguous(), mixed, top, total, width, scale, softcap,
        KEYS=heads, GROUP=queries // heads, TOKENS=tokens, SIZE=size, CAPPED=softcap > 0, num_warps=1,
    )  # fmt: skip
    step = min(64, triton.next_power_of_2(width))
    _kernels().join[(rows * queries,)](mixed, top, total, out, width, STEP=step, SIZE=size)
    return out


@attend_blocks.register_fake
def _(q: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


def _kernels() -> Any:
    """Triton is there where torch was built for a GPU, and nowhere else."""
    from labsupport.engine import gpu_kernels

    return gpu_kernels
