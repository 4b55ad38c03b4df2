"""One figure: how to draw it, what it says in words, and where its numbers come from."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.style import WIDTH, Theme
from labsupport.figures.style import theme as _theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

MIME = "application/vnd.labs.figure+json"
"""The private part of a figure's output: ``{"alt", "badge", "dark"}``, which the handouts read."""

_BADGE = re.compile(r"measured here|simulated|diagram|recorded on .+, .+")
_PICTURE = re.compile(r"\.(png|jpe?g|svg|gif|pdf)$", re.IGNORECASE)
_CSS_PIXELS = 96  # in an inch


@dataclass(frozen=True)
class LabFigure:
    """A drawing with its description and its badge.

    Args:
        draw: makes the figure for a theme; built on ``matplotlib.figure.Figure``, best with ``theme.figure(height)``.
        alt: what the figure shows, for someone who cannot see it: the finding with its numbers, not the file's name.
        badge: ``measured here``, ``simulated``, ``recorded on <device>, <date>``, or ``diagram`` for no numbers.

    Raises:
        ParameterError: the alt text says nothing, or the badge is none of the four.

    Example:
        >>> def draw(theme):
        ...     figure, axes = theme.figure(height=2.0)
        ...     axes.bar(["a", "b"], [0.75, 0.25], **theme.fill("kept"))
        ...     return figure
        >>> LabFigure(draw, alt="Two bars: a has probability 0.75, b has 0.25.").png()[1:4]
        b'PNG'
    """

    draw: Callable[[Theme], Figure]
    alt: str
    badge: str = "measured here"

    def __post_init__(self) -> None:
        if len(self.alt.strip()) < 25 or _PICTURE.search(self.alt.strip()):
            raise ParameterError(
                f"the alt text {self.alt!r} does not describe a figure",
                why="someone who cannot see the figure must learn its finding from these words",
                fix='say what is shown and the finding, as in alt="Bars of ten tokens: Paris leads with 0.61."',
            )
        if not _BADGE.fullmatch(self.badge):
            raise ParameterError(
                f"the badge {self.badge!r} does not say where the numbers come from",
                why="each figure states whether it was measured, recorded or simulated",
                fix="'measured here', 'simulated', 'recorded on <device>, <date>', or 'diagram' for no numbers",
            )

    def png(self, theme: str = "light", dpi: int = 160) -> bytes:
        """The figure as PNG bytes; equal inputs give equal bytes.

        Args:
            theme: ``light`` or ``dark``.
            dpi: dots in an inch; the figure is 6.5 inches wide.
        """
        from PIL.Image import Dither

        target = io.BytesIO()
        # 256 colors without dithering: a third of the bytes, and no difference that an eye can find in a diagram.
        image = self.image(replace(_theme(theme), dpi=dpi)).quantize(256, dither=Dither.NONE)
        image.save(target, format="PNG", optimize=True)
        return target.getvalue()

    def image(self, theme: Theme, *, stamped: bool = True) -> Image:
        """The figure as an RGB picture, with the badge in its lower right corner when ``stamped``."""
        with theme.active():
            drawing = _raster(_plain_ticks(self.draw(theme)), theme)
            return _below(drawing, _stamp(self.badge, theme)) if stamped else drawing

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        light, dark = (base64.b64encode(self.png(name)).decode() for name in ("light", "dark"))
        words = {"alt": self.alt, "badge": self.badge}
        data = {"image/png": light, "text/plain": f"Figure: {self.alt}", MIME: {**words, "dark": dark}}
        return data, {"image/png": {**words, "width": round(WIDTH * _CSS_PIXELS)}}


