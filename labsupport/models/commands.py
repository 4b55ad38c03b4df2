"""``labs fetch`` and ``labs models``."""

from __future__ import annotations

import click


@click.command()
@click.argument("name")
@click.option("--accept-terms", is_flag=True, help="You have read the model's terms and accept them.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def fetch(name: str, accept_terms: bool, quiet: bool) -> None:
    """Bring a model into the workspace, and print its folder.

    NAME is a catalogue name (labs models), a hub id (organization/name) or a local folder.
    """
    from labsupport.models.fetching import fetch as bring

    click.echo(bring(name, accept_terms=accept_terms, progress=not quiet))


@click.command()
def models() -> None:
    """The models that the labs know."""
    from labsupport.models.catalogue import CATALOGUE

    for model in CATALOGUE.values():
        click.echo(f"{model.name}  {model.title}")
