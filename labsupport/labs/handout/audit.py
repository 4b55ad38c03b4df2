"""The proof that a page stands alone: no script, no outside request, an alt text on each image, and a modest size."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from labsupport.errors import NotebookError
from labsupport.labs.handout.edition import without_alt

HTML_BYTES, PDF_BYTES = 6_000_000, 3_000_000
"""The largest page, and the largest print of one: what a class on one wireless network can fetch."""

_LOADING = {"src", "srcset", "href", "data", "poster", "action", "formaction", "background", "xlink:href", "cite"}
_ACTIVE = {"script", "iframe", "object", "embed", "link", "base", "form"}
_OUTSIDE_STYLE = re.compile(r"@import|url\(\s*['\"]?(?!data:|#)", re.IGNORECASE)
_INSIDE = ("data:", "#")


def audit(page: str) -> None:
    """Read the whole page and refuse what a handout must not hold.

    Raises:
        NotebookError: a script, something that would be fetched, or an image without alt text; it names the cell. Or
            the page is too large.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    require_size("the page", len(page.encode()), HTML_BYTES)


def require_size(what: str, size: int, limit: int) -> None:
    """Refuse what is larger than ``limit`` bytes.

    Raises:
        NotebookError: it is.
    """
    if size > limit:
        raise NotebookError(
            f"{what} has {size / 1e6:.1f} MB",
            why=f"a handout has at most {limit / 1e6:.0f} MB, so that a whole class can fetch it",
            fix="draw fewer or smaller figures, or pictures with fewer colors",
        )


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self._cell = "the page's head"
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._cell = given.get("data-cell", self._cell)
        self._in_style = tag == "style"
        if tag in _ACTIVE or (tag == "meta" and "http-equiv" in given):
            raise self._refused(f"a <{tag}> element")
        for name, value in given.items():
            self._attribute(tag, name, value)
        if tag == "img" and not given.get("alt", "").strip():
            raise without_alt(self._cell)

    def handle_data(self, data: str) -> None:
        if self._in_style and _OUTSIDE_STYLE.search(data):
            raise self._refused("a style sheet that loads something")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def _attribute(self, tag: str, name: str, value: str) -> None:
        if name.startswith("on") or value.strip().lower().startswith("javascript:"):
            raise self._refused(f"a script in {name}={value[:60]!r}")
        if name in _LOADING and tag != "a" and not value.strip().startswith(_INSIDE):
            raise self._refused(f"<{tag} {name}={value[:60]!r}>, which would be fetched")
        if name == "style" and _OUTSIDE_STYLE.search(value):
            raise self._refused("a style that loads something")

    def _refused(self, what: str) -> NotebookError:
        return NotebookError(
            f"{self._cell}: the handout would hold {what}",
            why="a handout works offline and on paper: no script, and nothing from outside",
            fix="show plain data or a LabFigure there; put pictures beside the notebook and link them by file name",
        )
