"""``labs validate``, ``labs respond``, ``labs compare``, ``labs trace``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from labsupport.models import DEFAULT_MODEL

LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7")


@click.command()
@click.argument("target")
@click.option("--reference", default=DEFAULT_MODEL, show_default=True, help="The original model: a name or a folder.")
@click.option("--fast", is_flag=True, help="A small budget: a minute instead of five.")
@click.option("--all", "every", is_flag=True, help="Go on after a level that fails.")
@click.option("--level", "only", multiple=True, type=click.Choice(LEVELS), help="Only this level; repeatable.")
@click.option("--run", "name", default="validate", show_default=True, help="Name that the seeds are derived from.")
@click.option("--json", "as_json", type=click.Path(path_type=Path), help="Write the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def validate(
    target: str, reference: str, fast: bool, every: bool, only: tuple[str, ...], name: str, as_json: Path | None,
    quiet: bool,
) -> None:  # fmt: skip
    """Is TARGET right? It is an engine folder, a server's address, or hf:MODEL. Exit code 0 yes, 1 no, 2 undecided."""
    from dataclasses import replace

    from labsupport.validation.ladder import steps
    from labsupport.validation.material import FAST, Budget, Material
    from labsupport.validation.opening import open_target, reference_for
    from labsupport.validation.report_text import conclusion_lines, level_lines
    from labsupport.validation.verdict import Report
    from labsupport.workspace import atomic_text

    def say(what: str) -> None:
        if not quiet:
            click.echo(f"  {what} ...", err=True)

    asked = open_target(target, reference)
    budget = replace(FAST if fast else Budget(), run=name)
    material = Material(asked, reference_for(asked, reference), budget, progress=say)
    levels = []
    for level in steps(material, every=every, only=only):
        levels.append(level)
        for line in level_lines(level):
            click.echo(line)
    report = Report(asked.facts.name, material.reference.name, tuple(levels))
    for line in conclusion_lines(report):
        click.echo(line)
    if as_json:
        atomic_text(as_json, json.dumps(report.to_json(), indent=2) + "\n")
    sys.exit(report.exit_code)