def small_multiples(
    figures: Sequence[LabFigure], *, alt: str, titles: Sequence[str] = (), columns: int = 2, badge: str | None = None
) -> LabFigure:
    """Several figures side by side, each drawn anew at the width of its panel, so that text keeps its size.

    Args:
        figures: the panels, in reading order.
        alt: what the panels show together.
        titles: one line over each panel; none, or as many as there are panels.
        columns: panels in a row.
        badge: where the numbers come from; the panels' own badge when they agree.

    Raises:
        ParameterError: no panels, the wrong number of titles, or panels whose badges differ while no badge is given.
    """
    badges = {figure.badge for figure in figures}
    if not figures or (titles and len(titles) != len(figures)):
        raise ParameterError(
            f"{len(figures)} panels and {len(titles)} titles",
            why="small multiples need at least one panel, and a title for each or for none",
            fix="give as many titles as figures",
        )
    if badge is None and len(badges) > 1:
        raise ParameterError(
            f"the panels carry different badges: {', '.join(sorted(badges))}",
            why="one figure can state only one origin of its numbers",
            fix="pass badge=..., or show the panels as figures of their own",
        )

    def draw(theme: Theme) -> Figure:
        panel = replace(theme, width=theme.width / columns)
        images = [
            _below(_line(title, panel), figure.image(panel, stamped=False))
            for figure, title in zip(figures, titles or [""] * len(figures), strict=True)
        ]
        return _tiled(images, columns, theme)

    return LabFigure(draw, alt=alt, badge=badge or badges.pop())


def _plain_ticks(figure: Figure) -> Figure:
    """Label logarithmic axes without mathematics, which the house style keeps off so that "$" in a token is text."""
    from matplotlib.ticker import LogFormatter, LogLocator, NullFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if isinstance(axis.get_major_formatter(), LogFormatter):
            low, high = sorted(axis.get_view_interval())
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
            axis.set_major_formatter(lambda value, _: _number(value))
            axis.set_minor_formatter(NullFormatter())
    return figure


def _number(value: float) -> str:
    """A tick's number in plain text: 0.001, 50, 20,000, and 10⁻⁷ for the powers of ten beyond."""
    if 1e-3 <= value < 1e5:
        return f"{value:,g}"
    factor, power = f"{value:.0e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if factor == "1" else f"{factor}·10{raised}"


def _raster(figure: Figure, theme: Theme) -> Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(theme.dpi)
    canvas = FigureCanvasAgg(figure)
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)  # a first pass: axes of a fixed aspect settle only in the second, which draw() makes
    canvas.draw()
    return Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1).convert("RGB")


def _strip(theme: Theme, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(theme.width, height), dpi=theme.dpi, facecolor=theme.paper)


def _stamp(badge: str, theme: Theme) -> Image:
    strip = _strip(theme, 0.2)
    box = {"boxstyle": "round,pad=0.25", "facecolor": theme.paper, "edgecolor": theme.muted, "linewidth": 0.5}
    strip.text(1 - 0.08 / theme.width, 0.5, badge, ha="right", va="center", fontsize=7, color=theme.muted, bbox=box)
    return _raster(strip, theme)


def _line(title: str, theme: Theme) -> Image:
    lines = textwrap.wrap(title, int(theme.width * 11))  # bold characters of 9 points to the inch
    strip = _strip(theme, 0.07 + 0.15 * len(lines))
    strip.text(0.08 / theme.width, 0.4, "\n".join(lines), ha="left", va="center", fontsize=9, fontweight="bold")
    return _raster(strip, theme)


def _below(upper: Image, lower: Image) -> Image:
    from PIL import Image

    both = Image.new("RGB", (upper.width, upper.height + lower.height))
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height))
    return both


def _tiled(images: Sequence[Image], columns: int, theme: Theme) -> Figure:
    """The images in rows, pixel for pixel, on a figure that is just large enough."""
    import numpy as np

    rows = [images[start : start + columns] for start in range(0, len(images), columns)]
    heights = [max(image.height for image in row) for row in rows]
    figure = _strip(theme, sum(heights) / theme.dpi)
    top = sum(heights)
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            figure.figimage(np.asarray(image), xo=column * images[0].width, yo=top - image.height)
        top -= height
    return figure
