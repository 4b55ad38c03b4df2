"""Typical mistakes of lab 00, each of which its check must catch."""

from __future__ import annotations


def keys_only(layers: int, kv_heads: int, head_size: int, bytes_each: int) -> int:
    return layers * kv_heads * head_size * bytes_each


def one_layer(layers: int, kv_heads: int, head_size: int, bytes_each: int) -> int:
    return 2 * kv_heads * head_size * bytes_each


def bits_for_bytes(layers: int, kv_heads: int, head_size: int, bytes_each: int) -> int:
    return 2 * layers * kv_heads * head_size * bytes_each * 8


def rounded_up(memory: float, weights: float, reserve: float, kv_per_token: float, length: int) -> int:
    return max(0, -int(-(memory - weights - reserve) // (kv_per_token * length)))


def may_be_negative(memory: float, weights: float, reserve: float, kv_per_token: float, length: int) -> int:
    return int((memory - weights - reserve) // (kv_per_token * length))


def forgets_the_reserve(memory: float, weights: float, reserve: float, kv_per_token: float, length: int) -> int:
    return max(0, int((memory - weights) // (kv_per_token * length)))


MISTAKES = {
    "00.1": ["a", "c", "d"],
    "00.2": [keys_only, one_layer, bits_for_bytes],
    "00.3": [rounded_up, may_be_negative, forgets_the_reserve],
    "00.4": [
        ("GPU", "c"),
        ("Chromium", "c"),
        ("GPU driver", "b"),
        ("GPU driver", "d"),
    ],
}
