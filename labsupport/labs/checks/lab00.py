"""Checks of lab 00, start here: what a model weighs, and what a machine lacks."""

from __future__ import annotations

from collections.abc import Callable

from labsupport.doctor import memory
from labsupport.doctor.shapes import Shape, known_shapes
from labsupport.labs.checks import exercise, expect, expect_choice, show

Count = Callable[..., int]


def kv_bytes_per_token(layers: int, kv_heads: int, head_size: int, bytes_each: int) -> int:
    """Bytes of the keys and values of one token, over all layers."""
    return 2 * layers * kv_heads * head_size * bytes_each


def largest_batch(memory: float, weights: float, reserve: float, kv_per_token: float, length: int) -> int:
    """Sequences of ``length`` tokens whose cache fits beside weights and reserve; all sizes in bytes."""
    return max(0, int((memory - weights - reserve) // (kv_per_token * length)))


@exercise("00.1", reference="b")
def prediction(attempt: str) -> None:
    """What made Llama 2 7B "too big" for a 24 GB card."""
    expect_choice(
        attempt,
        "b",
        reasons={
            "a": "6.74 billion weights of 2 bytes are 13.5 GB. That is less than 24.",
            "c": "the vocabulary has 32,000 rows of 4,096 values: 0.26 GB in 16 bits, and a second one for the output.",
            "d": "the tokenizer is a file of a few MB, and it never reaches the GPU.",
        },
    )


@exercise("00.2", reference=kv_bytes_per_token)
def cache_of_a_token(attempt: Count) -> None:
    """Held against the doctor's own formula, for each model of its table."""
    expect(
        attempt(1, 1, 1, 1) == 2,
        f"One layer, one KV head, head size 1, one byte: you got {show(attempt(1, 1, 1, 1))}, expected 2. "
        "A token leaves a key AND a value.",
    )
    for shape in known_shapes().values():
        want = memory.kv_bytes_per_token(shape, "float16")
        got = attempt(shape.layers, shape.kv_heads, shape.head_size, 2)
        expect(got == want, _about(shape, got, want))


@exercise("00.3", reference=largest_batch)
def batch_that_fits(attempt: Count) -> None:
    """Worked cases: one that divides evenly, one that does not, one in which even the weights are too big."""
    cases = [
        ((24e9, 14e9, 2e9, 1e6, 1000), "8 GB are left and a sequence takes 1 GB"),
        ((24e9, 14e9, 2e9, 1e6, 3000), "8 GB are left and a sequence takes 3 GB; a third one would not fit"),
        ((24e9, 30e9, 2e9, 1e6, 1000), "the weights alone do not fit, so no sequence does"),
    ]
    for given, why in cases:
        got, want = attempt(*given), largest_batch(*given)
        expect(
            got == want, f"largest_batch{tuple(f'{x:g}' for x in given)}: you got {show(got)}, expected {want}: {why}."
        )


@exercise("00.4", reference=("GPU driver", "c"))
def diagnosis(attempt: tuple[str, str]) -> None:
    """Which row of a doctor's report stops the pinned container, and why."""
    expect(isinstance(attempt, (tuple, list)) and len(attempt) == 2, 'give a pair, such as ("Disk", "a")')
    named, reason = attempt
    row = str(named).strip().lower()
    harmless = {
        "gpu": "an RTX 4090 has compute capability 8.9, and 7.5 is enough.",
        "chromium": "it prints PDF handouts; no server needs it.",
        "disk": "120 GB hold the image (18.3 GB) and this model several times.",
        "tensorrt-llm": "it is in the container; the host needs none.",
        "container": "a host is not inside a container, and need not be.",
    }
    expect(row in {"gpu driver", *harmless}, f"there is no row {named!r} in the report")
    expect(row == "gpu driver", f"{named}: {harmless.get(row, '')}")
    expect_choice(
        reason,
        "c",
        reasons={
            "a": "older cards are the problem of the row GPU, and this card is new enough.",
            "b": "it is the other way round: a newer driver runs an older container.",
            "d": "only data-center GPUs may keep an older driver branch, and this is a GeForce card.",
        },
    )


def _about(shape: Shape, got: object, want: int) -> str:
    return (
        f"{shape.title} has {shape.layers} layers, {shape.kv_heads} KV heads (and {shape.heads} query heads) of size "
        f"{shape.head_size}; at 2 bytes you got {show(got)}, expected {want:,} bytes a token."
    )
