"""L7, relations: requests that must be answered alike, whatever the right answer is.

Alone or in a batch, in another order, from a cold or a warm cache, in one piece or in two. Where two answers part, both
tokens must have been as good as equal: only a near-tie may fall either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from labsupport.decoding import Settings
from labsupport.validation.levels.l3_greedy import noise
from labsupport.validation.levels.l7_crowd import crowd
from labsupport.validation.material import Material
from labsupport.validation.target import Answer, Ask
from labsupport.validation.verdict import Verdict

COMPONENT = "the batch, the slots or the cache"
Pair = tuple[Ask, Answer, Answer]


def check(material: Material) -> list[Verdict]:
    """Each relation on a few prompts."""
    verdicts = []
    for name, relation in RELATIONS.items():
        material.progress(f"relation: {name}")
        pairs = list(relation(material))
        wrong = [text for pair in pairs if (text := _parts(material, *pair))]
        decision = "insufficient" if not pairs else "fail" if wrong else "pass"
        verdicts.append(Verdict(
            "L7", name, decision, f"{len(wrong)} of {len(pairs)} pairs of answers part", n=len(pairs),  # type: ignore[arg-type]
            statistic=len(wrong), threshold=0, evidence=tuple(wrong[:4]), needed=bool(pairs),
        ))  # fmt: skip
    return [*verdicts, *crowd(material)]


def _asks(material: Material, tokens: int = 12) -> list[Ask]:
    """Prompts that end where pages end, greedy; then sampled ones."""
    count = material.budget.relations
    drawn = material.spoken(Settings(temperature=0.8, top_k=50))
    greedy = [replace(material.greedy_ask(p, tokens), ignore_end=True) for p in material.at_page_ends[1 : 1 + count]]
    sampled = [
        Ask(prompt, tokens, drawn, material.seed("relation", i), ignore_end=True)
        for i, prompt in enumerate(material.conversations[:count])
    ]
    return [*greedy, *sampled]


def alone_or_together(material: Material) -> Iterator[Pair]:
    """One request after the other, and all at once."""
    asks = _asks(material)
    yield from zip(asks, material.ask(asks, together=False), material.ask(asks), strict=True)


def in_another_order(material: Material) -> Iterator[Pair]:
    """The same batch backwards, between strangers."""
    asks = _asks(material)
    strangers = [material.greedy_ask(text, 5) for text in ("A", "The sea", "One, two,")]
    mixed = [*strangers[:1], *reversed(asks), *strangers[1:]]
    backwards = material.ask(mixed)[1 : 1 + len(asks)][::-1]
    yield from zip(asks, material.ask(asks), backwards, strict=True)


def cold_or_warm(material: Material) -> Iterator[Pair]:
    """A long prompt, the same again, and others that share only its beginning."""
    for number, base in enumerate(material.at_page_ends[-max(1, material.budget.relations // 2) :]):
        if not isinstance(base, str):
            continue
        fresh = f"{number}{base}"  # nothing of it is in the cache
        ask = replace(material.greedy_ask(fresh, 8), ignore_end=True)
        longer = replace(ask, prompt=fresh + " and then the")
        other = replace(ask, prompt=fresh + " but never")
        [first], [long_warm] = material.ask([ask]), material.ask([longer])
        [again], [other_warm] = material.ask([ask]), material.ask([other])
        yield ask, first, again
        for warm_ask, warm in ((longer, long_warm), (other, other_warm)):
            yield warm_ask, warm, _as_far_as_true(material, warm_ask, warm)


def after_a_long_one(material: Material) -> Iterator[Pair]:
    """A slot that a long request has just left."""
    [ask] = _asks(material)[:1]
    long = replace(ask, prompt=" ".join(p for p in material.at_page_ends if isinstance(p, str)), max_tokens=4)
    [before], _, [after] = material.ask([ask]), material.ask([long] * 3), material.ask([ask])
    yield ask, before, after


def shorter_is_a_prefix(material: Material) -> Iterator[Pair]:
    """max_tokens cuts an answer, and does not change it."""
    asks = _asks(material)
    shorter = material.ask([replace(ask, max_tokens=5) for ask in asks])
    for ask, long, short in zip(asks, material.ask(asks), shorter, strict=True):
        yield replace(ask, max_tokens=5), replace(long, output_ids=long.output_ids[:5]), short


def in_two_pieces(material: Material) -> Iterator[Pair]:
    """Generated on: the first half becomes prompt, so that prefill computes what decoding computed."""
    words = material.reference.tokenizer
    for ask in _asks(material)[: material.budget.relations]:
        [whole] = material.ask([ask])
        if not isinstance(ask.prompt, str):
            continue
        for cut in (3, 4, 5, 6):
            half = whole.output_ids[:cut]
            prompt = ask.prompt + words.decode(list(half))
            if material.reference.ids(prompt) == (*material.reference.ids(ask.prompt), *half):
                [rest] = material.ask([replace(ask, prompt=prompt, max_tokens=ask.max_tokens - cut)])
                yield ask, whole, replace(rest, output_ids=(*half, *rest.output_ids))
                break


def copies(material: Material) -> Iterator[Pair]:
    """The same request several times at once, with one seed."""
    ask = _asks(material)[-1]
    first, *others = material.ask([ask] * 4)
    for other in others:
        yield ask, first, other


RELATIONS: dict[str, Callable[[Material], Iterator[Pair]]] = {
    "alone or together": alone_or_together,
    "in another order": in_another_order,
    "cold or warm cache": cold_or_warm,
    "after a long request": after_a_long_one,
    "shorter is a prefix": shorter_is_a_prefix,
    "in two pieces": in_two_pieces,
    "copies with one seed": copies,
}


def _parts(material: Material, ask: Ask, first: Answer, second: Answer) -> str:
    """Where two answers part, unless both tokens were as good as equal; "" where they do not."""
    if first.error or second.error:
        return f"refused: {first.error or second.error}"
    a, b = first.output_ids, second.output_ids
    if a == b:
        return ""
    place = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), min(len(a), len(b)))
    words = material.reference.tokenizer
    told = f"{_name(ask)} parts at token {place}: {words.decode(list(a[place : place + 1]))!r} and "
    told += repr(words.decode(list(b[place : place + 1])))
    if place == min(len(a), len(b)):
        return told
    return "" if all(_honest(material, ask, ids, place) for ids in (a, b)) else told


def _as_far_as_true(material: Material, ask: Ask, answer: Answer) -> Answer:
    """A greedy answer up to the first token that the reference would not have chosen."""
    if answer.error:
        return answer
    wrong = np.flatnonzero(material.score(ask, answer).margin > 2 * noise(material))
    return replace(answer, output_ids=answer.output_ids[: int(wrong[0])] if len(wrong) else answer.output_ids)


def _honest(material: Material, ask: Ask, ids: Sequence[int], place: int) -> bool:
    """Whether the token at ``place`` is one that noise explains."""
    item = material.score(ask, Answer(tuple(ids[: place + 1])))
    if item.draws is None:
        return bool(item.margin[place] <= 2 * noise(material))
    return bool(item.draws.supported[place] and not (np.nan_to_num(item.draws.miss[place]) > 0))


def _name(ask: Ask) -> str:
    return repr(ask.prompt if isinstance(ask.prompt, str) else ask.prompt[-1].content)[:24]
