"""Two results of ``labs bench engines``: is our engine slower than it was, beside the others of its own run?

The other engines ran in turn with ours, so they are the yardstick of that machine and that day: what is compared is
ours by their geometric mean, round by round. Without them only the rates are left, which a busy minute changes too.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from labsupport.benchmark.catalogue import OURS
from labsupport.benchmark.compare import Change, Comparison, change, check_tolerance, compare
from labsupport.benchmark.engines import Found, Row
from labsupport.benchmark.resample import draws
from labsupport.benchmark.served import read_report
from labsupport.errors import BenchmarkError

METRICS = ("decode", "prefill")


def compare_files(old: Path, new: Path, tolerance: float = 0.1) -> Comparison:
    """Compare two files of ``labs bench serve``, or two of ``labs bench engines``.

    Raises:
        BenchmarkError: one cannot be read, or the two measured different tasks.
    """
    if not (_is_of_engines(old) or _is_of_engines(new)):
        return compare(read_report(old), read_report(new), tolerance)
    return compare_engines(read_found(old), read_found(new), tolerance)


def _is_of_engines(path: Path) -> bool:
    try:
        return "rows" in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read_found(path: Path) -> Found:
    """A result of ``labs bench engines``.

    Raises:
        BenchmarkError: the file is missing, or holds something else.
    """
    try:
        return TypeAdapter(Found).validate_json(path.read_bytes())
    except OSError as problem:
        raise BenchmarkError(f"cannot read {path}", why=str(problem), fix="labs bench engines --json > FILE") from None
    except ValidationError as problem:
        raise BenchmarkError(
            f"{path} is no result of labs bench engines",
            why=str(problem.errors()[0]["msg"]),
            fix="name the file that it wrote: work/runs/engines-MODEL.json",
        ) from None


def compare_engines(old: Found, new: Found, tolerance: float = 0.1) -> Comparison:
    """Compare our rows of ``new`` with those of ``old``.

    Args:
        tolerance: 0.1: a rate beside the others' may fall to 1 / 1.1.

    Raises:
        BenchmarkError: different models or settings, no row of ours in both, or a file without its rounds.
        ParameterError: a tolerance below 0.
    """
    check_tolerance(tolerance)
    tasks = [(one.model, one.settings.prompt, one.settings.new, one.settings.threads) for one in (old, new)]
    if tasks[0] != tasks[1]:
        raise BenchmarkError(
            "the two results are of different tasks",
            why=" and ".join("{}, {} tokens in, {} out, {} threads".format(*task) for task in tasks),
            fix="measure both with the same options",
        )
    rows = [{(row.peer, row.precision): row for row in one.rows} for one in (old, new)]
    both = [key for key in rows[0] if key in rows[1]]
    warnings = [] if old.cpu == new.cpu else [f"two machines: {old.cpu} and {new.cpu}"]
    for key in both:
        versions = [one[key].versions for one in rows]
        if key[0] != OURS and versions[0] != versions[1]:
            warnings.append(f"the yardstick moved: {rows[0][key].title} {key[1]} {versions[0]} and {versions[1]}")
    changes = list[Change]()
    for precision in [precision for peer, precision in both if peer == OURS]:
        others = [peer for peer, one in both if one == precision and peer != OURS]
        if not others:
            warnings.append(f"{precision}: no other engine is in both, so these are rates of a machine and its day")
        changes += _changes(rows, precision, others, tolerance)
    if not changes:
        raise BenchmarkError(
            "no row of our engine is in both results", why="there is nothing to compare", fix="--peers labs,llamacpp"
        )
    return Comparison(tolerance, tuple(changes), tuple(warnings))


def _changes(
    rows: list[dict[tuple[str, str], Row]], precision: str, others: list[str], tolerance: float
) -> list[Change]:
    found = []
    for metric in METRICS:
        sides = [_beside([one[OURS, precision], *(one[peer, precision] for peer in others)], metric) for one in rows]
        samples = [np.median(side[draws(len(side), seed)], axis=1) for seed, side in enumerate(sides)]
        pair = float(np.median(sides[0])), float(np.median(sides[1]))
        name = f"{metric} / others" if others else f"{metric} tokens/s"
        found.append(change(f"labs {precision}", name, pair, samples, tolerance, more_is_better=True))
    return found


def _beside(rows: list[Row], metric: str) -> NDArray[np.float64]:
    """The first row's rate of each round, by the geometric mean of the others in that round."""
    rounds = [getattr(row, metric).rounds for row in rows]
    if not all(rounds):
        raise BenchmarkError(
            "a result without its rounds",
            why="it was written before they were kept, and a median alone has no interval",
            fix="labs bench engines, once more",
        )
    ours, *others = np.array(rounds, dtype=np.float64)
    return np.asarray(ours / np.exp(np.mean(np.log(others), axis=0))) if others else ours
