"""L0, parameters: does each field arrive, with all of its bits, and do what its name says?

A request's numbers are float32: 0.9 is the number 0x3F666666, which a double prints as 0.8999999761581421, so bits are
compared and never decimals. Where the target shows what it received, every field is compared; where it does not, probes
see the effect of each field. All rules are exact: no false alarm.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from labsupport.decoding import Settings
from labsupport.validation.material import LIFT, Material
from labsupport.validation.target import Answer, Ask
from labsupport.validation.verdict import Verdict

COMPONENT = "the way of the parameters: client, preprocessing, BLS, request tensors"
FIELDS = ("temperature", "top_k", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "min_length")
WHOLE = ("top_k", "min_length", "seed", "max_tokens")


def check(material: Material) -> list[Verdict]:
    """Bits as received, then what each field does."""
    return [received(material), *_probes(material)]


def f32(value: float) -> str:
    """The bits of a number as the request carries it.

    Example:
        >>> f32(0.9), f32(0.8999999)
        ('3f666666', '3f666665')
    """
    return struct.pack(">f", value).hex()


def same(name: str, sent: Any, got: Any) -> bool:
    """Whether a field arrived: all bits of it, and nothing where nothing was sent."""
    if sent is None or got is None:
        return sent is None and got is None
    return int(sent) == int(got) if name in WHOLE else f32(sent) == f32(got)


def sent_fields(ask: Ask) -> dict[str, Any]:
    """The fields of a request that travel as numbers."""
    fields = {name: getattr(ask.settings, name) for name in FIELDS}
    return {**fields, "seed": ask.seed, "max_tokens": ask.max_tokens}


def received(material: Material) -> Verdict:
    """Every field at values whose decimals do not end in binary, and at the ends of its range."""
    asks = [replace(ask, settings=material.spoken(ask.settings)) for ask in _asks()]
    shown = [(ask, material.target.received(ask)) for ask in asks]
    seen = [(ask, got) for ask, got in shown if got is not None]
    if not seen:
        why = "the target does not show what it received; the probes below stand in"
        return Verdict("L0", "bits", "insufficient", why, needed=False)
    wrong = [text for ask, got in seen for text in differences(sent_fields(ask), got)]
    fields = sum(len(sent_fields(ask)) for ask, _ in seen)
    return Verdict(
        "L0", "bits", "fail" if wrong else "pass", f"{len(wrong)} of {fields} fields changed on their way",
        n=fields, statistic=len(wrong), threshold=0, evidence=tuple(wrong[:8]),
    )  # fmt: skip


def differences(sent: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """What did not arrive as it was sent."""
    return [
        f"{name}: {_shown(name, value)} was sent, {_shown(name, got.get(name))} arrived"
        for name, value in sent.items()
        if not same(name, value, got.get(name))
    ]


def _shown(name: str, value: Any) -> str:
    return "nothing" if value is None else str(value) if name in WHOLE else f"{value!r} (0x{f32(value)})"


def _asks() -> Iterator[Ask]:
    for value in (0.1, 0.7, 0.9, 0.95):
        yield Ask("Hi", 3, Settings(temperature=value, top_p=value, top_k=50), 42)
    yield Ask("Hi", 1, Settings(temperature=1.1, repetition_penalty=1.1), (1 << 63) + 1)
    yield Ask("Hi", 2, Settings(top_k=1024, presence_penalty=0.3, frequency_penalty=-0.7), (1 << 64) - 1)
    yield Ask("Hi", 2, Settings(temperature=1e-6, top_p=1e-6), 0)
    yield Ask("Hi", 5)


def _probes(material: Material) -> list[Verdict]:
    """Requests whose answers are known beforehand."""
    prompt = material.conversations[0]
    greedy = replace(material.greedy_ask(prompt, 8), ignore_end=True)
    drawn = Settings(temperature=0.9, top_k=50, top_p=0.9)
    seeds = [material.seed("probe", index) for index in range(2)]
    neutral = replace(drawn, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
    chosen = material.plain_ids[0]
    forced = replace(drawn, logit_bias={chosen: LIFT})
    speak = material.spoken
    asks = [
        greedy,
        *(replace(greedy, seed=seed) for seed in seeds),
        replace(greedy, settings=speak(drawn), seed=seeds[0]),
        replace(greedy, settings=speak(neutral), seed=seeds[0]),
        replace(greedy, settings=speak(forced), seed=seeds[0], max_tokens=4),
        *(replace(greedy, max_tokens=n) for n in (1, 2, 7)),
        _minimum(material, greedy),
        replace(greedy, max_tokens=0),
    ]
    answers = material.ask(asks)
    plain, first, second, sampled, same_again, led, *lengths, minimum, refused = answers
    written = [len(answer.output_ids) for answer in lengths]
    found: list[tuple[str, bool, str]] = [
        ("top_k = 1 needs no seed", plain.output_ids == first.output_ids == second.output_ids, "the seed changes it"),
        ("neutral penalties", sampled.output_ids == same_again.output_ids, "neutral values change the answer"),
        ("a bias of 2000", set(led.output_ids) == {chosen}, f"wrote {led.output_ids} instead of {chosen}"),
        ("max_tokens 1, 2, 7", written == [1, 2, 7], f"wrote {written}"),
        ("min_tokens", *_kept_minimum(material, minimum)),
        ("max_tokens 0 is refused", refused.error is not None, f"wrote {len(refused.output_ids)} tokens"),
    ]
    served = [answer.error for answer in answers[:-1] if answer.error]
    wrong = [f"{name}: {what}" for name, fine, what in found if not fine] + [f"refused: {error}" for error in served]
    told = f"{len(wrong)} faults in {len(found)} probes of what fields do"
    verdict = Verdict("L0", "probes", "fail" if wrong else "pass", told, n=len(asks), statistic=len(wrong), threshold=0)
    return [replace(verdict, evidence=tuple(wrong))]


MINIMUM = 5


def _minimum(material: Material, greedy: Ask) -> Ask:
    """The end token is by far the likeliest, but not allowed for five tokens."""
    ends = material.reference.end_ids[:1]
    if not ends:
        return greedy
    bias = {ends[0]: LIFT}
    if material.facts.dialect == "hf":
        settings = Settings(do_sample=False, min_new_tokens=MINIMUM, logit_bias=bias, end_ids=ends)
    else:
        settings = Settings(top_k=1, min_length=MINIMUM, logit_bias=bias, end_ids=ends)
    return replace(greedy, settings=settings, max_tokens=MINIMUM + 5, ignore_end=False)


def _kept_minimum(material: Material, answer: Answer) -> tuple[bool, str]:
    ends = material.reference.end_ids[:1]
    if not ends:
        return True, ""
    places = [place for place, id in enumerate(answer.output_ids) if id == ends[0]]
    return places[:1] == [MINIMUM], f"with min_tokens {MINIMUM} the end stands at {places or 'no place'}"
