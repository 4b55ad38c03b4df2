"""``labs fetch`` and ``labs models``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from labsupport.models.catalogue import DEFAULT_MODEL
from labsupport.models.place import ModelState, list_models, model_folder


@click.command()
@click.argument("name", default=DEFAULT_MODEL)
@click.option("--accept-terms", is_flag=True, help="You have read the model's terms and accept them.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def fetch(name: str, accept_terms: bool, quiet: bool) -> None:
    """Bring a model into the workspace, and print its folder.

    NAME is a catalogue name (labs models), a hub id (organization/name) or a local folder; without it, the labs' model.
    """
    from labsupport.models.fetching import fetch as bring

    click.echo(bring(name, accept_terms=accept_terms, progress=not quiet))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")
def models(as_json: bool) -> None:
    """The models that the labs know: what is here, what a fetch costs, under which license."""
    states = list_models()
    if as_json:
        click.echo(
            json.dumps([{**asdict(state), "folder": str(model_folder(state.name))} for state in states], indent=2)
        )
        return
    rows = [("model", "state", "download", "on disk", "license"), *(_row(state) for state in states)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row, note in zip(rows, ["", *(state.title for state in states)], strict=True):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if note:
            click.echo(f"    {note}")
    click.echo("\nAny hub id (organization/name) and any local folder work as well: labs fetch NAME")


def _row(state: ModelState) -> tuple[str, str, str, str, str]:
    download = "" if state.download_bytes is None else _megabytes(state.download_bytes)
    terms = " (to be accepted)" if state.terms and not state.present else ""
    return (
        state.name,
        "present" if state.present else "not fetched",
        download,
        _megabytes(state.disk_bytes),
        state.license + terms,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
