"""The verbs of this room: run, learner, lint, handout, lab."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from labsupport.errors import LintError, NotebookError
from labsupport.labs.jupyter import jupyter_command
from labsupport.labs.launcher import shelve
from labsupport.labs.learner import reset, write_copies
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
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.argument("labs", nargs=-1, metavar="[NN ...|all]")
@click.option("--reset", "again", multiple=True, metavar="NN", help="Begin this lab again; a backup of it is kept.")
def learner(folder: Path | None, labs: tuple[str, ...], again: tuple[str, ...]) -> None:
    """Write learner copies of labs (default: all) into FOLDER (default: work/learner).

    They hold no solutions, and still run. What you have edited there stays; a newer original lands beside it as
    NN_name.new.ipynb. FOLDER/Start.md is the page of the labs, with your progress.
    """
    if folder and re.fullmatch(r"\d\d|all", str(folder)) and not folder.exists():
        folder, labs = None, (str(folder), *labs)  # `labs learner 02` names a lab, as in every other verb
    folder = (folder or learner_folder()).resolve()
    if not again:
        _write_copies(folder, labs)
        return
    chosen = select(again)
    for copied in reset(chosen, folder):
        click.echo(f"{copied.path}: {copied.state}")
    shelve(chosen, folder)


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
@click.option("--workshop", is_flag=True, help="Add cover, schedules, cheat-sheet, glossary and answer key.")
@click.option("--pdf", is_flag=True, help="Print all of it as PDF too, on A4 and letter, with Chromium.")
@click.option("--build", type=click.Path(path_type=Path), help="Where the executed notebooks are.  [default: build/]")
def handout(labs: tuple[str, ...], workshop: bool, pdf: bool, build: Path | None) -> None:
    """Write the handouts, learner and instructor edition, of executed labs (default: all).

    `labs run` writes the executed notebooks into build/executed/; the handouts go to build/handouts/. Without Chromium
    the HTML is written all the same, and the mend is printed.
    """
    from labsupport.labs.handout import render, write_workshop

    folder = (build or build_folder()).resolve()
    executed = [folder / "executed" / lab.name for lab in select(labs)]
    absent = [path.stem for path in executed if not path.is_file()]
    if absent:
        raise NotebookError(
            f"not executed yet: {', '.join(absent)}",
            why=f"a handout is made from an executed notebook, in {folder / 'executed'}",
            fix=f"labs run {absent[0][:2]} --handouts",
        )
    pages = []
    for path in executed:
        for page in render(path, folder / "handouts"):
            click.echo(str(page))
            pages.append(page)
    if workshop:
        made = write_workshop(executed, folder / "handouts")
        click.echo("\n".join(map(str, made)))
        pages += made
    if pdf:
        _print(pages)


def _print(pages: list[Path]) -> None:
    from labsupport.doctor.report import lines_of
    from labsupport.labs.handout import write_contents
    from labsupport.labs.handout.pdf import print_pages, printer_row

    if (row := printer_row()).state != "ok":
        click.echo("\n".join(["", "No PDF was made; the HTML stands.", *lines_of(row)]))
        return
    for printed in print_pages(pages):
        click.echo(str(printed))
    write_contents(pages[0].parent)  # it names the PDF files too


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8888,
    show_default=True,
    help="The first port to try, on 127.0.0.1.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def lab(port: int, no_browser: bool) -> None:
    """Open JupyterLab on learner copies, in work/learner; your edits there are kept."""
    folder = learner_folder()
    _write_copies(folder, ())
    command = jupyter_command(folder, build_folder() / "jupyter" / "settings", port=port, browser=not no_browser)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # learners share a machine: no kernel spins while it waits
    os.execv(command[0], command)


def learner_folder() -> Path:
    """Where `labs lab` keeps the learner copies."""
    return Workspace.current().root / "learner"


def _write_copies(folder: Path, labs: tuple[str, ...]) -> None:
    chosen = select(labs)
    for copied in write_copies(chosen, folder):
        click.echo(f"{copied.path}: {copied.state}")
    shelve(chosen, folder)
