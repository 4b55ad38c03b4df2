"""``labs lint``: the house rules of a lab, each with its mend.

A rule is a function from a notebook to its findings. The rules stand in the modules beside this file, by what they look
at: the anatomy, the exercises, the code cells, the prose, the instructor's notes. A lab is judged as if its notes were
not there; the notes have rules of their own, and share those on links, pictures and spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from labsupport.errors import NotebookError
from labsupport.labs.lint.anatomy import ANATOMY_RULES
from labsupport.labs.lint.code import CODE_RULES
from labsupport.labs.lint.exercises import EXERCISE_RULES
from labsupport.labs.lint.finding import Finding
from labsupport.labs.lint.notes import NOTE_RULES, noted, taught
from labsupport.labs.lint.prose import PROSE_RULES, alt_text, links, spelling
from labsupport.labs.notebook import Notebook, read

__all__ = ["RULES", "Finding", "lint"]

Rule = Callable[[Notebook], Iterable[Finding]]
RULES: tuple[Rule, ...] = (*ANATOMY_RULES, *EXERCISE_RULES, *CODE_RULES, *PROSE_RULES)
RULES_OF_NOTES: tuple[Rule, ...] = (*NOTE_RULES, alt_text, links, spelling)


def lint(labs: Sequence[Path]) -> list[Finding]:
    """All that breaks a house rule, lab by lab; a file that is no notebook is a finding too."""
    findings: list[Finding] = []
    for path in labs:
        try:
            notebook = read(path)
        except NotebookError as error:
            findings.append(Finding(path.stem, "", f"{error.what}: {error.why}", error.fix))
            continue
        findings += [found for rule in RULES for found in rule(taught(notebook))]
        findings += [found for rule in RULES_OF_NOTES for found in rule(noted(notebook))]
    return findings
