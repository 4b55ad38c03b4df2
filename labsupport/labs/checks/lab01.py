"""Checks of lab 01, tokens to logits: token counts, log-softmax, one BOS, one head by hand, broken templates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from labsupport.decoding import steps
from labsupport.labs.checks import exercise, expect, expect_choice, expect_close, show

Array = npt.NDArray[Any]
Prompt = str | Sequence[Mapping[str, str]]

COUNTS = {" Paris": 1, "paris": 2, "123456": 6, "😊": 3}
"""Tokens of SmolLM2's tokenizer; the lab and a test hold them against the tokenizer itself."""

WHY = {
    " Paris": "the space belongs to the token, and this spelling is frequent enough for a token of its own.",
    "paris": "without space and capital it is rarer: look how section 1 cut it.",
    "123456": "this tokenizer cuts numbers into single digits before any merge.",
    "😊": "it is 4 bytes in UTF-8, and one merge (F0 with 9F) joins two of them.",
}


def log_softmax(z: Array) -> Array:
    """ln of the softmax over the last axis of logits [..., V], without overflow or underflow."""
    return steps.log_softmax(np.asarray(z, dtype=np.float64))


def encode(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The ids of a raw text (the tokenizer adds what it adds) or of a chat (the template has already added it)."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt).input_ids)
    text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def attend(q: Array, k: Array, v: Array) -> Array:
    """Attention of one new token: queries [A, D] over keys and values [K, T, D]; A / K heads share one of them."""
    groups = q.shape[0] // k.shape[0]
    keys, values = np.repeat(k, groups, axis=0), np.repeat(v, groups, axis=0)
    weights = steps.softmax(np.einsum("ad,atd->at", q, keys) / np.sqrt(q.shape[-1]))
    return np.asarray(np.einsum("at,atd->ad", weights, values))


@exercise("01.1", reference=COUNTS)
def token_counts(attempt: Mapping[str, int]) -> None:
    """Predictions of token counts, each wrong one with a reason that does not give the count away."""
    expect(isinstance(attempt, Mapping), "hand in the dict of the exercise cell, with a number for each text")
    for text, count in COUNTS.items():
        expect(text in attempt, f"the text {text!r} is missing")
        got = attempt[text]
        expect(got is not None, f"{text!r} has no number yet")
        expect(got == count, f"{text!r} is not {show(got)} tokens: {WHY[text]}")


@exercise("01.2", reference=log_softmax)
def stable_log_softmax(attempt: Callable[[Array], Array]) -> None:
    """By hand, then far from zero, then far apart, then masked, then two rows at once."""
    hand = np.log([1.0, 3.0])
    expect_close(attempt(hand.copy()), np.log([0.25, 0.75]), given="z=[ln 1, ln 3]")
    for shift in (1000.0, -1000.0):
        words = f"z=[ln 1, ln 3] {shift:+.0f}, the same gaps"
        expect_close(attempt(hand + shift), np.log([0.25, 0.75]), given=words, rtol=1e-9)
    expect_close(attempt(np.array([0.0, -800.0])), [0.0, -800.0], given="z=[0, -800] (ln p may be -800, p may not)")
    expect_close(attempt(np.array([0.0, -np.inf])), [0.0, -np.inf], given="z=[0, -inf] (a token that is ruled out)")
    two = np.array([[0.0, 0.0], [5.0, 5.0]])
    expect_close(attempt(two.copy()), np.full((2, 2), np.log(0.5)), given="two rows, z=[[0, 0], [5, 5]]")
    z = np.array([3.0, 1.0, 2.0])
    attempt(z)
    expect_close(z, [3.0, 1.0, 2.0], given="the caller's own z=[3, 1, 2] after the call (it must not change)")


@exercise("01.3", reference=encode)
def one_bos(attempt: Callable[[Any, Prompt], Sequence[int]]) -> None:
    """A Gemma-like tokenizer, asked with a chat, with a raw text, and with a text that holds a BOS of its own."""
    from labsupport.models.gemma_like import gemma_like_tokenizer
    from labsupport.models.tiny import byte_tokenizer

    gemma, plain = gemma_like_tokenizer(), byte_tokenizer(512)
    chat = [{"role": "user", "content": "hi"}]
    got = [int(id) for id in attempt(gemma, chat)]
    expect(
        got.count(2) == 1, f"A chat, tokenizer like Gemma's: your ids begin {got[:4]}; <bos> (2) is in {got.count(2)}x"
    )
    opening = [105, *gemma("model\n", add_special_tokens=False).input_ids]
    expect(
        got[-len(opening) :] == opening,
        f"The chat's ids end with {show(gemma.decode(got[-9:]))}: it is nobody's turn. Ask for the generation prompt.",
    )
    expect(got == encode(gemma, chat), f"The chat [user: hi] became {show(gemma.decode(got))}")
    raw = [int(id) for id in attempt(gemma, "The capital")]
    expect(raw[:1] == [2], f"A raw text has no template: nobody but the tokenizer adds <bos>. Your ids begin {raw[:3]}")
    expect(raw == encode(gemma, "The capital"), f"The raw text became {show(gemma.decode(raw))}")
    asks = [{"role": "user", "content": "What is <bos>?"}]
    got = [int(id) for id in attempt(gemma, asks)]
    expect(
        got == encode(gemma, asks),
        "A user asks 'What is <bos>?', and your ids lose it: mend the cause, do not filter ids.",
    )
    got = [int(id) for id in attempt(plain, chat)]
    expect(
        got == encode(plain, chat),
        f"A tokenizer that adds no BOS, as SmolLM2's: your ids decode to {show(plain.decode(got))}",
    )


@exercise("01.4", reference=attend)
def one_new_token(attempt: Callable[[Array, Array, Array], Array]) -> None:
    """One key; two keys worked by hand; heads that share; long scores; random against the reference."""
    one = np.ones((1, 1, 4))
    expect_close(
        attempt(np.ones((1, 4)), one, 7 * one), [[7.0] * 4], given="one token in the cache, v=7: nothing to choose"
    )
    q = np.array([[np.log(3.0) * 2, 0, 0, 0]])
    k = np.array([[[0.0, 0, 0, 0], [1, 0, 0, 0]]])
    v = np.array([[[0.0, 0, 0, 0], [4, 4, 4, 4]]])
    expect_close(attempt(q, k, v), [[3.0] * 4], given="scores 0 and 2 ln 3 before, 0 and ln 3 after the division by √4")
    shared = np.stack([np.full((1, 2), 10.0), np.full((1, 2), 20.0)])
    want = [[10.0, 10], [10, 10], [20, 20], [20, 20]]
    words = "4 query heads, 2 KV heads with v=10 and v=20 (heads 0 and 1 share the first)"
    expect_close(attempt(np.zeros((4, 2)), np.zeros((2, 1, 2)), shared), want, given=words)
    expect_close(attempt(1e3 * q, k, v), [[4.0] * 4], given="scores of 1,000 and more: the softmax must not overflow")
    random = np.random.default_rng(0)
    q, k, v = random.normal(size=(9, 8)), random.normal(size=(3, 5, 8)), random.normal(size=(3, 5, 8))
    expect_close(attempt(q, k, v), attend(q, k, v), given="random q [9, 8], k and v [3, 5, 8]")


@exercise("01.5", reference={"A": "b", "B": "c", "C": "d"})
def broken_templates(attempt: Mapping[str, str]) -> None:
    """Which fault each of three served strings has."""
    expect(isinstance(attempt, Mapping), 'hand in a dict, as {"A": "a", ...}')
    say = {
        "a": "Count the blocks and the special tokens, line by line, against the string of section 2.",
        "b": "It does end with the assistant's opening line.",
        "c": "Each special token of it is one id, not a spelling of it.",
        "d": "It begins with one <|im_start|>, not with two.",
    }
    for server, right in (("A", "b"), ("B", "c"), ("C", "d")):
        reasons = {choice: f"server {server}: {why}" for choice, why in say.items() if choice != right}
        expect(attempt.get(server) is not None, f"server {server} has no answer yet")
        expect_choice(attempt[server], right, reasons=reasons)
