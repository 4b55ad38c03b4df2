"""Typical mistakes of lab 09; each must fail its check."""

from __future__ import annotations

import json

from labsupport.labs.reference.streaming import heal, hold_back

BROKEN = "\ufffd"


def counts_responses(sent, arrivals):
    content = [at for at, tokens in arrivals if tokens]
    return content[0] - sent, (content[-1] - content[0]) / max(len(content) - 1, 1)


def counts_the_empty_ends(sent, arrivals):
    later = sum(tokens for _, tokens in arrivals[1:])
    return arrivals[0][0] - sent, (arrivals[-1][0] - arrivals[0][0]) / later if later else 0.0


def divides_the_whole_time(sent, arrivals):
    content = [(at, tokens) for at, tokens in arrivals if tokens]
    return content[0][0] - sent, (content[-1][0] - sent) / sum(tokens for _, tokens in content)


def forgets_when_it_was_sent(sent, arrivals):
    content = [(at, tokens) for at, tokens in arrivals if tokens]
    later = sum(tokens for _, tokens in content[1:])
    return content[0][0], (content[-1][0] - content[0][0]) / later if later else 0.0


def one_event_a_chunk(chunks):
    return [json.loads(chunk.removeprefix(b"data:")) for chunk in chunks]


def decodes_each_chunk(chunks):
    text = "".join(chunk.decode("utf-8", "replace") for chunk in chunks)
    return [json.loads(line[5:]) for line in text.splitlines() if line.startswith("data:")]


def looks_for_data_in_each_chunk(chunks):
    return [
        json.loads(line[5:])
        for chunk in chunks
        for line in chunk.split(b"\n")
        if line.startswith(b"data:") and line.rstrip().endswith(b"}")
    ]


def splits_at_the_word(chunks):
    return [json.loads(part) for part in b"".join(chunks).decode().split("data:") if part.strip()]


def decodes_each_alone(ids, decode):
    return [*(decode([id]) for id in ids), ""]


def prints_what_is_longer(ids, decode):
    shown, pieces = 0, []
    for count in range(1, len(ids) + 1):
        text = decode(ids[:count])
        pieces.append(text[shown:])
        shown = len(text)
    return [*pieces, ""]


def drops_what_is_broken(ids, decode):
    return [piece.replace(BROKEN, "") for piece in heal(ids, decode)]


def forgets_the_end(ids, decode):
    return [*heal(ids, decode)[:-1], ""]


def waits_for_the_whole(ids, decode):
    return [*("" for _ in ids), decode(ids)]


def compares_piece_by_piece(pieces, stops):
    shown = []
    for piece in pieces:
        if piece.strip() in stops:
            break
        shown.append(piece)
    return shown


def finds_it_too_late(pieces, stops):
    shown = []
    for piece in pieces:
        whole = "".join(shown) + piece
        found = [whole.index(stop) for stop in stops if stop in whole]
        if found:
            return [*shown, whole[len("".join(shown)) : min(found)]]
        shown.append(piece)
    return shown


def never_gives_back(pieces, stops):
    shown = hold_back(pieces, stops)
    return shown[:-1] if len(shown) > len(pieces) else shown


def holds_as_much_as_the_longest(pieces, stops):
    text, shown, keep = "", [], max(map(len, stops), default=1) - 1
    for piece in pieces:
        text += piece
        found = [text.index(stop) for stop in stops if stop in text]
        if found:
            return [*shown, text[sum(map(len, shown)) : min(found)]]
        shown.append(text[sum(map(len, shown)) : max(len(text) - keep, sum(map(len, shown)))])
    return [*shown, text[sum(map(len, shown)) :]]


def keeps_the_stop_word(pieces, stops):
    text = "".join(pieces)
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    return [text[: min(ends, default=len(text))]]


def stops_at_an_empty_text(responses):
    return {one["id"]: place for place, one in reversed(list(enumerate(responses))) if not one["text"]}


def takes_the_last_of_each(responses):
    return {one["id"]: place for place, one in enumerate(responses)}


def waits_for_the_flag_only(responses):
    return {one["id"]: place for place, one in enumerate(responses) if one["final"]}


def ends_all_at_once(responses):
    first = next((place for place, one in enumerate(responses) if one["final"] or one["error"]), None)
    return {} if first is None else {one["id"]: first for one in responses}


MISTAKES = {
    "09.1": [counts_responses, counts_the_empty_ends, divides_the_whole_time, forgets_when_it_was_sent],
    "09.2": [one_event_a_chunk, decodes_each_chunk, looks_for_data_in_each_chunk, splits_at_the_word],
    "09.3": [
        decodes_each_alone,
        prints_what_is_longer,
        drops_what_is_broken,
        forgets_the_end,
        waits_for_the_whole,
    ],
    "09.4": [
        compares_piece_by_piece,
        finds_it_too_late,
        never_gives_back,
        holds_as_much_as_the_longest,
        keeps_the_stop_word,
    ],
    "09.5": [stops_at_an_empty_text, takes_the_last_of_each, waits_for_the_flag_only, ends_all_at_once],
}
