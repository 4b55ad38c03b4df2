"""Checks of lab 07, engine build."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from labsupport.doctor.memory import FIXED_BYTES, POOL_FRACTION, kv_bytes_per_token, weight_bytes
from labsupport.doctor.shapes import known_gpus, known_shapes
from labsupport.labs.checks import exercise, expect, expect_equal

MODEL, CARD, PRECISION = "llama-2-7b", "4090", "int8"
USERS, PROMPT, ANSWER = 12, 1500, 500
LIMITS = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens")
KERNELS = {
    "layer.context": [
        "cpp_fused__to_copy_add_mean_mul_pow_rsqrt_view_0",
        "aoti_torch_cpu_mm_out",
        "aoti_torch_cpu_bmm_out",
        "cpp_fused__softmax_add_mul_view_2",
        "cpp_fused__to_copy_mul_silu_t_view_6",
    ],
    "layer.1": ["cpp_fused__softmax__to_copy_add_as_strided_cos_mean_mul_pow_rsqrt_silu_sin_sum_view_0"],
    "head.1": ["cpp_fused_as_strided_mean_mul_pow_rsqrt_sum_view_0"],
}


def graph_count(kinds: int, max_batch_size: int, max_beam_width: int = 1, gather_context_logits: bool = False) -> int:
    """Graphs that a build compiles.

    Args:
        kinds: layers that differ in more than their weights.
        max_batch_size, max_beam_width, gather_context_logits: limits of the build.
    """
    rows = 1 if max_batch_size * max_beam_width == 1 else 2  # one sequence a step, and eight
    return kinds * (1 + rows) + rows + int(gather_context_logits)


def pool_bytes(
    lengths: Sequence[int], tokens_per_block: int, layers: int, kv_heads: int, head_size: int, bytes_each: int
) -> int:
    """Bytes of the blocks that sequences of these lengths hold; each owns whole blocks."""
    blocks = sum(-(-length // tokens_per_block) for length in lengths)
    return blocks * tokens_per_block * 2 * layers * kv_heads * head_size * bytes_each


def holders(kernels: Mapping[str, Sequence[str]], operation: str) -> dict[str, list[int]]:
    """For each graph, the places of the kernels that perform ``operation``."""
    return {
        graph: [place for place, name in enumerate(names) if f"_{operation}_" in f"{name}_"]
        for graph, names in kernels.items()
    }


def why_not(built: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What keeps an engine from running here: ``torch``, ``machine``, and each missing instruction by name."""
    differs = [what for what in ("torch", "machine") if built[what] != here[what]]
    return differs + sorted(set(built["instructions"]) - set(here["instructions"]))


@exercise("07.1", reference=graph_count)
def graphs(attempt: Callable[..., int]) -> None:
    """A plain model first, then one limit at a time."""
    cases = [(1, 1, 1, False), (1, 8, 1, False), (1, 1, 4, False), (2, 1, 1, False), (2, 8, 1, True), (3, 1, 1, True),
             (1, 64, 1, False)]  # fmt: skip
    for kinds, batch, beams, gather in cases:
        given = (
            f"{kinds} kinds of layer, max_batch_size {batch}, max_beam_width {beams}, gather_context_logits {gather}"
        )
        expect_equal(attempt(kinds, batch, beams, gather), graph_count(kinds, batch, beams, gather), given=given)


@exercise("07.2", reference=pool_bytes)
def blocks(attempt: Callable[..., int]) -> None:
    """Lengths at the edges of blocks, then shapes of real models."""
    cases = [([1], 4, 1, 1, 1, 1), ([4], 4, 1, 1, 1, 1), ([5, 5], 4, 1, 1, 1, 1), ([33, 64, 1], 32, 30, 3, 64, 4),
             ([2000] * 12, 64, 32, 32, 128, 2)]  # fmt: skip
    for case in cases:
        names = ("lengths", "tokens_per_block", "layers", "kv_heads", "head_size", "bytes_each")
        expect_equal(attempt(*case), pool_bytes(*case), given=dict(zip(names, case, strict=True)))


@exercise(
    "07.3",
    reference={"max_batch_size": 12, "max_input_len": 1500, "max_seq_len": 2000, "max_num_tokens": 2048},
)
def limits(attempt: Mapping[str, int]) -> None:
    """The load is covered, nothing contradicts, and what is promised fits."""
    expect(isinstance(attempt, Mapping), f"expected a dict of limits; you got {type(attempt).__name__}")
    missing = [name for name in LIMITS if not isinstance(attempt.get(name), int)]
    expect(not missing, f"no whole number for {', '.join(missing)}")
    batch, longest, length, step = (attempt[name] for name in LIMITS)
    expect(batch >= USERS, f"max_batch_size {batch}: of {USERS} users {USERS - batch} would wait.")
    expect(longest >= PROMPT, f"max_input_len {longest}: a prompt of {PROMPT} tokens is refused.")
    expect(
        length >= PROMPT + ANSWER,
        f"max_seq_len {length}: prompt and answer together are {PROMPT + ANSWER}; the answer would be cut.",
    )
    expect(length <= known_shapes()[MODEL].context, f"max_seq_len {length}: the model has seen 4,096 positions.")
    expect(longest <= length, f"max_input_len {longest} is beyond max_seq_len {length}.")
    expect(step >= batch, f"max_num_tokens {step}: {batch} users generate one token each in a step.")
    expect(
        step >= PROMPT, f"max_num_tokens {step}: a prompt of {PROMPT} does not pass in one step, and chunks are off."
    )
    needed, memory = needed_bytes(batch, length, step), known_gpus()[CARD].memory_bytes
    expect(
        needed <= memory,
        f"You promise {batch} x {length} = {batch * length:,} tokens of cache and {step:,} tokens a step:\n"
        f"{needed / 1e9:.1f} GB, and the card has {memory / 1e9:.1f}.",
    )


@exercise("07.4", reference=holders)
def kernels(attempt: Callable[..., dict[str, list[int]]]) -> None:
    """Names that lie inside of other names are the trap."""
    for operation in ("rsqrt", "mm", "silu", "softmax", "mul", "sum"):
        got = attempt({graph: list(names) for graph, names in KERNELS.items()}, operation)
        expect_equal(got, holders(KERNELS, operation), given=f"KERNELS of an engine, operation {operation!r}")


@exercise("07.5", reference=why_not)
def refused(attempt: Callable[..., list[str]]) -> None:
    """A newer processor is no obstacle, an older one is."""
    built = {"torch": "2.13.0", "machine": "x86_64", "instructions": ["avx", "avx2", "fma"]}
    others: list[dict[str, Any]] = [
        {},
        {"instructions": ["avx", "avx2", "avx512f", "fma"]},
        {"instructions": ["avx", "fma"]},
        {"instructions": []},
        {"torch": "2.12.0"},
        {"torch": "2.12.0", "machine": "aarch64", "instructions": ["asimd"]},
    ]
    for other in others:
        here = {**built, **other}
        expect_equal(list(attempt(dict(built), dict(here))), why_not(built, here), given={"built": built, "here": here})


def needed_bytes(batch: int, length: int, step: int) -> int:
    """Bytes that the load of exercise 07.3 takes at these limits, with the cache as a share of what is left."""
    shape = known_shapes()[MODEL]
    activations = step * (2 * shape.hidden + 2 * shape.intermediate) * 2 + batch * shape.vocab * 4
    cache = batch * length * kv_bytes_per_token(shape, PRECISION) / POOL_FRACTION
    return int(weight_bytes(shape, PRECISION) + cache + activations + FIXED_BYTES)
