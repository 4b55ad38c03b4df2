"""The verbs of this room: run, lab, learner, lint, handout."""

from __future__ import annotations

from pathlib import Path

import click

from labsupport.errors import NotebookError
from labsupport.labs.notebook import select
from labsupport.labs.run import Outcome, build_folder, parse_value, run_labs


@click.command()
@click.argument("labs", nargs=-1, metavar="[NN ...|all]")
@click.option("--jobs", default=2, show_default=True, help="How many labs run at the same time.")
@click.option("-p", "--parameter", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="Set a parameter.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds that one lab may take.")
@click.option("--handouts", is_flag=True, help="Write the HTML handouts too.")
@click.option("--build", type=click.Path(path_type=Path), help="Where results go.  [default: build/]")
def run(
    labs: tuple[str, ...],
    jobs: int,
    parameters: tuple[tuple[str, str], ...],
    timeout: float,
    handouts: bool,
    build: Path | None,
) -> None:
    """Run labs headless, each in a fresh kernel (default: all).

    Executed notebooks go to build/executed/, handouts to build/handouts/. The exit code is 1 when a lab failed.
    """
    folder = (build or build_folder()).resolve()
    given = {name: parse_value(value) for name, value in parameters}
    outcomes = []
    for outcome in run_labs(
        select(labs), build=folder, jobs=jobs, parameters=given, timeout=timeout, handouts=handouts
    ):
        click.echo(f"{outcome.lab}: {outcome.status}, {outcome.seconds:.1f} s")
        outcomes.append(outcome)
    outcomes.sort(key=lambda outcome: outcome.lab)
    for outcome in outcomes:
        if outcome.problem:
            click.echo(f"\n{outcome.lab}: {outcome.status}\n{outcome.problem}\n  in {outcome.executed}")
    click.echo(f"\n{_table(outcomes)}")
    failed = [outcome.lab for outcome in outcomes if outcome.status != "passed"]
    if failed:
        raise NotebookError(
            f"{len(failed)} of {len(outcomes)} labs did not pass: {', '.join(failed)}",
            why="see the cells above",
            fix=f"open the lab, mend the cell, and run `labs run {failed[0][:2]}` again",
        )


def _table(outcomes: list[Outcome]) -> str:
    width = max([len("lab"), *(len(outcome.lab) for outcome in outcomes)])
    lines = [f"{'lab':{width}}  {'status':12} seconds"]
    lines += [f"{one.lab:{width}}  {one.status:12} {one.seconds:7.1f}" for one in outcomes]
    return "\n".join(lines)
