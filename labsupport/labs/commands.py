"""The verbs of this room: run, learner, lint, handout, lab."""

from __future__ import annotations

import os
from pathlib import Path

import click

from labsupport.errors import LintError, NotebookError
from labsupport.labs.jupyter import jupyter_command
from labsupport.labs.learner import write_copies
from labsupport.labs.notebook import select
from labsupport.labs.run import Outcome, build_folder, parse_value, run_labs
from labsupport.workspace import Workspace


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


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("labs", nargs=-1, metavar="[NN ...|all]")
def learner(folder: Path, labs: tuple[str, ...]) -> None:
    """Write learner copies of labs (default: all) into FOLDER: no solutions, and they still run.

    What you have edited there stays; a newer original lands beside it as NN_name.new.ipynb.
    """
    _write_copies(folder, labs)


@click.command()
@click.argument("labs", nargs=-1, metavar="[NN ...|FILE ...|all]")
def lint(labs: tuple[str, ...]) -> None:
    """Hold labs (default: all) against the house rules; each finding comes with its mend."""
    from labsupport.labs.lint import lint as find

    paths = select(labs)
    findings = find(paths)
    for found in findings:
        click.echo(str(found))
    if findings:
        raise LintError(
            f"{len(findings)} findings in {len({found.lab for found in findings})} of {len(paths)} labs",
            why="a lab breaks the house rules; see above",
            fix="do what each `mend` says, and run `labs lint` again",
        )
    click.echo(f"{len(paths)} labs, no findings")


@click.command()
@click.argument("labs", nargs=-1, metavar="[NN ...|all]")
@click.option("--build", type=click.Path(path_type=Path), help="Where the executed notebooks are.  [default: build/]")
def handout(labs: tuple[str, ...], build: Path | None) -> None:
    """Write the HTML handouts, learner and instructor edition, of executed labs (default: all).

    `labs run` writes the executed notebooks into build/executed/; the handouts go to build/handouts/.
    """
    from labsupport.labs.handout import render

    folder = (build or build_folder()).resolve()
    executed = [folder / "executed" / lab.name for lab in select(labs)]
    absent = [path.stem for path in executed if not path.is_file()]
    if absent:
        raise NotebookError(
            f"not executed yet: {', '.join(absent)}",
            why=f"a handout is made from an executed notebook, in {folder / 'executed'}",
            fix=f"labs run {absent[0][:2]} --handouts",
        )
    for path in executed:
        for page in render(path, folder / "handouts"):
            click.echo(str(page))


@click.command()
@click.option("--port", default=8888, show_default=True, help="The first port to try, on 127.0.0.1.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def lab(port: int, no_browser: bool) -> None:
    """Open JupyterLab on learner copies, in work/learner; your edits there are kept."""
    folder = Workspace.current().root / "learner"
    _write_copies(folder, ())
    command = jupyter_command(folder, build_folder() / "jupyter" / "settings", port=port, browser=not no_browser)
    os.execv(command[0], command)


def _write_copies(folder: Path, labs: tuple[str, ...]) -> None:
    for copied in write_copies(select(labs), folder):
        click.echo(f"{copied.path}: {copied.state}")
