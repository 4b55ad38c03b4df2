"""Streams: pieces of text on a clock, the screens that they fill, and how eight ways to ask end."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure
from labsupport.figures.style import ROLES, Theme, lettering, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BROKEN = "\ufffd"
OUTCOMES = {"pieces": "generated", "whole": "kept", "error": "removed"}  # how a call may end -> its role


@dataclass(frozen=True)
class Arrival:
    """A piece of text.

    Args:
        at: seconds since the request was sent.
        text: what came; "" is drawn as a small mark without a name.
        shown: the label, where it is not the text.
    """

    at: float
    text: str = ""
    shown: str | None = None

    @property
    def role(self) -> str:
        """Broken pieces stand out."""
        return "chosen" if BROKEN in self.text else "generated"


Lanes = Mapping[str, Sequence[Arrival]]


def token_timeline(lanes: Lanes, *, alt: str, labels: bool = True, badge: str = "measured here") -> LabFigure:
    """A line for each stream: an outline up to its first piece (TTFT), then a mark where each piece arrived.

    Args:
        lanes: name -> arrivals, in order.
        labels: write the pieces over their marks, on two levels in turns.

    Raises:
        ParameterError: no lanes, or one to which nothing came.
    """
    _require(lanes)

    def draw(theme: Theme) -> Figure:
        each = 1.05 if labels else 0.34
        figure, axes = theme.figure(0.7 + each * len(lanes))
        end = max(arrivals[-1].at for arrivals in lanes.values())
        for row, arrivals in enumerate(lanes.values()):
            first = next((one.at for one in arrivals if one.text), arrivals[0].at)
            high = 0.16 if labels else 0.3
            axes.barh(row, first, height=2 * high, **theme.fill("free"))
            if labels and first > 0.07 * end:
                words = f"TTFT {1000 * first:.0f} ms"
                axes.text(first / 2, row, words[0 if first > 0.16 * end else 5 :], ha="center", va="center", fontsize=7)
            for one, level in zip(arrivals, _levels(arrivals, end / (theme.width - 1.2)), strict=True):
                _mark(axes, theme, row, one, high, 0.19 + 0.16 * level if labels else 0)
        axes.set_yticks(range(len(lanes)), list(lanes))
        axes.set_ylim(len(lanes) - 0.6, -0.82 if labels else -0.6)
        axes.set_xlim(0, 1.03 * end)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("seconds since the request was sent")
        axes.grid(axis="x")
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def screens(lanes: Lanes, at: float, *, alt: str, badge: str = "measured here") -> LabFigure:
    """What stands on each client's screen ``at`` seconds after the request, below a clock with all arrivals.

    Raises:
        ParameterError: no lanes, or one to which nothing came.
    """
    _require(lanes)

    def draw(theme: Theme) -> Figure:
        columns = max(18, int(theme.width * 10.5))
        texts = {name: _wrapped(_so_far(arrivals, at), columns) for name, arrivals in lanes.items()}
        most = {name: len(_wrapped(_so_far(arrivals, 1e9), columns)) for name, arrivals in lanes.items()}
        heights = [0.42 + 0.16 * most[name] for name in lanes]
        figure, rows = theme.figure(
            0.95 + sum(heights), rows=1 + len(lanes), height_ratios=[0.6, *heights], squeeze=False
        )
        clock, *boxes = rows[:, 0]
        end = max(arrivals[-1].at for arrivals in lanes.values())
        for row, arrivals in enumerate(lanes.values()):
            for one in arrivals:
                _mark(clock, theme, row, one, 0.3, 0)
        clock.axvline(at, color=theme.ink, linewidth=1.2)
        clock.set(xlim=(0, 1.03 * end), ylim=(len(lanes) - 0.4, -0.6), yticks=[])
        clock.set_title(f"after {at:.2f} s", fontsize=9)
        clock.spines["left"].set_visible(False)
        clock.tick_params(labelsize=7)
        for axes, (name, lines) in zip(boxes, texts.items(), strict=True):
            axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
            axes.set_title(name, fontsize=8, color=theme.muted)
            axes.set_facecolor(theme.soft)
            axes.spines[:].set_visible(False)
            words = "\n".join(lines) or "…"
            color = theme.ink if lines else theme.muted
            axes.text(0.015, 0.5, words, va="center", fontsize=8.5, color=color, linespacing=1.3)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def outcome_grid(
    outcomes: Mapping[tuple[str, str], tuple[str, str]],
    guesses: Mapping[tuple[str, str], str],
    *,
    alt: str,
    badge: str = "measured here",
) -> LabFigure:
    """Rows against columns, in each cell how a call ended, and whether that had been guessed.

    Args:
        outcomes: (row, column) -> (``pieces``, ``whole`` or ``error``, a few words).
        guesses: the same keys -> one of the three; any other text is no guess.

    Raises:
        ParameterError: an outcome of another name, or a cell that is missing.
    """
    down = list(dict.fromkeys(row for row, _ in outcomes))
    across = list(dict.fromkeys(column for _, column in outcomes))
    if len(outcomes) != len(down) * len(across) or any(kind not in OUTCOMES for kind, _ in outcomes.values()):
        raise ParameterError(
            f"{len(outcomes)} outcomes for {len(down)} rows and {len(across)} columns",
            why=f"each cell needs one of {', '.join(OUTCOMES)}",
            fix="give every row one for every column",
        )

    def draw(theme: Theme) -> Figure:
        figure, axes = theme.figure(0.45 + 0.62 * len(down))
        for (row, column), (kind, words) in outcomes.items():
            x, y = across.index(column), down.index(row)
            look = theme.fill(OUTCOMES[kind]) | ({"hatch": None, "facecolor": theme.soft} if kind == "error" else {})
            axes.barh(y, 0.96, left=x + 0.02, height=0.88, **look)
            color = theme.ink if kind == "error" else lettering(ROLES[OUTCOMES[kind]])
            guess = guesses.get((row, column), "")
            said = "" if guess not in OUTCOMES else "   ✓ as you said" if guess == kind else f"   ✗ you: {guess}"
            axes.text(x + 0.05, y - 0.2, kind + said, va="center", fontsize=8.5, fontweight="bold", color=color)
            lines = "\n".join(textwrap.wrap(words, int(theme.width * 5.6), max_lines=3, placeholder=" …"))
            axes.text(x + 0.05, y + 0.16, lines, va="center", fontsize=7, color=color, linespacing=1.15)
        axes.set_yticks(range(len(down)), down)
        axes.set_xticks([at + 0.5 for at in range(len(across))], across)
        axes.xaxis.tick_top()
        axes.set(xlim=(0, len(across)), ylim=(len(down) - 0.5, -0.5))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def drawable(text: str) -> str:
    """``text`` with each character that the figures' font lacks as its code point, U+4F60."""
    return "".join(char if ord(char) in _glyphs() or char == "\n" else f"[U+{ord(char):04X}]" for char in text)


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())


