"""What a client of a token stream must do itself: time it, cut it into events, heal it, stop it, see its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

BROKEN = "\ufffd"


def timing(sent: float, arrivals: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Time to first token and inter-token latency of one answer.

    Args:
        sent: when the request was sent, seconds.
        arrivals: (seconds, tokens) of each response; those without tokens say nothing about speed.

    Returns:
        TTFT, and the seconds a token after the first content; 0 where nothing came after it.

    Source: AIPerf, ``inter_token_latency``: (latency - TTFT) / (tokens - tokens of the first chunk).
    """
    content = [(at, tokens) for at, tokens in arrivals if tokens]
    (first, _), (last, _) = content[0], content[-1]
    later = sum(tokens for _, tokens in content[1:])
    return first - sent, (last - first) / later if later else 0.0


def events(chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    """The JSON of each server-sent event in a body that arrives cut anywhere: in a line, in a character.

    Source: WHATWG HTML, "Server-sent events"; of its fields Triton sends ``data`` only, one line an event.
    """
    held, found = b"", []
    for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        found += [json.loads(line[5:]) for line in whole if line.startswith(b"data:")]
    return found


def heal(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[str]:
    """What to show after each id: joined it is the decode of all ids, and no half character is ever among it.

    Args:
        ids: token ids, as they arrive.
        decode: ids -> text; half a character at the end comes out as U+FFFD.

    Returns:
        A piece an id, often "", and one more: what was held back when the stream ended.
    """
    shown, pieces = "", []
    for count in range(1, len(ids) + 1):
        text = decode(ids[:count])
        whole = not text.endswith(BROKEN)
        pieces.append(text[len(shown) :] if whole else "")
        shown = text if whole else shown
    return [*pieces, decode(ids)[len(shown) :]]


def hold_back(pieces: Iterable[str], stops: Sequence[str]) -> list[str]:
    """What to show after each piece, so that no part of a stop word ever is.

    Args:
        pieces: of the text, as they arrive.
        stops: texts that end the answer; none lies inside another.

    Returns:
        A text a piece; the stop word and all after it are gone. If none came, one more: what was held back.
    """
    held = ""
    shown: list[str] = []
    for piece in pieces:
        held += piece
        found = [held.index(stop) for stop in stops if stop in held]
        if found:
            return [*shown, held[: min(found)]]
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        shown.append(held[: len(held) - keep])
        held = held[len(held) - keep :]
    return [*shown, held]


def ended(responses: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Where each request of a shared stream is over.

    Args:
        responses: in the order of arrival, each with ``id``, ``text``, ``final`` and ``error``.

    Returns:
        id -> the place of the response that ends it: the final flag, or an error. Who is not over is not in it.
    """
    over: dict[str, int] = {}
    for place, one in enumerate(responses):
        if one["final"] or one["error"]:
            over.setdefault(one["id"], place)
    return over
