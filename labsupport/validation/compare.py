"""Two files of responses side by side: is the template right, is the output right, and where do they part?

A symbol stands with every color. Outputs that part are told apart: at a near-tie (both tokens are nearly as likely, so
an honest target may take either) or for another reason. A picture decides nothing: ``labs validate`` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import click

from labsupport.validation.responses import Response

NEAR = 0.1  # nats between the two tokens' ln p
Same = Literal["same", "near-tie", "differs", "unknown"]
SYMBOLS: dict[Same, str] = {"same": "✓", "near-tie": "≈", "differs": "✗", "unknown": "?"}
COLORS: dict[Same, str] = {"same": "green", "near-tie": "yellow", "differs": "red", "unknown": "yellow"}


@dataclass(frozen=True)
class Pair:
    """One request, answered twice.

    Args:
        first, second: the answers.
        template, output: whether they agree.
        place: the first character of the outputs that differs.
        token: the first output id that differs, or None where ids are unknown.
    """

    first: Response
    second: Response
    template: Same
    output: Same
    place: int
    token: int | None


def compare(first: Sequence[Response], second: Sequence[Response]) -> list[Pair]:
    """The requests that both files answer, by their ids."""
    others = {response.id: response for response in second}
    return [_pair(response, others[response.id]) for response in first if response.id in others]


def _pair(a: Response, b: Response) -> Pair:
    template: Same = "same" if a.input_ids == b.input_ids else "differs"
    if a.input_ids is None or b.input_ids is None:
        template = "unknown"
    token = _first_difference(a.output_ids, b.output_ids) if a.output_ids and b.output_ids else None
    place = _first_difference(a.text, b.text)
    equal = a.output_ids == b.output_ids if token is not None else a.text == b.text
    output: Same = "same" if equal else "near-tie" if token is not None and _near(a, b, token) else "differs"
    return Pair(a, b, template, output, place, None if equal else token)


def _near(a: Response, b: Response, token: int) -> bool:
    """Whether both tokens were nearly as likely: what a greedy choice may decide either way."""
    greedy = a.parameters.top_k == 1 or (a.parameters.top_k is None and a.parameters.top_p is None)
    if not greedy or a.log_probs is None or b.log_probs is None or a.input_ids != b.input_ids:
        return False
    if token >= min(len(a.log_probs), len(b.log_probs)):
        return False
    return abs(a.log_probs[token] - b.log_probs[token]) < NEAR


def _first_difference(a: Sequence[Any], b: Sequence[Any]) -> int:
    shared = min(len(a), len(b))
    return next((place for place in range(shared) if a[place] != b[place]), shared)


def counts(pairs: Sequence[Pair]) -> str:
    """One sentence on all pairs."""

    def told(which: Literal["template", "output"]) -> str:
        found = [getattr(pair, which) for pair in pairs]
        return ", ".join(f"{SYMBOLS[same]} {found.count(same)} {same}" for same in SYMBOLS if same in found)

    return f"{len(pairs)} requests; template: {told('template')}; output: {told('output')}"


def text_lines(pairs: Sequence[Pair], width: int = 48) -> Iterator[str]:
    """A table for a terminal: what both say is plain, what only one says is colored and in brackets."""
    if not pairs:
        yield "no request is in both files"
        return
    left, right = pairs[0].first.system.name, pairs[0].second.system.name
    yield click.style(f"{'request':24} template output  {left[:width]:{width}} | {right[:width]}", bold=True)
    for pair in pairs:
        marks = [click.style(f"{SYMBOLS[same]:^8}", fg=COLORS[same]) for same in (pair.template, pair.output)]
        sides = [_cut(response.text, pair, width) for response in (pair.first, pair.second)]
        pad = " " * max(0, width - sides[0][1])
        yield f"{pair.first.id[:24]:24} {marks[0]} {marks[1]} {sides[0][0]}{pad} | {sides[1][0]}"
        if pair.template == "differs":
            yield from (f"{'':24} input: {text}" for text in _inputs(pair))
    yield counts(pairs)


def _cut(text: str, pair: Pair, width: int) -> tuple[str, int]:
    """The text around the place where the two part, and how many columns it takes."""
    if pair.output == "same":
        shown = text[:width].replace("\n", "↵")
        return shown, len(shown)
    start = max(0, pair.place - width // 2)
    common = text[start : pair.place].replace("\n", "↵")
    own = text[pair.place : pair.place + width - len(common) - 2].replace("\n", "↵")
    return common + click.style(f"[{own}]", fg=COLORS[pair.output]), len(common) + len(own) + 2


def _inputs(pair: Pair) -> list[str]:
    place = _first_difference(pair.first.input, pair.second.input)
    start = max(0, place - 20)
    return [f"{response.input[start : place + 20]!r}" for response in (pair.first, pair.second)]


def html_rows(pairs: Sequence[Pair]) -> str:
    """The table of a report: templates and outputs side by side."""
    rows = []
    for pair in pairs:
        cells = [f"<td><code>{escape(pair.first.id)}</code></td>"]
        for same, field in ((pair.template, "input"), (pair.output, "output")):
            texts = [getattr(response, field) for response in (pair.first, pair.second)]
            place = len(texts[0]) if same == "same" else _first_difference(*texts)
            cells.append(f'<td class="{same.replace("-", "")}">{SYMBOLS[same]} {same}</td>')
            cells += [_cell(text, place, same) for text in texts]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join(rows)


def _cell(text: str, place: int, same: Same) -> str:
    rest = f'<mark class="{same.replace("-", "")}">{escape(text[place:])}</mark>' if text[place:] else ""
    return f"<td><pre>{escape(text[:place])}{rest}</pre></td>"