def _mark(axes: Axes, theme: Theme, row: int, one: Arrival, high: float, label: float) -> None:
    style: dict[str, Any] = {"color": ROLES[one.role] if one.text else theme.muted, "linewidth": 2 if one.text else 1}
    reach = high if one.text else high / 2
    axes.plot([one.at, one.at], [row - reach, row + reach], solid_capstyle="butt", **style)
    if label and _name(one):
        axes.text(one.at, row - label, _name(one), ha="center", va="bottom", fontsize=7)


def _name(one: Arrival) -> str:
    return (one.shown or drawable(visible(one.text)).strip("[]")) if one.text or one.shown else ""


def _levels(arrivals: Sequence[Arrival], inch: float) -> list[int]:
    """For each name the lowest of three levels on which it touches no other; ``inch`` is seconds to the inch."""
    ends, chosen = [-1e9] * 3, []
    for one in arrivals:
        half = (0.033 * len(_name(one)) + 0.02) * inch
        free = [level for level, end in enumerate(ends) if end <= one.at - half]
        chosen.append(free[0] if free else ends.index(min(ends)))
        ends[chosen[-1]] = one.at + half
    return chosen


def _so_far(arrivals: Sequence[Arrival], at: float) -> str:
    return drawable("".join(one.text for one in arrivals if one.at <= at))


def _wrapped(text: str, columns: int) -> list[str]:
    return [line for part in text.split("\n") for line in textwrap.wrap(part, columns) or [""]] if text else []


def _require(lanes: Lanes) -> None:
    if not lanes or not all(lanes.values()):
        raise ParameterError("a stream without pieces", why="each line shows at least one", fix="record its arrivals")
