"""``labs mutation-matrix``: how good is the ladder?"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from labsupport.models import DEFAULT_MODEL

_FILE = click.Path(path_type=Path)


@click.command("mutation-matrix")
@click.option("--fast", is_flag=True, help="One fault of each kind and one harmless variation: under a minute.")
@click.option("--faults", default="", help="Only these, with commas: M01,M26@1.02. By default all, in all sizes.")
@click.option("--benign", default=0, show_default=True, help="Harmless runs: 299 bound false alarms by 1 %.")
@click.option("--limit", default=1e9, help="Seconds after which it stops; run it again to go on.")
@click.option("--tiny", is_flag=True, help="On a random Llama of four layers: minutes, not an hour.")
@click.option("--restart", is_flag=True, help="Forget what was run before.")
@click.option("--output", type=_FILE, help="Write the recording as JSON.")
@click.option("--read", "recorded", type=_FILE, help="Run nothing: print this recording.")
def mutation_matrix(
    fast: bool, faults: str, benign: int, limit: float, tiny: bool, restart: bool, output: Path | None,
    recorded: Path | None,
) -> None:  # fmt: skip
    """Plant faults in our server, one after the other, and see which of them the ladder finds, and whom it blames.

    Exit code 0: all were run. 3: stopped at --limit, run it again.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import shutil

    from labsupport.validation.mutations.catalogue import ALL, FAST, chosen
    from labsupport.validation.mutations.fault import Bench
    from labsupport.validation.mutations.matrix import FULL, Kept, jobs, work
    from labsupport.validation.mutations.recording import Matrix, about, lines, read_matrix
    from labsupport.workspace import Workspace, atomic_text

    if recorded is not None:
        for line in lines(read_matrix(recorded)):
            click.echo(line)
        return
    names = [name.strip() for name in faults.split(",") if name.strip()] or (list(FAST) if fast else [])
    todo = jobs(chosen(names) if names else ALL, benign or int(fast), FULL)
    checkpoint, source = _made(tiny=tiny)
    kept = Kept(Workspace.current().runs / "mutation_matrix" / source.name, FULL)
    if restart:
        shutil.rmtree(kept.folder, ignore_errors=True)
    bench = Bench(checkpoint, source)
    try:
        left = work(bench, todo, kept, limit, lambda text: click.echo(f"  {text}", err=True))
    finally:
        bench.close()
    found = [outcome for name, _ in todo if (outcome := kept.get(name)) is not None]
    matrix = Matrix(tuple(found), about(" ".join(["labs", *sys.argv[1:]]), source.name, FULL))
    for line in lines(matrix):
        click.echo(line)
    if output:
        atomic_text(output, json.dumps(matrix.to_json(), indent=1) + "\n")
    if left:
        click.echo(f"{left} of {len(todo)} are left: run it again")
        sys.exit(3)


def _made(*, tiny: bool) -> tuple[Path, Path]:
    """The checkpoint and the model; both are made where they are missing."""
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options
    from labsupport.models import fetch
    from labsupport.workspace import Workspace

    if tiny:
        from labsupport.models.tiny import make_tiny

        source = Workspace.current().checkpoints / "tiny-llama"
        if not source.is_dir():
            make_tiny("llama", source)
    else:
        source = fetch(DEFAULT_MODEL)
    return convert(source, Options(dtype="float32")).folder, source
