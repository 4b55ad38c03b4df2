"""What a learner has done so far, kept in the folder of the learner copies and nowhere else.

``.progress.json`` maps an exercise to what became of it. Several kernels may write at once: each change is made under a
lock, and the file is replaced whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from labsupport.workspace import atomic_text

FILE = ".progress.json"
LOCK = ".progress.lock"
PATIENCE = 10.0  # seconds that a kernel waits for another one; a change takes milliseconds


@dataclass(frozen=True)
class Progress:
    """What became of one exercise.

    Args:
        passed: when a check first passed, ISO 8601 local time; "" before that.
        wrong: how many checks found the attempt not right yet.
        hints: how many hints were asked for.
        solution: when the solution was first shown; "" before that.
    """

    passed: str = ""
    wrong: int = 0
    hints: int = 0
    solution: str = ""

    @property
    def mark(self) -> str:
        """One sign: ■ passed, ◧ begun, □ still to come."""
        return "■" if self.passed else "◧" if self != Progress() else "□"


def load(folder: Path) -> dict[str, Progress]:
    """The progress kept in ``folder``, by exercise; nothing where none can be read."""
    try:
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {id: Progress(**of) for id, of in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # `record` sets a damaged file aside before it writes a new one


def record(folder: Path, id: str, change: Callable[[Progress], Progress]) -> Progress:
    """Apply ``change`` to what is known of exercise ``id``, and keep the result.

    Raises:
        OSError: the folder cannot be written, or another kernel held the lock for ``PATIENCE`` seconds.
        SpaceError: the disk is full; what was kept before stands.
    """

    def one(kept: dict[str, Progress]) -> dict[str, Progress]:
        return {**kept, id: change(kept.get(id, Progress()))}

    return _rewrite(folder, one)[id]


def forget(folder: Path, lab: str) -> None:
    """Drop the progress of lab ``lab`` ("02"); the other labs keep theirs. Errors as for :func:`record`."""
    _rewrite(folder, lambda kept: {id: of for id, of in kept.items() if not id.startswith(f"{lab}.")})


def now() -> str:
    """The local time, as it is kept."""
    return datetime.now().isoformat(timespec="seconds")


def _rewrite(folder: Path, change: Callable[[dict[str, Progress]], dict[str, Progress]]) -> dict[str, Progress]:
    from filelock import FileLock

    with FileLock(folder / LOCK, timeout=PATIENCE):
        before = load(folder)
        if not before and (folder / FILE).exists() and (folder / FILE).read_text(errors="replace").strip() != "{}":
            (folder / FILE).replace(folder / f"{FILE}.damaged")  # a person may still read it
        after = change(before)
        text = json.dumps({id: asdict(of) for id, of in sorted(after.items())}, indent=2)
        atomic_text(folder / FILE, text + "\n")
    return after
