"""Help in steps: what follows a verdict, one hint more, and the solution for who asks for it.

Hints and solutions are read from the original lab, so they are there whatever a learner did to the copy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labsupport.errors import LabError, ParameterError
from labsupport.labs.launcher import Shelved, is_learner_folder, read_shelf, write_page
from labsupport.labs.progress import Progress, load, now, record

if TYPE_CHECKING:
    from labsupport.labs.lint.finding import Section

HINT = re.compile(r"<details>\s*<summary>\s*Hint[^<]*</summary>(.*?)</details>", re.DOTALL)


def note(id: str, state: str, folder: Path) -> str:
    """Keep a verdict where ``folder`` holds learner copies, and say what to do next.

    Args:
        id: the exercise, "02.3".
        state: the verdict's state.
        folder: where the notebook runs.

    Returns:
        One indented line, "" where there is nothing to say. Trouble with keeping it is said, never raised: a check
        must not fail because of it.
    """
    if state == "not yet attempted" or not is_learner_folder(folder):
        return ""
    try:
        if state == "passed":
            record(folder, id, lambda of: replace(of, passed=of.passed or now()))
        else:
            record(folder, id, lambda of: replace(of, wrong=of.wrong + 1))
        write_page(folder)
    except (OSError, LabError) as trouble:
        return f"  Your progress could not be kept: {str(trouble).splitlines()[0]}"
    lab = next((lab for lab in read_shelf(folder) if id in lab.hints), None)
    if lab is None:
        return ""
    return _after_passing(lab, load(folder)) if state == "passed" else _after_a_miss(lab, id, load(folder)[id])


def _after_passing(lab: Shelved, progress: dict[str, Progress]) -> str:
    still_open = [id for id in lab.hints if not progress.get(id, Progress()).passed]
    done = f"{len(lab.hints) - len(still_open)} of {len(lab.hints)} passed in this lab"
    return f"  {done}; next: {still_open[0]}." if still_open else f"  {done}: it is complete."


def _after_a_miss(lab: Shelved, id: str, state: Progress) -> str:
    total = lab.hints[id]
    if state.hints < total:
        return f'  Stuck? hint("{id}") shows hint {state.hints + 1} of {total}.'
    return f'  Seen all hints? solution("{id}") shows one way to do it.'


def hint(id: str) -> None:
    """Show the next hint of an exercise; when all were shown, all again.

    Outside of a learner copy nothing is counted, and all hints are shown.

    Raises:
        ParameterError: there is no such exercise.
    """
    texts = hints_in(_section(id))
    folder = Path.cwd()
    first, last = 0, len(texts)
    if is_learner_folder(folder):
        shown = load(folder).get(id, Progress()).hints
        first, last = (shown, shown + 1) if shown < len(texts) else (0, len(texts))
        _keep(folder, id, lambda of: replace(of, hints=max(of.hints, last)))
    for number in range(first, last):
        _show(f"**Hint {number + 1} of {len(texts)}, exercise {id}.** {texts[number]}")
    if last == len(texts):
        _show(f'That was the last hint; `solution("{id}")` shows one way to do it.')


def solution(id: str) -> None:
    """Show one solution of an exercise; a learner's progress notes that it was seen.

    Raises:
        ParameterError: there is no such exercise.
    """
    cells = [cell for cell in _section(id).cells if "solution" in cell.tags]
    if is_learner_folder(Path.cwd()):
        _keep(Path.cwd(), id, lambda of: replace(of, solution=of.solution or now()))
    code = "\n\n".join(cell.source for cell in cells if cell.kind == "code")
    _show(f"**One solution of exercise {id}.** Read it, close it, and write your own.\n\n```python\n{code}\n```")


def _keep(folder: Path, id: str, change: Callable[[Progress], Progress]) -> None:
    try:
        record(folder, id, change)
        write_page(folder)
    except (OSError, LabError) as trouble:
        click.echo(f"Your progress could not be kept: {str(trouble).splitlines()[0]}")


def hints_in(section: Section) -> list[str]:
    """The texts of the hints (``<details><summary>Hint ...``) in one exercise, in order."""
    return [text.strip() for text in HINT.findall(section.text)]


def _section(id: str) -> Section:
    from labsupport.labs.lint.exercises import exercises
    from labsupport.labs.notebook import find_labs, read

    lab = next((path for path in find_labs() if path.name.startswith(f"{str(id)[:2]}_")), None)
    found = {one.heading.split()[1]: one for one in exercises(read(lab))} if lab else {}
    if id not in found:
        raise no_exercise(id, found)
    return found[id]


def no_exercise(id: object, known: Iterable[str]) -> ParameterError:
    """The error for an id that no exercise has; ``known`` are those of the lab that it begins with."""
    names = ", ".join(known)
    form = "an id is text: the two digits of a lab, a dot and a number"
    return ParameterError(
        f"no exercise {id!r}",
        why=f"the exercises of that lab are: {names}" if names else form,
        fix='name one of them, as in hint("02.3")',
    )


def _show(markdown: str) -> None:
    """Rendered in a notebook, plain at a terminal."""
    from IPython.core.getipython import get_ipython
    from IPython.display import Markdown, display

    if get_ipython() is None:
        click.echo(markdown)
    else:
        display(Markdown(markdown))
