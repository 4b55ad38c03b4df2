"""L6, streaming: the pieces, put together, are the answer; and each piece is fit to be shown.

Texts are chosen so that characters span tokens (emoji, Chinese, Devanagari), words need the space before them, and stop
words fall across tokens. All rules are exact: no false alarm.
"""

from __future__ import annotations

from dataclasses import replace

from labsupport.decoding import Settings
from labsupport.validation.material import Material
from labsupport.validation.target import Answer, Ask
from labsupport.validation.verdict import Verdict

COMPONENT = "the detokenizer or the stream"
BROKEN = "\ufffd"
TEXTS = (
    "😀 😃 😄 😁 😆 😅 😂 🤣 😊 😇 🙂",
    "北京是中国的首都。上海是",
    "नमस्ते, मेरा नाम आदा है। मैं",
    "👩‍👩‍👧 👨‍👩‍👦 👩‍👩‍👧 👨‍👩‍👦 👩‍👩‍👧",
    "def add(a, b):\n    return a + b\n\n\ndef",
    "one two three four five six",
)


def check(material: Material) -> list[Verdict]:
    """Streams beside whole answers, and stop words."""
    material.progress("streams")
    drawn = material.spoken(Settings(temperature=0.8, top_k=20))
    texts = TEXTS[: material.budget.streams]
    asks = [Ask(text, 16, drawn, material.seed("stream", i)) for i, text in enumerate(texts)]
    asks += [
        Ask(prompt, 12, drawn, material.seed("stream", 9), ignore_end=True) for prompt in material.conversations[:1]
    ]
    whole = material.ask(asks)
    streams = [material.target.stream(ask) for ask in asks]
    material.tokens += sum(len(stream.output_ids) for stream in streams)
    wrong = []
    for ask, one, stream in zip(asks, whole, streams, strict=True):
        wrong += [f"{_name(ask)}: {text}" for text in faults(one, stream)]
        wrong += [f"{_name(ask)}: {text}" for text in _decoded(material, one)]
    events = sum(len(stream.events) for stream in streams)
    return [
        Verdict(
            "L6", "pieces and whole", "fail" if wrong else "pass",
            f"{len(wrong)} faults in {len(asks)} streams of {events} pieces", n=len(asks), statistic=len(wrong),
            threshold=0, evidence=tuple(wrong[:8]),
        ),
        _stops(material, list(zip(asks, whole, strict=True))),
    ]  # fmt: skip


def faults(whole: Answer, stream: Answer) -> list[str]:
    """What is wrong with a stream, given the same request's whole answer."""
    for answer in (whole, stream):
        if answer.error:
            return [f"refused: {answer.error}"]
    found, texts = [], [event.text for event in stream.events]
    joined = "".join(texts)
    if joined != whole.text:
        found.append(_apart(joined, whole.text))
    if BROKEN in joined and BROKEN not in whole.text:
        found.append("a character was cut in two: U+FFFD in a piece")
    finals = [place for place, event in enumerate(stream.events) if event.final]
    if finals != [len(stream.events) - 1]:
        found.append(f"the final flag is on the pieces {finals} of {len(stream.events)}")
    ids = [id for event in stream.events for id in event.ids]
    if ids and tuple(ids) != whole.output_ids:
        found.append(
            f"the pieces hold {len(ids)} ids, the answer {len(whole.output_ids)}: {ids} and {whole.output_ids}"
        )
    if stream.finish != whole.finish and "unknown" not in (stream.finish, whole.finish):
        found.append(f"the stream ended with {stream.finish!r}, the answer with {whole.finish!r}")
    return found


def _decoded(material: Material, answer: Answer) -> list[str]:
    """A whole answer's text is the decode of all of its ids at once."""
    words = material.reference.tokenizer
    text = words.decode(list(answer.output_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return [] if answer.text == text else [_apart(answer.text, text)]


def _stops(material: Material, known: list[tuple[Ask, Answer]]) -> Verdict:
    """A stop word from the middle of a known answer: it ends there, streamed or not, and nothing after it leaks."""
    wrong, used = [], 0
    for ask, answer in known:
        words = answer.text.split()
        if len(words) < 4 or BROKEN in answer.text or used == 3:
            continue
        stop = words[2]
        end = answer.text.find(stop) + len(stop)
        stopped = replace(ask, stop_words=(stop,))
        [whole], stream = material.ask([stopped]), material.target.stream(stopped)
        used += 1
        for kind, text in (("whole", whole.text), ("streamed", "".join(event.text for event in stream.events))):
            # An engine that compares ids misses a stop word spelled by other tokens; its text is then as before.
            if len(text) > end and text != answer.text:
                wrong.append(f"{_name(ask)}, stop word {stop!r}, {kind}: {text[end:]!r} comes after it")
            elif not answer.text.startswith(text):
                wrong.append(f"{_name(ask)}, stop word {stop!r}, {kind}: {text!r} is another text")
        wrong += [f"{_name(ask)}, stop word {stop!r}: {text}" for text in faults(whole, stream)]
    if not used:
        return Verdict("L6", "stop words", "insufficient", "no answer had words to stop at", needed=False)
    return Verdict(
        "L6", "stop words", "fail" if wrong else "pass", f"{len(wrong)} faults at {used} stop words", n=used,
        statistic=len(wrong), threshold=0, evidence=tuple(wrong[:6]),
    )  # fmt: skip


def _apart(mine: str, other: str) -> str:
    shared = min(len(mine), len(other))
    place = next((i for i in range(shared) if mine[i] != other[i]), shared)
    return f"at character {place} {mine[place : place + 12]!r} instead of {other[place : place + 12]!r}"


def _name(ask: Ask) -> str:
    return repr(ask.prompt if isinstance(ask.prompt, str) else ask.prompt[-1].content)[:24]
