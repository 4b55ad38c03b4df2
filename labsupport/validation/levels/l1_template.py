"""L1, template and tokens: three routes from a conversation to ids must agree, id for id.

The routes: the target's own; transformers' ``apply_chat_template(tokenize=True)``; and a third that shares no code with
them, the template in a bare jinja2 sandbox and the ``tokenizers`` library. Exact, so no false alarm. A fault that
touches a share φ of prompts is missed with (1 − φ)^n.
"""

from __future__ import annotations

from typing import Any

from labsupport.validation.material import Material
from labsupport.validation.target import Prompt, as_text
from labsupport.validation.verdict import Verdict

COMPONENT = "the template or the tokenizer"


def check(material: Material) -> list[Verdict]:
    """Ids of every conversation by three routes; one BOS."""
    found = [(prompt, material.target.tokenize(prompt)) for prompt in material.conversations]
    shown = [(prompt, ids) for prompt, ids in found if ids is not None]
    words = material.reference.tokenizer
    power = f"a fault in 10 % of prompts is missed with {0.9 ** len(shown):.1%}"
    if not shown:
        silent = "the target does not show the ids that it reads"
        return [Verdict("L1", "three routes", "insufficient", silent), *_through_answers(material)]
    if not words.chat_template:
        return [Verdict("L1", "three routes", "insufficient", "the tokenizer has no chat template")]
    wrong = []
    for prompt, ids in shown:
        routes = {"transformers": by_transformers(words, prompt), "jinja2 + tokenizers": by_hand(words, prompt)}
        wrong += [
            f"{_short(prompt)}: {_difference(ids, other, words)} ({route})"
            for route, other in routes.items()
            if other != ids
        ]
    routes_verdict = Verdict(
        "L1", "three routes", "fail" if wrong else "pass",
        f"{len(shown)} conversations, {len(wrong)} differences among three routes to ids"
        f"; {_from_users(words, shown)} special token(s) in users' own texts",
        n=len(shown), statistic=len(wrong), threshold=0, power=power, evidence=tuple(wrong[:8]),
    )  # fmt: skip
    return [routes_verdict, _bos(words, shown)]


def by_transformers(words: Any, prompt: Prompt) -> tuple[int, ...]:
    """``apply_chat_template`` of the original tokenizer."""
    turns = [message._asdict() for message in prompt if not isinstance(message, str)]
    return tuple(words.apply_chat_template(turns, tokenize=True, add_generation_prompt=True, return_dict=False))


def by_hand(words: Any, prompt: Prompt) -> tuple[int, ...]:
    """The template in jinja2, with the two options that Hugging Face templates are written for, then tokenizers."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    tokens = {name: value for name, value in words.special_tokens_map.items() if isinstance(value, str)}
    turns = [message._asdict() for message in prompt if not isinstance(message, str)]
    text = environment.from_string(words.chat_template).render(messages=turns, add_generation_prompt=True, **tokens)
    return tuple(words.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def _bos(words: Any, shown: list[tuple[Prompt, tuple[int, ...]]]) -> Verdict:
    """The beginning: where the template writes BOS first, it stands there once."""
    bos = words.bos_token_id
    twice = [_short(prompt) for prompt, ids in shown if bos is not None and ids[:2] == (bos, bos)]
    return Verdict(
        "L1", "one BOS", "fail" if twice else "pass", f"{len(twice)} of {len(shown)} prompts begin with two BOS",
        n=len(shown), statistic=len(twice), threshold=0, evidence=tuple(twice[:8]),
    )  # fmt: skip


def _from_users(words: Any, shown: list[tuple[Prompt, tuple[int, ...]]]) -> int:
    """Special tokens that users typed. Plain templates let them through, transformers' too: told, and not failed."""
    special = {token for token, id in words.get_added_vocab().items() if id in set(words.all_special_ids)}
    texts = [message.content for prompt, _ in shown for message in prompt if not isinstance(message, str)]
    return sum(token in text for text in texts for token in special)


def _through_answers(material: Material) -> list[Verdict]:
    """Where ids are hidden, the answers' own input ids, if they come along."""
    items = [item for item in material.greedy if item.answer.input_ids is not None]
    wrong = [_short(item.ask.prompt) for item in items if item.answer.input_ids != item.prompt]
    if not items:
        return []
    return [
        Verdict("L1", "input ids of answers", "fail" if wrong else "pass", f"{len(wrong)} of {len(items)} differ",
                n=len(items), statistic=len(wrong), threshold=0, evidence=tuple(wrong[:8]))
    ]  # fmt: skip


def _difference(mine: tuple[int, ...], other: tuple[int, ...], words: Any) -> str:
    place = next(
        (i for i, pair in enumerate(zip(mine, other, strict=False)) if pair[0] != pair[1]), min(len(mine), len(other))
    )
    here, there = (words.convert_ids_to_tokens(list(ids[place : place + 2])) for ids in (mine, other))
    return f"at token {place} {here} instead of {there}"


def _short(prompt: Prompt) -> str:
    text = as_text(prompt) if isinstance(prompt, str) else prompt[-1].content
    return repr(text if len(text) <= 40 else text[:37] + "...")
