"""What a decoder with a KV cache costs, counted: multiply-adds of a pass and of a text, sequences that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from labsupport.doctor.shapes import Shape


def weight_products(shape: Shape) -> int:
    """Multiply-adds of one token with the matrices of all layers (gated MLP); the output head is not among them."""
    attention = 2 * (shape.heads + shape.kv_heads) * shape.head_size * shape.hidden
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def pair_products(shape: Shape) -> int:
    """Multiply-adds of one query with one key, and of its weight with the value, over all layers and heads."""
    return shape.layers * 2 * shape.heads * shape.head_size


def pass_work(shape: Shape, new: int, before: int = 0) -> int:
    """Multiply-adds of one forward pass over ``new`` tokens, ``before`` of them cached, logits of the last token only.

    Masked scores count: plain attention computes them.
    """
    head = shape.vocab * shape.hidden
    return new * weight_products(shape) + new * (before + new) * pair_products(shape) + head


def text_work(prompt: int, new: int, per_token: int, per_pair: int, cached: bool) -> int:
    """Multiply-adds to write ``new`` tokens after a prompt of ``prompt``, without the output head.

    The first new token comes out of the pass over the prompt; the last one is never read.

    Args:
        per_token: of one token with the weights, :func:`weight_products`.
        per_pair: of one query with one key, :func:`pair_products`.
        cached: whether a pass reads only the tokens that are new to it.
    """
    work = 0
    for length in range(prompt, prompt + new):
        read = 1 if cached and length > prompt else length
        work += read * per_token + read * length * per_pair
    return work


def sequences_that_fit(free: int, tokens: int, bytes_per_token: int, block: int) -> int:
    """How many sequences of ``tokens`` tokens ``free`` bytes of cache hold, given out in blocks of ``block`` tokens."""
    blocks = -(-tokens // block)
    return free // (blocks * block * bytes_per_token)


def multiply_adds(run: Callable[..., object], *args: object) -> int:
    """Multiply-adds of the matrix products that ``run(*args)`` makes, counted by PyTorch as they happen."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run(*args)
    return int(counter.get_total_flops()) // 2


def largest_tensor(run: Callable[..., object], *args: object) -> int:
    """Numbers in the largest tensor that an operation of ``run(*args)`` makes; views of older ones do not count."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        largest: int = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            if not func.is_view:
                sizes = [each.numel() for each in tree_leaves(made) if hasattr(each, "numel")]
                self.largest = max([self.largest, *sizes])
            return made

    watch = Watch()  # type: ignore[no-untyped-call]
    with watch:
        run(*args)
    largest: int = watch.largest
    return largest
