"""The first page of ``make lab``: the labs, how far each is, and where to go on. Plain Markdown, no extension needed.

``.labs-shelf.json`` keeps what the page needs of each lab, so that a kernel can write the page anew in milliseconds,
without reading notebooks. The shelf also marks a folder as one of learner copies.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from labsupport.labs.notebook import read
from labsupport.labs.progress import Progress, load
from labsupport.workspace import atomic_text

PAGE = "Start.md"
SHELF = ".labs-shelf.json"


@dataclass(frozen=True)
class Shelved:
    """What the page says of one lab.

    Args:
        file: the copy's file name.
        title: the lab's first heading.
        claim: what the learner will have shown at the end.
        minutes: from the lab's card, digits; "" where it names none.
        level: the card's circles.
        hints: exercise id -> how many hints it has, in the order of the exercises.
    """

    file: str
    title: str
    claim: str
    minutes: str
    level: str
    hints: dict[str, int]

    @property
    def number(self) -> str:
        """The lab's number, "02"."""
        return self.file[:2]


def is_learner_folder(folder: Path) -> bool:
    """Whether ``folder`` holds learner copies."""
    return (folder / SHELF).is_file()


def read_shelf(folder: Path) -> list[Shelved]:
    """The labs in a folder of learner copies, in order; none where the shelf is missing or damaged."""
    try:
        return [Shelved(**one) for one in json.loads((folder / SHELF).read_text(encoding="utf-8"))]
    except (FileNotFoundError, ValueError, TypeError):
        return []


def shelve(labs: Sequence[Path], folder: Path) -> None:
    """Put labs (the originals) on the shelf of ``folder``, and write its page.

    Raises:
        NotebookError: a lab cannot be read.
    """
    there = {one.file: one for one in read_shelf(folder)}
    there |= {lab.name: describe(lab) for lab in labs}
    kept = [asdict(there[file]) for file in sorted(there) if (folder / file).exists()]
    atomic_text(folder / SHELF, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    write_page(folder)


def describe(lab: Path) -> Shelved:
    """Read off a lab what the page says of it.

    Raises:
        NotebookError: the lab cannot be read.
    """
    from labsupport.labs.guide import hints_in
    from labsupport.labs.lint.exercises import exercises

    notebook = read(lab)
    _, _, claim = notebook.cells[0].source.partition("\n")
    minutes = re.match(r"\d+", notebook.card.get("Minutes", ""))
    level = re.search(r"●+○*", notebook.card.get("Level", ""))
    hints = {one.heading.split()[1]: len(hints_in(one)) for one in exercises(notebook)}
    shown = (minutes[0] if minutes else "", level[0] if level else "")
    return Shelved(lab.name, notebook.title, " ".join(claim.split()), *shown, hints)


def write_page(folder: Path) -> Path:
    """Write ``folder/Start.md`` from the shelf and the progress that stand there."""
    newer = frozenset(path.name for path in folder.glob("*.new.ipynb"))
    atomic_text(folder / PAGE, page(read_shelf(folder), load(folder), newer))
    return folder / PAGE


def page(labs: Sequence[Shelved], progress: Mapping[str, Progress], newer: frozenset[str] = frozenset()) -> str:
    """The page as Markdown.

    Args:
        labs: the labs, in order.
        progress: by exercise.
        newer: names of copies (``NN_name.new.ipynb``) of newer editions that wait beside edited ones.
    """
    rows = [_row(lab, progress, newer) for lab in labs]
    return "\n".join(
        [
            "# LLM Serving Labs\n",
            _where_to_go_on(labs, progress),
            "\n| Lab | Minutes | Level | Exercises |",
            "|:--|--:|:--|:--|",
            *rows,
            "\n■ passed, ◧ begun, □ still to come",
            _MANNERS.format(labs=Path(sys.executable).with_name("labs")),
        ]
    )


_MANNERS = """
## How an exercise goes

1. Write into the exercise cell and run it, then run the check cell below it.
2. Stuck? `hint("02.3")` shows the next hint of exercise 02.3; ask again for one more.
3. `solution("02.3")` shows one way to do it. Nobody is told; this page notes that you have seen it.

Your work stays in this folder when you leave, and the labs open as you left them.
Progress is kept here in `.progress.json` and nowhere else.

## Begin a lab again

In a terminal (File › New › Terminal):

    {labs} learner --reset 02 .

The other labs keep their work, and yours goes to the folder `backups`. This page is written anew by each check;
reopen it to see the newest state.
"""


def _row(lab: Shelved, progress: Mapping[str, Progress], newer: frozenset[str]) -> str:
    states = [progress.get(id, Progress()) for id in lab.hints]
    done = sum(bool(state.passed) for state in states)
    seen = [id for id in lab.hints if progress.get(id, Progress()).solution]
    count = f"{''.join(state.mark for state in states)} {done} of {len(states)}" if states else "none"
    count += f", solution seen: {', '.join(seen)}" if seen else ""
    name = f"[{lab.title.removeprefix('Lab ')}]({lab.file})"
    beside = f"{Path(lab.file).stem}.new.ipynb"
    name += f" ([newer edition]({beside}))" if beside in newer else ""
    return f"| {name} | {lab.minutes} | {lab.level} | {count} |"


def _where_to_go_on(labs: Sequence[Shelved], progress: Mapping[str, Progress]) -> str:
    """The lab to open next: the last one begun that is not done, else the first that is not."""
    opened = [lab for lab in labs if _open_ids(lab, progress)]
    if not opened:
        return "All exercises are passed." if labs else "No labs here yet."
    begun = [lab for lab in opened if any(id in progress for id in lab.hints)]
    lab = begun[-1] if begun else opened[0]
    link = f"[{lab.title}]({lab.file})"
    if not begun:
        verb = "Go on with" if progress else "Begin with"
        return f"**{verb} {link}.** {lab.claim}"
    return f"**Go on with {link}, exercise {_open_ids(lab, progress)[0]}.** {lab.claim}"


def _open_ids(lab: Shelved, progress: Mapping[str, Progress]) -> list[str]:
    return [id for id in lab.hints if not progress.get(id, Progress()).passed]
