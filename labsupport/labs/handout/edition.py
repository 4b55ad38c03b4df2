"""What an edition holds: which cells, and of each output the one form that a page can show."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Literal

from labsupport.errors import NotebookError
from labsupport.figures.figure import MIME
from labsupport.labs.notebook import WITHHELD, Cell, Notebook

Edition = Literal["learner", "instructor"]

_UNRUN = frozenset({"exercise", "check"})  # their outputs belong to the solution that ran in between
_WIDGET = "application/vnd.jupyter.widget-view+json"
_FORMS = (MIME, "image/svg+xml", "image/png", "image/jpeg", "text/html", "text/markdown", "text/latex", "text/plain")


def cells_for(notebook: Notebook, edition: Edition) -> list[Any]:
    """The cells of an edition as fresh nbformat nodes, each output reduced to its best form.

    Raises:
        NotebookError: an image has no alt text.
    """
    learner = edition == "learner"
    kept = [cell for cell in notebook.cells if not (learner and cell.tags & WITHHELD) and cell.source.strip()]
    nodes = []
    for cell in kept:
        node = deepcopy(cell.node)
        if cell.kind == "code":
            silent = learner and cell.tags & _UNRUN
            shown = [] if silent else [_shown(output, cell) for output in node.outputs if not _is_live(output)]
            node.outputs = _joined([output for output in shown if output is not None])
        nodes.append(node)
    return nodes


def _is_live(output: Any) -> bool:
    """A widget: it cannot live on a page, and its static form stands in an output of its own."""
    return _WIDGET in output.get("data", {})


def _joined(outputs: list[Any]) -> list[Any]:
    """What a kernel sent of one stream in several messages is one text again: where it cut is chance."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.get("name") == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _shown(output: Any, cell: Cell) -> Any | None:
    if output.output_type not in ("display_data", "execute_result"):
        return output
    form = next((form for form in _FORMS if form in output.data), None)
    if form is None:
        return None
    if form == MIME:
        output.figure = {"light": output.data["image/png"], **output.data[MIME]}
        output.data = {MIME: output.data[MIME]}
    else:
        output.data = {form: output.data[form]}
    if form.startswith("image/"):
        output.alt = output.metadata.get(form, {}).get("alt") or output.metadata.get("alt")
        if not output.alt:
            raise without_alt(cell.label)
    return output


def without_alt(cell: str) -> NotebookError:
    """The error for an image that someone who cannot see it would miss."""
    return NotebookError(
        f"{cell}: an image has no alt text",
        why="a handout is read by people who cannot see its images, too",
        fix="show figures through LabFigure(draw, alt=...), and write pictures as ![what it shows](file.png)",
    )
