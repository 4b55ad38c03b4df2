"""The anatomy of a lab: which parts it has, and in which order."""

from __future__ import annotations

import re
from collections.abc import Iterator

from labsupport.labs.lint.finding import Finding, finding, sections, tagged_once, words
from labsupport.labs.notebook import LAB_FILE, Notebook, find_labs

CARD_ROWS = ("Minutes", "Level", "Needs", "Profile", "Before", "After")
SECTION = r"\d+ · .+"
ORDER = (  # the level-2 headings of a lab, as patterns, in their order
    "Objectives",
    "Cold open: .+",
    SECTION,
    "Play: .+",
    "Exercises",
    "Back of the envelope",
    "On the real stack",
    "Quiz",
    "Recap",
    "Troubleshooting",
    "References",
    "Clean up",
)
IDEA_WORDS = 80


def named(notebook: Notebook) -> Iterator[Finding]:
    """The file is NN_name.ipynb, and its first cell holds the title and the claim."""
    if not LAB_FILE.fullmatch(notebook.path.name):
        yield finding(
            notebook, None, f"the file is called {notebook.path.name}", "call it NN_name.ipynb, in lower case"
        )
    first = notebook.cells[0]
    title = rf"# Lab {notebook.number or 'NN'} · \S.*"
    if first.kind != "markdown" or not re.match(title, first.source):
        yield finding(notebook, first, "the first cell has no title", f"begin with `# Lab {notebook.number} · Title`")
    if not re.search(r"By the end you will have shown\s+that\b", first.source):
        yield finding(
            notebook,
            first,
            "the first cell makes no claim",
            "add one sentence: By the end you will have shown that ...",
        )


def card(notebook: Notebook) -> Iterator[Finding]:
    """The card has all its rows, and leads to the neighbor labs."""
    missing = [row for row in CARD_ROWS if row not in notebook.card]
    if missing:
        yield finding(notebook, None, f"the card has no row {', '.join(missing)}", "add it: `| Minutes | 45 |`")
    labs = [lab.name for lab in find_labs(notebook.path.parent)]
    if notebook.path.name not in labs:
        return
    place = labs.index(notebook.path.name)
    neighbors = {"Before": labs[place - 1] if place else "", "After": labs[place + 1] if place + 1 < len(labs) else ""}
    for row, neighbor in neighbors.items():
        if row in notebook.card and neighbor and f"({neighbor})" not in notebook.card[row]:
            yield finding(
                notebook, None, f"{row} does not lead to {neighbor}", f"link it: `| {row} | [..]({neighbor}) |`"
            )


def order(notebook: Notebook) -> Iterator[Finding]:
    """The level-2 headings are the known ones, all of them, in their order."""
    reached, seen = 0, set()
    for section in sections(notebook.cells):
        place = next((at for at, name in enumerate(ORDER) if re.fullmatch(name, section.heading)), None)
        if place is None:
            yield finding(notebook, section.cells[0], f"unknown heading {section.heading!r}", f"known: {_known()}")
            continue
        if place < reached:
            yield finding(
                notebook, section.cells[0], f"{section.heading!r} comes too late", f"move it before {ORDER[reached]!r}"
            )
        if place in seen and ORDER[place] != SECTION:
            yield finding(notebook, section.cells[0], f"{section.heading!r} comes twice", "join the two")
        seen.add(place)
        reached = max(reached, place)
    for place in sorted(set(range(len(ORDER))) - seen):
        after = f"after `## {_shown(ORDER[place - 1])}`" if place else "after the card"
        yield finding(notebook, None, f"there is no `## {_shown(ORDER[place])}`", f"write it, {after}")


def _shown(pattern: str) -> str:
    return "1 · ..." if pattern == SECTION else pattern.replace(".+", "...")


def _known() -> str:
    return ", ".join(_shown(pattern) for pattern in ORDER)


def special_cells(notebook: Notebook) -> Iterator[Finding]:
    """Parameters, set-up, signature and clean-up are there once, each at its place."""
    for tag in ("parameters", "setup", "signature", "cleanup"):
        yield from tagged_once(notebook, tag)
    homes = {"parameters": "Cold open", "setup": "Cold open", "signature": "Play", "cleanup": "Clean up"}
    for section in sections(notebook.cells):
        for cell in section.cells:
            for tag in sorted(cell.tags & homes.keys()):
                if not section.heading.startswith(homes[tag]):
                    mend = f"move it into the section {homes[tag]!r}"
                    yield finding(notebook, cell, f"the {tag} cell stands under {section.heading!r}", mend)
    for cell in notebook.tagged("cleanup"):
        if ".close()" not in cell.source:
            yield finding(notebook, cell, "the clean-up closes nothing", "call `lab.close()`")


def objectives(notebook: Notebook) -> Iterator[Finding]:
    """3 to 6 objectives."""
    for section in sections(notebook.cells):
        count = len(re.findall(r"^\s*[-*] ", section.text, re.MULTILINE))
        if section.heading == "Objectives" and not 3 <= count <= 6:
            yield finding(notebook, section.cells[0], f"{count} objectives", "give 3 to 6, as a list of bullets")


def numbered_sections(notebook: Notebook) -> Iterator[Finding]:
    """3 to 6 numbered sections, each with a short idea and a takeaway."""
    found = [section for section in sections(notebook.cells) if re.fullmatch(SECTION, section.heading)]
    if not 3 <= len(found) <= 6:
        yield finding(notebook, None, f"{len(found)} numbered sections", "write 3 to 6, `## 1 · Title` and so on")
    for number, section in enumerate(found, start=1):
        first = section.cells[0]
        if not section.heading.startswith(f"{number} · "):
            yield finding(notebook, first, f"{section.heading!r} is section {number}", f"call it `## {number} · ...`")
        if "**Takeaway.**" not in section.text:
            yield finding(notebook, first, f"{section.heading!r} has no takeaway", "end it with `**Takeaway.** ...`")
        if words(first.source) > IDEA_WORDS + 6:  # the heading's own words are not the idea's
            yield finding(
                notebook,
                first,
                f"{words(first.source)} words of idea",
                f"say it in {IDEA_WORDS}, or cut the cell in two",
            )


def folded_answers(notebook: Notebook) -> Iterator[Finding]:
    """Answers to the envelope and the quiz are folded away; troubleshooting is a table."""
    needs = {"Back of the envelope": "<details>", "Quiz": "<details>", "Troubleshooting": "|"}
    for section in sections(notebook.cells):
        if needs.get(section.heading, "") not in section.text:
            mend = "put the answers in <details>" if section.heading != "Troubleshooting" else "symptom | cause | fix"
            yield finding(notebook, section.cells[0], f"{section.heading!r} has no {needs[section.heading]}", mend)


ANATOMY_RULES = (named, card, order, special_cells, objectives, numbered_sections, folded_answers)
