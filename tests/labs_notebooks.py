"""Small notebooks for the tests of the labs' tools."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

SAMPLE = Path(__file__).parent / "fixtures" / "notebooks" / "90_sample.ipynb"
PARAMETERS = ("SEED = 0\nRATE = 1.0\nNAME = 'a'", "parameters")
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


def write_notebook(path: Path, *cells: tuple[str, str] | str, metadata: dict | None = None) -> Path:
    """Write a notebook of code cells, each its source or (source, tag), below one heading."""
    pairs = [(cell, "") if isinstance(cell, str) else cell for cell in cells]
    made = [new_code_cell(source, metadata={"tags": [tag] if tag else []}) for source, tag in pairs]
    node = new_notebook(cells=[new_markdown_cell("# A lab"), *made], metadata=KERNEL if metadata is None else metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(node, path)
    return path
