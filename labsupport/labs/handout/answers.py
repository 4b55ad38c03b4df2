"""The answer key: solutions, quiz answers and envelope answers, gathered from the labs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from labsupport.labs.lint.exercises import exercises
from labsupport.labs.lint.finding import Section, sections
from labsupport.labs.notebook import Notebook

_ASKED = ("Quiz", "Back of the envelope")


def answer_key(labs: Sequence[Notebook]) -> str:
    """The key of all labs as markdown: one chapter a lab, and nothing that the notebooks do not say themselves."""
    parts = [
        "# Answer key",
        "For instructors only. Gathered from the labs; their notes stand in the instructor edition.",
    ]
    for lab in labs:
        parts += [f"## {lab.title}", *_solutions(lab), *_asked(lab)]
    return "\n\n".join(parts)


def _solutions(lab: Notebook) -> Iterator[str]:
    for exercise in exercises(lab):
        solved = [cell.source for cell in exercise.cells if "solution" in cell.tags]
        if solved:
            yield f"### {exercise.heading}"
            yield from (f"```python\n{source}\n```" if source.strip() else "" for source in solved)


def _asked(lab: Notebook) -> Iterator[str]:
    for section in sections(lab.cells):
        if section.heading in _ASKED:
            yield f"### {section.heading}"
            yield _unfolded(section)


def _unfolded(section: Section) -> str:
    """The section's text with its answers in the open."""
    told = "\n\n".join(cell.source for cell in section.cells if cell.kind == "markdown" and not cell.tags)
    text = re.sub(rf"^## {re.escape(section.heading)}\s*$", "", told, flags=re.MULTILINE)
    text = re.sub(r"</?details>", "\n\n", text)
    return re.sub(r"<summary>(.*?)</summary>\s*", r"*\1.* ", text, flags=re.DOTALL).strip()
