"""Formulas, drawn when the page is built: TeX -> SVG outlines that take the color of the text around them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import count

from labsupport.errors import NotebookError

_SIZE = 16.0  # drawn at 16 pixels to the em, then stated in em, so that a formula grows with its text
_BOX = re.compile(r'<svg xmlns="http://www.w3.org/2000/svg" width="[\d.]+" height="[\d.]+" viewBox="([^"]+)">')
_UNKNOWN = re.compile(r"<m\w+[^>]*>\s*(\\[A-Za-z]+)")


class Formulas:
    """Draws the formulas of one page; the names inside of each drawing are made unique on the page."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = count(1)

    def draw(self, tex: str, *, cell: str, display: bool = False) -> str:
        """One formula as inline SVG, or as MathML where the drawing fails.

        Args:
            tex: the formula, without its dollar signs.
            cell: how an error names the cell.
            display: on a line of its own.

        Raises:
            NotebookError: the TeX cannot be read, or it uses a command that is not known.
        """
        mathml = _mathml(tex, cell, display)
        try:
            drawn = self._svg(tex, display)
        except Exception:  # the drawing library raises whatever its font or its parser happens to raise
            drawn = mathml
        return f'<div class="formula" tabindex="0">{drawn}</div>' if display else drawn

    def _svg(self, tex: str, display: bool) -> str:
        import ziamath

        svg = ziamath.Latex(tex, size=_SIZE, color="currentColor", inline=not display).svg()
        left, top, width, height = (float(number) for number in _BOX.findall(svg)[0].split())
        drop = top + height  # how far the drawing reaches below the base line
        style = f"width:{width / _SIZE:.3f}em;height:{height / _SIZE:.3f}em;vertical-align:{-drop / _SIZE:.3f}em"
        label = html.escape(" ".join(tex.split()), quote=True)
        opened = (
            f'<svg role="img" aria-label="{label}" class="tex" style="{style}" '
            f'viewBox="{left:g} {top:g} {width:g} {height:g}">'
        )
        mark = f"f{next(self._numbers)}-"
        body = svg[_BOX.match(svg).end() :]  # type: ignore[union-attr]  # findall above has matched
        return opened + re.sub(r'(id="|href="#)', rf"\g<1>{mark}", body)


def _mathml(tex: str, cell: str, display: bool) -> str:
    """The formula as MathML; its making is also the check that the TeX can be read."""
    from latex2mathml.converter import convert

    try:
        mathml = str(convert(tex, display="block" if display else "inline"))
    except Exception as problem:  # the parser raises bare exceptions of many kinds
        raise _unreadable(tex, cell, f"the parser says {type(problem).__name__}") from None
    if unknown := _UNKNOWN.search(mathml):
        raise _unreadable(tex, cell, f"{unknown[1]} is no command that it knows")
    return mathml


def _unreadable(tex: str, cell: str, why: str) -> NotebookError:
    return NotebookError(
        f"{cell}: the formula {tex!r} cannot be drawn",
        why=why,
        fix="check its braces and commands; a dollar sign that is meant as text is written \\$",
    )
