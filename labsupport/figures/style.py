"""The house style: two themes, one color for each role, 9 to 10 point text, 6.5 inches wide.

Colors are from the Okabe-Ito palette (Okabe and Ito 2008, "Color Universal Design"), which stays apart under the common
forms of color blindness. A color is never the only signal: each role also has a hatch, and lines carry their own label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 6.5
"""The width of a figure in inches: the text width of a printed page."""

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "prompt": "#0072B2",  # what the user gave
        "generated": "#E69F00",  # what the model added
        "kept": "#009E73",  # what survives a step
        "removed": "#8C8C8C",  # what a step took out; still shown
        "cached": "#56B4E9",  # what need not be computed again
        "free": "#A9B1B8",  # room that nothing uses
        "chosen": "#D55E00",  # the one that was picked; also "look here"
    }
)
"""The color of each role, the same in all labs and in both themes."""

HATCHES: Mapping[str, str] = MappingProxyType({"removed": "////", "cached": "....", "chosen": r"\\\\"})
"""The second signal of a role: its hatch. ``free`` is an outline only; the others are filled plain."""


@dataclass(frozen=True)
class Theme:
    """What a drawing needs to know about the page that it stands on.

    Args:
        name: ``light`` or ``dark``.
        paper: the background.
        ink: text and outlines; contrast with the paper is above 12:1.
        muted: axes, notes and badges; contrast above 4.5:1.
        grid: rules that may be overlooked.
        soft: the fill of a box that carries no role.
        width: inches; a panel of small multiples gets a narrower one.
        dpi: dots in an inch.
    """

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    soft: str
    width: float = WIDTH
    dpi: int = 160

    def figure(self, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
        """A figure of the theme's width and its axes (one, or an array of them), laid out without overlaps.

        Args:
            height: inches.
            rows, columns: the grid of axes.
            options: passed on to ``Figure.subplots`` (``sharey``, ``width_ratios``, ...).
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self.width, height), dpi=self.dpi, layout="constrained")
        return figure, figure.subplots(rows, columns, **options)

    def fill(self, role: str) -> dict[str, Any]:
        """The patch arguments of a role: its color, its hatch, an outline in ink.

        Raises:
            ParameterError: there is no such role.
        """
        if role not in ROLES:
            raise ParameterError(
                f"no role {role!r} in the palette",
                why="a color stands for one thing in all labs, so only named roles have one",
                fix="one of " + ", ".join(ROLES),
            )
        empty = role == "free"
        return {
            "facecolor": self.paper if empty else ROLES[role],
            "edgecolor": ROLES[role] if empty else self.paper if HATCHES.get(role) else self.ink,
            "hatch": HATCHES.get(role),
            "linewidth": 0.6,
        }

    def legible(self, color: str) -> str:
        """``color`` for words on this paper: itself, or mixed with as much ink as it takes to reach 4.5:1 (WCAG 2 AA).

        Fills and lines need 3:1 only and keep the color of their role.
        """
        from matplotlib.colors import to_hex, to_rgb

        pure, ink = to_rgb(color), to_rgb(self.ink)
        shades = (to_hex([p + (i - p) * step / 20 for p, i in zip(pure, ink, strict=True)]) for step in range(21))
        return next(shade for shade in shades if contrast(shade, self.paper) >= 4.5)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Matplotlib's settings for the time of one drawing: its own defaults, then the house style."""
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # a learner's own matplotlibrc must not change a handout
            matplotlib.rcParams.update(self._settings())
            yield

    def _settings(self) -> dict[str, Any]:
        plain = dict.fromkeys(["text.color", "axes.titlecolor"], self.ink)
        quiet = dict.fromkeys(["axes.edgecolor", "xtick.color", "ytick.color"], self.muted)
        return {
            **plain,
            **quiet,
            "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on each machine
            "font.size": 9.0,
            "axes.titlesize": 10.0,
            "axes.titlelocation": "left",
            "axes.labelsize": 9.0,
            "axes.labelcolor": self.ink,
            "xtick.labelcolor": self.ink,
            "ytick.labelcolor": self.ink,
            "axes.facecolor": self.paper,
            "figure.facecolor": self.paper,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": self.grid,
            "grid.linewidth": 0.6,
            "hatch.linewidth": 0.7,
            "lines.linewidth": 1.8,
            "text.parse_math": False,  # a token such as "$" is text
        }


_THEMES = MappingProxyType(
    {
        "light": Theme("light", paper="#FFFFFF", ink="#1A1A1A", muted="#5F6368", grid="#DADCE0", soft="#F1F3F4"),
        "dark": Theme("dark", paper="#15181C", ink="#ECEFF1", muted="#A3ABB3", grid="#3A4046", soft="#242A30"),
    }
)


def theme(name: str) -> Theme:
    """The theme called ``light`` or ``dark``.

    Raises:
        ParameterError: there is no such theme.
    """
    if name not in _THEMES:
        raise ParameterError(f"no theme {name!r}", why="a figure is drawn for one of two pages", fix="light or dark")
    return _THEMES[name]


def visible(token: str) -> str:
    """A token's text with its white space made visible.

    Example:
        >>> visible(" Paris"), visible("\\n"), visible("")
        ('␣Paris', '↵', '∅')
    """
    return token.replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥").replace("\r", "␍") or "∅"


def lettering(color: str) -> str:
    """Black or white, whichever is easier to read on ``color``, any matplotlib color."""
    return max("#000000", "#FFFFFF", key=lambda ink: contrast(ink, color))


def contrast(one: str, other: str) -> float:
    """The WCAG 2 contrast ratio of two matplotlib colors, 1 to 21."""
    dim, bright = sorted(_luminance(color) for color in (one, other))
    return (bright + 0.05) / (dim + 0.05)


def _luminance(color: str) -> float:
    from matplotlib.colors import to_rgb

    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
