"""How requests share instances, and how engines share the memory of one GPU."""

from __future__ import annotations

from collections.abc import Sequence


def at_once(decoupled: bool, instances: int, max_batch_size: int) -> int:
    """Requests that a BLS serves at the same time: one for each copy, unless it is decoupled and need not wait."""
    return max_batch_size if decoupled else min(instances, max_batch_size)


def pools(memory: float, engines: Sequence[tuple[float, float]]) -> list[float | None]:
    """The KV pool of each engine that loads on one GPU, in the order of loading.

    Args:
        memory: of the GPU, in any unit.
        engines: what each needs before its pool (weights, activations, libraries), in the same unit, and its
            ``kv_cache_free_gpu_mem_fraction``: the share of what is then left.

    Returns:
        The pools; None for an engine that found no room.
    """
    found: list[float | None] = []
    free = memory
    for needs, fraction in engines:
        if needs >= free:
            found.append(None)
            continue
        pool = fraction * (free - needs)
        free -= needs + pool
        found.append(pool)
    return found
