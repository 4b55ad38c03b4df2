"""Prose: short cells, alt text, links that lead somewhere, one spelling."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator

from labsupport.labs.lint.finding import Finding, finding, without_fences, words
from labsupport.labs.notebook import Notebook

MEDIAN_WORDS = 40
AMERICAN = {
    "analyse": "analyze",
    "artefact": "artifact",
    "behaviour": "behavior",
    "centre": "center",
    "colour": "color",
    "favour": "favor",
    "generalise": "generalize",
    "grey": "gray",
    "initialise": "initialize",
    "labelled": "labeled",
    "licence": "license",
    "modelling": "modeling",
    "neighbour": "neighbor",
    "normalise": "normalize",
    "optimise": "optimize",
    "quantisation": "quantization",
    "quantise": "quantize",
    "recognise": "recognize",
    "serialise": "serialize",
    "summarise": "summarize",
    "tokenise": "tokenize",
    "visualise": "visualize",
    "whilst": "while",
}
BRITISH = re.compile(rf"\b(?:de)?({'|'.join(AMERICAN)})", re.IGNORECASE)


def short_cells(notebook: Notebook) -> Iterator[Finding]:
    """The median markdown cell has at most 40 words."""
    counts = [words(cell.source) for cell in notebook.markdown]
    if counts and statistics.median(counts) > MEDIAN_WORDS:
        what = f"the median markdown cell has {statistics.median(counts):g} words"
        yield finding(notebook, None, what, f"say less, or cut cells in two, until it is {MEDIAN_WORDS}")


def alt_text(notebook: Notebook) -> Iterator[Finding]:
    """Each picture in the prose carries alt text."""
    for cell in notebook.markdown:
        text = without_fences(cell.source)
        bare = re.findall(r"!\[\s*\]\([^)]*\)", text)
        bare += [tag for tag in re.findall(r"<img\b[^>]*>", text) if not re.search(r"\balt\s*=\s*[\"'][^\"']", tag)]
        for picture in bare:
            yield finding(
                notebook, cell, f"no alt text: {picture}", "say what the picture shows: ![what it shows](...)"
            )


def links(notebook: Notebook) -> Iterator[Finding]:
    """A link to another file leads to one that exists, relative to the lab."""
    for cell in notebook.markdown:
        for target in re.findall(r"\]\(\s*<?([^)\s>]+)", without_fences(cell.source)):
            if re.match(r"https?://|mailto:|#|attachment:", target):
                continue
            path = target.partition("#")[0]
            if path.startswith("/") or ":" in path:
                yield finding(notebook, cell, f"the link {target!r} holds on one machine only", "make it relative")
            elif not (notebook.path.parent / path).exists():
                yield finding(notebook, cell, f"the link {target!r} leads nowhere", "name a file beside this lab")


def spelling(notebook: Notebook) -> Iterator[Finding]:
    """American spelling, of the words that are met most."""
    for cell in notebook.cells:
        for word in sorted({found.group(1).lower() for found in BRITISH.finditer(cell.source)}):
            yield finding(notebook, cell, f"{word!r} is British", f"write {AMERICAN[word]!r}, as everywhere else")


PROSE_RULES = (short_cells, alt_text, links, spelling)
