"""M01 to M04: faults between the user's words and the ids."""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from labsupport.validation.mutations.fault import Bench, Fault, above, swapped

WHERE = "preprocessing"
Ids = list[int]


def _ids(change: Callable[[Any, Ids], Ids]) -> Callable[[Bench], AbstractContextManager[None]]:
    """Change the ids that preprocessing makes."""

    def swap(bench: Bench) -> AbstractContextManager[None]:
        pre, words = bench.half.pre, bench.half.tokenizer
        honest = type(pre).ids
        return swapped(pre, ids=lambda row: change(words, honest(pre, row)))

    return swap


def _template(change: Callable[[list[dict[str, str]], dict[str, Any]], None]) -> Callable[[Bench], Any]:
    """Change what the chat template is called with."""

    def swap(bench: Bench) -> AbstractContextManager[None]:
        words = bench.half.tokenizer
        honest = type(words).apply_chat_template

        def apply(chat: list[dict[str, str]], **how: Any) -> Any:
            turns = list(chat)
            change(turns, how)
            return honest(words, turns, **how)

        return swapped(words, apply_chat_template=apply)

    return swap


def _without_bos(words: Any, ids: Ids) -> Ids:
    return ids[1:] if ids[:1] == [words.bos_token_id] else ids


def _twice(words: Any, ids: Ids) -> Ids:
    return [words.bos_token_id, *ids]


def _no_generation_prompt(_: list[dict[str, str]], how: dict[str, Any]) -> None:
    how["add_generation_prompt"] = False


def _no_system(turns: list[dict[str, str]], _: dict[str, Any]) -> None:
    turns[:] = [turn for turn in turns if turn["role"] != "system"]


def _unescaped(bench: Bench) -> AbstractContextManager[None]:
    """Somebody unescapes HTML on the way, so that harmless text turns into special tokens."""
    pre = bench.half.pre
    honest = type(pre).ids
    return swapped(pre, ids=lambda row: honest(pre, [html.unescape(str(row[0])), *row[1:]]))


FAULTS = (
    Fault("M01", "no BOS", "L1", WHERE, above(_ids(_without_bos))),
    Fault("M02", "two BOS", "L1", WHERE, above(_ids(_twice))),
    Fault("M03", "no generation prompt", "L1", WHERE, above(_template(_no_generation_prompt)), "prompt"),
    Fault("M03", "the system turn is dropped", "L1", WHERE, above(_template(_no_system)), "system", measured=False),
    Fault(
        "M04", "a user's text becomes special tokens", "L1", WHERE, above(_unescaped),
        note="text is unescaped on its way; plain special tokens pass SmolLM2's own template, as in transformers",
    ),
)  # fmt: skip
