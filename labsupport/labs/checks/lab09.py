"""Checks of lab 09, streaming inference."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from labsupport.labs.checks import exercise, expect, expect_close, expect_equal
from labsupport.labs.reference.streaming import BROKEN, ended, events, heal, hold_back, timing

VOCABULARY = (b"\xe2\x96\x81Smile", b"\xe2\x96\x81and", b"\xe2\x96\x81", b"\xf0\x9f", b"\x98\x80", b"\xe4\xbd", b"\xa0",
              b"!", b"\xef\xbf\xbd")  # fmt: skip  # a word begins with U+2581; the last token is a genuine U+FFFD


def decode(ids: Sequence[int]) -> str:
    """A small tokenizer with SentencePiece's habits: the space before the first word goes, half characters break."""
    text = b"".join(VOCABULARY[id] for id in ids).decode("utf-8", "replace")
    return text.replace("\u2581", " ").removeprefix(" ")


@exercise("09.1", reference=timing)
def clock(attempt: Callable[[float, list[tuple[float, int]]], tuple[float, float]]) -> None:
    """One token a response, several in one, an empty one in front and at the end, a single token."""
    cases: list[tuple[float, list[tuple[float, int]]]] = [
        (0.0, [(0.5, 1), (0.7, 1), (0.9, 1)]),
        (10.0, [(10.5, 1), (10.7, 1), (10.9, 1)]),
        (0.0, [(0.5, 1), (0.9, 4), (1.1, 1)]),
        (0.0, [(0.5, 3), (0.9, 2), (1.3, 2)]),
        (0.0, [(0.1, 0), (0.5, 1), (0.7, 1)]),
        (0.0, [(0.5, 1), (0.7, 1), (0.9, 0)]),
        (0.0, [(0.5, 1)]),
    ]
    for sent, arrivals in cases:
        got = attempt(sent, list(arrivals))
        expect(isinstance(got, tuple) and len(got) == 2, "Return two numbers: TTFT, seconds a token")
        for name, mine, right in zip(("TTFT", "ITL"), got, timing(sent, arrivals), strict=True):
            expect_close(mine, right, given=f"sent={sent}, arrivals={arrivals}, {name}")


@exercise("09.2", reference=events)
def parse(attempt: Callable[[list[bytes]], list[dict[str, Any]]]) -> None:
    """One body, cut in every way that a network may cut it."""
    said = [{"text_output": " 你"}, {"text_output": "data: 1\n"}, {"error": "cut"}]
    body = b"".join(b"data: " + json.dumps(one, ensure_ascii=False).encode() + b"\n\n" for one in said)
    middle = body.index("你".encode()) + 1
    cuts = [[body], [body[:9], body[9:]], [body[:middle], body[middle:]], [bytes([byte]) for byte in body]]
    for chunks in (*cuts, [body.replace(b"\n", b"\r\n")], []):
        given = f"chunks={chunks}" if len(chunks) < 3 else "the body in chunks of one byte"
        expect_equal(attempt(list(chunks)), said if chunks else [], given=given)


@exercise("09.3", reference=heal)
def healed(attempt: Callable[..., list[str]]) -> None:
    """Spaces, characters over two tokens, a stream that ends in the middle of one, a genuine U+FFFD."""
    for ids in ([0, 1, 0], [0, 7], [0, 2, 3, 4, 7], [0, 2, 5, 6, 3, 4, 1], [5, 6, 5], [0, 8, 7], []):
        given = f"ids={ids}, decode(ids)={decode(ids)!r}"
        got = attempt(list(ids), decode)
        expect(isinstance(got, list) and all(isinstance(one, str) for one in got), f"For {given}: return texts")
        expect(len(got) == len(ids) + 1, f"For {given}: {len(got)} pieces; one an id, and one for the end, please")
        expect_equal("".join(got), decode(ids), given=f"{given}, all pieces joined")
        best = list(accumulate(heal(ids, decode)))
        for count, shown in enumerate(list(accumulate(got))[:-1], start=1):
            expect(not shown.endswith(BROKEN), f"For {given}: after {count} ids half a character is on screen")
            expect(len(shown) >= len(best[count - 1]), f"For {given}: after {count} ids more could be on screen")


@exercise("09.4", reference=hold_back)
def never_half(attempt: Callable[..., list[str]]) -> None:
    """A stop word over three pieces, a false alarm, two at once, repeated letters, none at all."""
    cases: list[tuple[list[str], list[str]]] = [
        (["It is", " Paris", ". Yes"], ["Paris"]),
        (["Bye", "<|im", "_end", "|>", "more"], ["<|im_end|>"]),
        (["a <", "|b", " c"], ["<|im_end|>"]),
        (["Hi\n", "User", ": no"], ["\nUser:", "###"]),
        (["x##", "#", "y"], ["\nUser:", "###"]),
        (["caa", "ab", "!"], ["aab"]),
        (["one", " two"], ["###"]),
        (["one", " #"], ["##"]),
        (["one"], []),
    ]
    for pieces, stops in cases:
        given = f"pieces={pieces}, stops={stops}"
        got, best = attempt(list(pieces), list(stops)), hold_back(pieces, stops)
        expect(isinstance(got, list) and all(isinstance(one, str) for one in got), f"For {given}: return texts")
        whole = "".join(best)
        expect_equal("".join(got), whole, given=f"{given}, all that is shown")
        for count, (mine, right) in enumerate(zip(accumulate(got), accumulate(best), strict=False), start=1):
            expect(len(mine) >= len(right), f"For {given}: after {count} pieces more could be on screen")
            expect(
                len(mine) <= len(right), f"For {given}: after {count} pieces {mine[len(right) :]!r} is shown too soon"
            )


@exercise("09.5", reference=ended)
def over(attempt: Callable[..., dict[str, int]]) -> None:
    """The flag on data, the flag alone, two requests on one stream, an error, a text that is empty on its way."""

    def one(id: str, text: str = "", final: bool = False, error: str = "") -> dict[str, Any]:
        return {"id": id, "text": text, "final": final, "error": error}

    cases = [
        [one("a", "Hi"), one("a", "!", True)],
        [one("a", "Hi"), one("a", "!"), one("a", "", True)],
        [one("a", "Hi"), one("a", ""), one("a", "!", True)],
        [one("a", "Hi"), one("b", "Yo"), one("b", "", True), one("a", "!", True)],
        [one("a", "Hi"), one("b", "", error="too long"), one("a", "!", True)],
        [one("a", "Hi"), one("a", "!")],
        [],
    ]
    for responses in cases:
        short = [(o["id"], o["text"], *(name for name in ("final", "error") if o[name])) for o in responses]
        expect_equal(attempt([dict(o) for o in responses]), ended(responses), given=f"responses {short}")
