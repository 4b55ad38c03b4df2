"""Workshop schedules: the minutes of the labs' cards, laid over half a day, one day and two days.

A day is a row of fixed stretches of work with breaks between them; the labs flow through the stretches in their order
and are cut at a break where they must be. So a schedule keeps its breaks and its end whatever the labs need: what does
not fit is named as left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from labsupport.errors import NotebookError
from labsupport.labs.notebook import Notebook

SHORTEST = 10
"""Minutes. No lab is cut into a shorter piece."""

BEGINNING = 15
"""Minutes. No lab is begun shortly before a break: a shorter rest of a stretch is left for questions."""

QUESTIONS = "Exercises and questions"


@dataclass(frozen=True)
class Course:
    """A lab as a schedule sees it: file name without ending, title, minutes."""

    lab: str
    title: str
    minutes: int


@dataclass(frozen=True)
class Stretch:
    """A part of the day, in minutes after midnight. ``name`` is "" where labs are worked on."""

    start: int
    end: int
    name: str = ""


@dataclass(frozen=True)
class Entry:
    """One line of a schedule, in minutes after midnight; ``lab`` is "" for breaks and questions."""

    day: int
    start: int
    end: int
    text: str
    lab: str = ""


@dataclass(frozen=True)
class Plan:
    """A schedule, and the labs that it has no room for."""

    entries: tuple[Entry, ...]
    left: tuple[Course, ...]


def _clock(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _day(*rows: str) -> tuple[Stretch, ...]:
    return tuple(Stretch(_clock(row[:5]), _clock(row[6:11]), row[12:]) for row in rows)


HALF_DAY = _day(
    "09:00-09:15 Welcome; `labs doctor` on every machine",
    "09:15-10:45",
    "10:45-11:00 Break",
    "11:00-12:30",
    "12:30-12:45 What we showed, and what comes next",
)
FULL_DAY = _day(
    "09:00-09:15 Welcome; `labs doctor` on every machine",
    "09:15-10:45",
    "10:45-11:00 Break",
    "11:00-12:30",
    "12:30-13:30 Lunch",
    "13:30-15:00",
    "15:00-15:15 Break",
    "15:15-16:45",
    "16:45-17:00 What we showed, and what comes next",
)
SECOND_DAY = (Stretch(_clock("09:00"), _clock("09:15"), "Welcome back; what was open yesterday"), *FULL_DAY[1:])


def courses(labs: Sequence[Notebook]) -> list[Course]:
    """What the cards say, in the order of the labs.

    Raises:
        NotebookError: a card's row Minutes does not begin with a number.
    """
    return [Course(lab.path.stem, lab.title, _minutes(lab)) for lab in labs]


def _minutes(lab: Notebook) -> int:
    found = re.match(r"\d+", lab.card.get("Minutes", ""))
    if found is None or int(found[0]) == 0:
        raise NotebookError(
            f"{lab.path.name}: the card says Minutes {lab.card.get('Minutes', '(no such row)')!r}",
            why="schedules are made from the cards",
            fix="begin the row with a number: `| Minutes | 45 |`",
        )
    return int(found[0])


def plan(labs: Sequence[Course], days: Sequence[Sequence[Stretch]]) -> Plan:
    """Lay labs, in their order, over the working stretches of ``days``; stop at the first that does not fit whole.

    Example:
        >>> tea = (Stretch(540, 600), Stretch(600, 615, "Break"), Stretch(615, 675))
        >>> [(e.start, e.end, e.text) for e in plan([Course("00_a", "Lab 00", 120)], [tea]).entries]
        [(540, 600, 'Lab 00'), (600, 615, 'Break'), (615, 675, 'Lab 00, continued')]
    """
    count = len(labs)
    while (laid := _lay(labs[:count], days)) is None:
        count -= 1
    return Plan(tuple(laid), tuple(labs[count:]))


def _lay(labs: Sequence[Course], days: Sequence[Sequence[Stretch]]) -> list[Entry] | None:
    """The lines of a schedule that holds all of ``labs``, None where they are too long for it."""
    waiting = [(course, course.minutes) for course in labs]
    entries = []
    for number, day in enumerate(days, start=1):
        for stretch in day:
            if stretch.name:
                entries.append(Entry(number, stretch.start, stretch.end, stretch.name))
                continue
            now = stretch.start
            while waiting:
                course, rest = waiting[0]
                piece = _piece(rest, stretch.end - now, SHORTEST if rest < course.minutes else BEGINNING)
                if piece == 0:
                    break
                text = course.title if rest == course.minutes else f"{course.title}, continued"
                entries.append(Entry(number, now, now + piece, text, course.lab))
                now += piece
                waiting[:1] = [(course, rest - piece)] if rest > piece else []
            if now < stretch.end:
                entries.append(Entry(number, now, stretch.end, QUESTIONS))
    return None if waiting else entries


def _piece(rest: int, room: int, least: int) -> int:
    """How much of ``rest`` to do now, in minutes: all of it, or ``least`` or more that leave no crumb behind."""
    if rest <= room:
        return rest
    part = min(room, rest - SHORTEST)
    return part if part >= least else 0


def blocks(labs: Sequence[Course], day: Sequence[Stretch]) -> Iterator[Plan]:
    """Plans for one day each, one after the other, until no lab is left; a lab that no day can hold is passed over."""
    left = list(labs)
    while left:
        made = plan(left, [day])
        if len(made.left) == len(left):
            left = left[1:]
            continue
        yield made
        left = list(made.left)


def schedules(labs: Sequence[Course]) -> str:
    """All schedules as markdown."""
    total = sum(course.minutes for course in labs)
    parts = [
        "# Workshop schedules",
        f"Made from the cards of {len(labs)} labs, {total} minutes in all. Times are the cards' own, for a group that "
        "works at its own machines; every lab can be opened alone, so what is left over is homework.",
    ]
    for number, made in enumerate(blocks(labs, HALF_DAY), start=1):
        parts += [f"## Half a day, choice {number}", _table(made.entries)]
    for title, days in (("One day", [FULL_DAY]), ("Two days", [FULL_DAY, SECOND_DAY])):
        made = plan(labs, days)
        parts += [f"## {title}"]
        for day in range(1, len(days) + 1):
            rows = [entry for entry in made.entries if entry.day == day]
            heading = [f"### Day {day}"] if len(days) > 1 else []
            free = not any(entry.lab for entry in rows)
            parts += [*heading, "Free: the labs end before this day." if free else _table(rows)]
        left = "; ".join(f"{course.title} ({course.minutes} min)" for course in made.left)
        parts += [f"Left over: {left}." if left else "Nothing is left over."]
    return "\n\n".join(parts)


def _table(entries: Sequence[Entry]) -> str:
    rows = [f"| {_time(one.start)}–{_time(one.end)} | {one.end - one.start} min | {_text(one)} |" for one in entries]
    return "\n".join(["| time | length | what |", "|---|---|---|", *rows])


def _time(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _text(entry: Entry) -> str:
    return f"[{entry.text}]({entry.lab}.ipynb)" if entry.lab else entry.text
