"""Markdown cells as HTML: formulas drawn, headings in order, links between labs kept inside the edition."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import Any

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from labsupport.labs.handout.formula import Formulas

_LAB_LINK = re.compile(r"^(?:\./|notebooks/)?(\d\d_[a-z0-9_]+)\.ipynb(#.*)?$")
_JOINT = re.compile(r"(?<=[a-zA-Z0-9][_/])(?=[a-zA-Z])")
_LONG_NAME = 12  # characters
_FLAG = re.compile(r"(?<![\w-])--[a-zA-Z0-9]+")
_WHOLE = r'<span class="flag">\g<0></span>'
_EMPTY_HEAD = re.compile(r"<thead>\s*<tr>(?:\s*<th[^>]*>\s*</th>)+\s*</tr>\s*</thead>")


@dataclass(frozen=True)
class Heading:
    """A heading of the page.

    Args:
        level: 1 to 6.
        text: as HTML, without the tag.
        anchor: its id.
    """

    level: int
    text: str
    anchor: str


@dataclass
class Prose:
    """Turns the markdown cells of one page into HTML, in order, and keeps the headings that it met.

    Args:
        suffix: what an edition adds to a lab's file name, as ``.learner``.
        folder: where relative pictures are looked up.
    """

    suffix: str
    folder: str
    headings: list[Heading] = field(default_factory=list)
    formulas: Formulas = field(default_factory=Formulas)

    def html(self, source: str, *, cell: str, attachments: dict[str, Any] | None = None) -> str:
        """The HTML of one cell.

        Args:
            source: its markdown.
            cell: how an error names it.
            attachments: its pictures, as the notebook keeps them.

        Raises:
            NotebookError: a formula cannot be drawn.
        """
        renderer = _Renderer(self, cell, attachments or {})
        text = MarkdownWithMath(renderer=renderer).render(source)
        text = _EMPTY_HEAD.sub("", text)
        return text.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")

    def heading(self, text: str, level: int) -> Heading:
        """Register a heading: one title, then no level skipped, each with an anchor of its own."""
        above = self.headings[-1].level if self.headings else 0
        placed = min(max(level, 2) if self.headings else 1, above + 1)
        words = html.unescape(re.sub(r"<[^>]+>", "", text))
        anchor = re.sub(r"[^\w.]+", "-", words).strip("-.").lower() or "section"
        taken = {heading.anchor for heading in self.headings}
        unique = next(name for n in range(len(taken) + 1) if (name := f"{anchor}-{n}" if n else anchor) not in taken)
        self.headings.append(Heading(placed, text, unique))
        return self.headings[-1]


class _Renderer(IPythonRenderer):  # type: ignore[misc]  # nbconvert has no types
    def __init__(self, prose: Prose, cell: str, attachments: dict[str, Any]) -> None:
        super().__init__(escape=False, embed_images=True, path=prose.folder, attachments=attachments)
        self._prose, self._cell = prose, cell

    def heading(self, text: str, level: int, **attrs: Any) -> str:  # noqa: ARG002
        placed = self._prose.heading(text, level)
        return f'<h{placed.level} id="{html.escape(placed.anchor)}">{text}</h{placed.level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        if lab := _LAB_LINK.match(url):
            url = f"{lab[1]}{self._prose.suffix}.html{lab[2] or ''}"
        return str(super().link(text, url, title))

    def codespan(self, text: str) -> str:
        """A long name breaks after ``_`` or ``/``, not in a word; a flag keeps its hyphens."""
        code = _JOINT.sub("<wbr>", html.escape(text)) if len(text) > _LONG_NAME else html.escape(text)
        return f"<code>{_FLAG.sub(_WHOLE, code)}</code>"

    def block_code(self, code: str, info: str | None = None) -> str:
        return str(super().block_code(code, info)).replace("<pre>", '<pre tabindex="0">')

    def block_math(self, body: str) -> str:
        return self._prose.formulas.draw(body, cell=self._cell, display=True)

    def inline_math(self, body: str) -> str:
        return self._prose.formulas.draw(body, cell=self._cell)

    def latex_environment(self, name: str, body: str) -> str:
        tex = f"\\begin{{{name}}}{body}\\end{{{name}}}"
        return self._prose.formulas.draw(tex, cell=self._cell, display=True)

    def block_html(self, html: str) -> str:
        return html  # embedding pictures there would re-parse, and so close, a <details> that goes on in the next block

    inline_html = block_html
