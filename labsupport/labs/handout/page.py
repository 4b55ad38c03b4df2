"""From an executed notebook to its pages."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from labsupport.errors import NotebookError, ParameterError
from labsupport.labs.handout.audit import audit
from labsupport.labs.handout.contents import write_contents
from labsupport.labs.handout.edition import Edition, cells_for
from labsupport.labs.handout.prose import Prose
from labsupport.labs.notebook import Notebook, read
from labsupport.workspace import atomic_text

EDITIONS: tuple[Edition, ...] = get_args(Edition)
"""``learner``: no solutions, not even in the page's source. ``instructor``: everything, with answers open."""

LONG = 30  # lines; a cell that has more may be cut by a page's end

_HERE = Path(__file__).parent
_QUIET = {
    "parameters": "Settings",
    "injected-parameters": "Settings of this run",
    "setup": "Set-up",
    "cleanup": "Clean up",
}
_NAMED = {"solution": "Solution", "instructor": "For the instructor", "check": "Check", "exercise": "Your turn"}


def render(executed: Path, out_dir: Path, editions: Sequence[str] = EDITIONS) -> list[Path]:
    """Write the handouts of one executed notebook, and bring the folder's ``index.html`` up to date.

    Args:
        executed: the notebook with its outputs, ``NN_name.ipynb``.
        out_dir: where ``NN_name.learner.html`` and ``NN_name.instructor.html`` go; made if missing.
        editions: which of the two.

    Returns:
        the pages, in the order of ``editions``.

    Raises:
        ParameterError: there is no such edition.
        NotebookError: the notebook cannot be read, a formula cannot be drawn, an image has no alt text, or a page would
            hold a script or fetch something.
    """
    notebook = read(executed)
    pages = {out_dir / f"{executed.stem}.{name}.html": _page(notebook, _edition(name)) for name in editions}
    for path, text in pages.items():  # written only when all of them are sound
        atomic_text(path, text)
    write_contents(out_dir)
    return list(pages)


def _edition(name: str) -> Edition:
    for edition in EDITIONS:
        if name == edition:
            return edition
    raise ParameterError(f"no edition {name!r}", why="a handout is for one of two readers", fix=" or ".join(EDITIONS))


def _page(notebook: Notebook, edition: Edition) -> str:
    from nbconvert.exporters import TemplateExporter
    from nbconvert.filters import Highlight2HTML
    from nbformat import NotebookNode

    exporter = TemplateExporter(
        template_name=_HERE.name, extra_template_basedirs=[str(_HERE.parent)], file_extension=".html"
    )
    exporter.register_filter("highlight_code", Highlight2HTML(pygments_lexer="ipython3"))
    prose = Prose(suffix=f".{edition}", folder=str(notebook.path.parent.resolve()))
    cells = cells_for(notebook, edition)
    for place, cell in enumerate(cells):
        _prepare(cell, place, prose, edition)
    if not prose.headings:
        raise NotebookError(
            f"{notebook.path.name} has no heading",
            why="the first heading becomes the page's title",
            fix="begin the first markdown cell with `# Lab NN · Title`",
        )
    handout = {
        "title": html.unescape(re.sub(r"<[^>]+>", "", prose.headings[0].text)),
        "claim": claim(notebook),
        "edition": edition,
        "headings": [heading for heading in prose.headings if heading.level in (2, 3)],
        "style": (_HERE / "page.css").read_text(encoding="utf-8"),
    }
    node = NotebookNode(cells=cells, metadata=NotebookNode(), nbformat=4, nbformat_minor=5)
    page, _ = exporter.from_notebook_node(node, resources={"handout": handout})
    audit(page)
    return str(page)


def _prepare(cell: Any, place: int, prose: Prose, edition: Edition) -> None:
    """Write into the cell's metadata what the template prints: its name, its labels, its prose as HTML."""
    tags = set(cell.metadata.get("tags", []))
    name = cell.get("id") or f"cell {place}"
    made: dict[str, Any] = {
        "name": name,
        "kinds": " ".join(sorted(tags)),
        "quiet": next((label for tag, label in _QUIET.items() if tag in tags), ""),
        "label": next((label for tag, label in _NAMED.items() if tag in tags), ""),
    }
    if cell.cell_type == "markdown":
        text = prose.html(cell.source, cell=name, attachments=cell.get("attachments"))
        made["html"] = text.replace("<details>", "<details open>") if edition == "instructor" else text
        made["kinds"] += " card" if re.search(r"<t[hd][^>]*>(?:<strong>)?Minutes", text) else ""
        made["kinds"] += " leads" if cell.source.rstrip().endswith(":") else ""
    if _lines(cell) > LONG:
        made["kinds"] += " long"
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if source := data.get("text/markdown"):
            output.html = prose.html(source, cell=name)
        elif source := data.get("text/latex"):
            output.html = prose.formulas.draw(source.strip().strip("$"), cell=name, display=True)
    cell.metadata["handout"] = made


def _lines(cell: Any) -> int:
    """Lines of a cell and of the text that it printed."""
    texts = [cell.source, *(output.get("text", "") for output in cell.get("outputs", []))]
    return sum(text.count("\n") + 1 for text in texts)


def claim(notebook: Notebook) -> str:
    """The sentence under the title, as plain text; "" where there is none."""
    first = next((cell.source for cell in notebook.markdown), "")
    paragraphs = [part for part in re.split(r"\n\s*\n", first.strip()) if not part.startswith(("#", "|"))]
    return re.sub(r"[*_`]", "", " ".join(paragraphs[0].split())) if paragraphs else ""
