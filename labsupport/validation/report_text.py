"""A report for a terminal: symbols as well as colors, and the numbers of every test."""

from __future__ import annotations

from collections.abc import Iterator

import click

from labsupport.validation.verdict import SYMBOL, Decision, Level, Report

COLOR: dict[Decision, str] = {"pass": "green", "fail": "red", "insufficient": "yellow"}


def level_lines(level: Level) -> Iterator[str]:
    """One level: its decision, then its tests; evidence under those that failed."""
    cost = f"{level.tokens} tokens, {level.seconds:.1f} s"
    yield f"{_mark(level.decision)} {click.style(f'{level.name} {level.title}', bold=True)}  ({cost})"
    for verdict in level.verdicts:
        yield f"    {_mark(verdict.decision)} {verdict.test}: {verdict.detail}"
        if verdict.decision != "pass":
            yield from (f"        {line}" for line in verdict.evidence)


def conclusion_lines(report: Report) -> Iterator[str]:
    """What it all means."""
    yield f"{_mark(report.decision)} {report.target} against {report.reference}: {report.decision}"
    if report.conclusion:
        yield f"  {report.conclusion}"


def _mark(decision: Decision) -> str:
    return click.style(SYMBOL[decision], fg=COLOR[decision], bold=True)
