"""What ``check("02.3", attempt)`` does, and the words in which a check says what is wrong.

The checks of lab NN stand in ``labNN.py`` beside this file; it is imported when one of its exercises is checked::

    @exercise("02.3", reference=steps.top_k)
    def top_k(attempt):
        logits = np.array([1.0, 3.0, 2.0])
        expect_close(attempt(logits, 2), steps.top_k(logits, 2), given="logits=[1, 3, 2], k=2")
"""

from __future__ import annotations

import linecache
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Literal

import click

from labsupport.errors import ParameterError
from labsupport.labs.guide import no_exercise, note

State = Literal["passed", "not yet attempted", "not right yet"]
WIDTH = 90  # characters of a verdict's line
MARKS: dict[State, str] = {"passed": "✓", "not yet attempted": "○", "not right yet": "✗"}


class Wrong(Exception):
    """An attempt is wrong; the message says why, best with a small counter-example."""


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Args:
        id: "NN.k", lab and number.
        reference: what a right attempt is equal to: a function, or an answer.
        prove: raises :class:`Wrong` for a wrong attempt.
    """

    id: str
    reference: Any
    prove: Callable[[Any], None]


@dataclass(frozen=True)
class Verdict:
    """What a check found: the state, and for a wrong attempt the reason."""

    id: str
    state: State
    reason: str = ""

    def __str__(self) -> str:
        line = f"{MARKS[self.state]} Exercise {self.id}: {self.state}"
        return f"{line}.\n{_indent(self.reason)}" if self.reason else f"{line}."


def exercise(id: str, *, reference: Any) -> Callable[[Callable[[Any], None]], Exercise]:
    """Register the function below as the check of exercise ``id``; its name becomes an :class:`Exercise`.

    Raises:
        ParameterError: ``id`` is not of the form "NN.k".
    """
    if not re.fullmatch(r"\d\d\.\d+", id):
        raise ParameterError(
            f"exercise id {id!r}", why="an id is the lab and the number, as in '02.3'", fix="name it so"
        )
    return lambda prove: Exercise(id, reference, prove)


def exercises_of(lab: str) -> dict[str, Exercise]:
    """The exercises of lab ``lab`` ("02"), by id; none where the lab has no checks."""
    home = f"{__package__}.lab{lab}"
    if util.find_spec(home) is None:
        return {}
    found = (value for value in vars(import_module(home)).values() if isinstance(value, Exercise))
    return {one.id: one for one in sorted(found, key=lambda one: one.id)}


def find(id: str) -> Exercise:
    """The exercise ``id``.

    Raises:
        ParameterError: there is no such exercise.
    """
    known = exercises_of(str(id).partition(".")[0])
    if id not in known:
        raise no_exercise(id, known)
    return known[id]


def check(id: str, attempt: Any) -> Any:
    """Judge an attempt, print the verdict, and hand back what the rest of the lab can use.

    In a learner copy the verdict is kept as progress, and a line says what to do next.

    Args:
        id: the exercise, "02.3".
        attempt: a function or an answer; a stub (``None``, ``...``, a function that raises NotImplementedError) counts
            as not yet attempted.

    Returns:
        The attempt when it passed, else the reference.
    """
    one = find(id)
    verdict = judge(one, attempt)
    click.echo(str(verdict))
    advice = note(id, verdict.state, Path.cwd())
    if advice:
        click.echo(advice)
    return attempt if verdict.state == "passed" else one.reference


def judge(one: Exercise, attempt: Any) -> Verdict:
    """Judge an attempt: no printing, and no exception for anything that the learner's code does."""
    if _is_blank(attempt):
        return Verdict(one.id, "not yet attempted")
    try:
        one.prove(attempt)
    except NotImplementedError:
        return Verdict(one.id, "not yet attempted")
    except Wrong as wrong:
        return Verdict(one.id, "not right yet", str(wrong))
    except Exception as error:  # the learner's code may raise anything
        return Verdict(one.id, "not right yet", _explain(error, attempt))
    return Verdict(one.id, "passed")


def _is_blank(attempt: Any) -> bool:
    if isinstance(attempt, Mapping):
        return bool(attempt) and all(_is_blank(value) for value in attempt.values())
    if isinstance(attempt, (list, tuple)):
        return bool(attempt) and all(_is_blank(value) for value in attempt)
    return attempt is None or attempt is ... or (isinstance(attempt, str) and not attempt.strip())


def _explain(error: Exception, attempt: Any) -> str:
    """The error and the learner's line that it came from, without a traceback."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    code = getattr(attempt, "__code__", None)
    places = (
        [] if code is None else [place for place in _frames(error) if place[0].f_code.co_filename == code.co_filename]
    )
    if not places:
        return f"What you handed in cannot be used here: {said}"
    frame, line = places[-1]
    text = linecache.getline(frame.f_code.co_filename, line, frame.f_globals).strip()
    return f"Your code stopped with {said}\nin line {line}: {text}" if text else f"Your code stopped with {said}"


def _frames(error: Exception) -> list[tuple[FrameType, int]]:
    found: list[tuple[FrameType, int]] = []
    step: TracebackType | None = error.__traceback__
    while step is not None:
        found.append((step.tb_frame, step.tb_lineno))
        step = step.tb_next
    return found


def _indent(text: str) -> str:
    """Two spaces before each line, and long lines wrapped between words: a notebook would cut them anywhere."""
    wrapped = (textwrap.wrap(line, WIDTH, break_long_words=False) or [""] for line in text.splitlines())
    return "\n".join(f"  {line}" if line else "" for lines in wrapped for line in lines)
