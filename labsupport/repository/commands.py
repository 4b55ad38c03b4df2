"""``labs assemble`` and ``labs lint-repo``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from labsupport.errors import ParameterError

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("engine", type=_FOLDER)
@click.option("--tokenizer", type=_FOLDER, required=True, help="The Hugging Face folder that holds the tokenizer.")
@click.option("--decoupled/--no-decoupled", default=True, show_default=True, help="Whether answers can stream.")
@click.option("--max-queue-delay", default=0, show_default=True, help="Microseconds to wait for more requests.")
@click.option("--max-queue-size", default=0, show_default=True, help="Requests that may wait; 0: any number.")
@click.option("--names", type=click.Choice(["0.20", "0.19"]), help="Tensor names.  [default: the engine's version]")
@click.option("--instances", default=1, show_default=True, help="Copies of each Python model.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="An official parameter of tensorrt_llm.")
@click.option("--mounted-at", default="", help="Write absolute paths under this folder instead of relative ones.")
@click.option(
    "--output", type=_FOLDER, help="The folder to write.  [default: work/model_repositories/<model>/<recipe>]"
)
@click.option("--force", is_flag=True, help="Replace OUTPUT whatever it is.")
@click.option("-q", "--quiet", is_flag=True, help="Print the folder and nothing else.")
def assemble(
    engine: Path,
    tokenizer: Path,
    decoupled: bool,
    max_queue_delay: int,
    max_queue_size: int,
    names: str | None,
    instances: int,
    settings: tuple[str, ...],
    mounted_at: str,
    output: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Write a Triton model repository for ENGINE, and print its folder.

    Paths in it start at the repository, so start the server there and name the models, as
    docker/scripts/serve_repository.sh does; or give --mounted-at the place where a container will see it.
    """
    from labsupport.repository.assemble import assemble as make
    from labsupport.repository.engine_config import read_engine
    from labsupport.repository.model_config import Options, names_for

    chosen = names or names_for(read_engine(engine.expanduser()).version)
    options = Options(decoupled, max_queue_delay, max_queue_size, chosen, instances, mounted_at, _pairs(settings))
    done = make(engine, tokenizer, options, output=output, force=force)
    click.echo(done.folder)
    if not quiet:
        note = "made before from the same files and options" if done.skipped else f"{done.seconds:.1f} s"
        mode = "streaming" if decoupled else "one answer a request"
        click.echo(f"names of TensorRT-LLM {chosen}, {mode}, {note}", err=True)


def _pairs(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ParameterError(
                f"--set {setting!r}",
                why="it needs a key and a value",
                fix="such as --set kv_cache_free_gpu_mem_fraction=0.5",
            )
        pairs[key] = value
    return pairs


@click.command("lint-repo")
@click.argument("repository", type=_FOLDER)
@click.option("--container", help="The container that will serve it.  [default: the pinned one]")
@click.option("--fix", is_flag=True, help="Mend what is safe; the old config stays as config.pbtxt.before-fix.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def lint_repo(repository: Path, container: str | None, fix: bool, as_json: bool) -> None:
    """Hold a model repository against the pains of those who came before; exit 1 where it would not serve."""
    from labsupport.repository.lint import RULES, lint, mend

    mended, left = mend(repository, container) if fix else ([], lint(repository, container))
    if as_json:
        found = {"mended": [one.to_json() for one in mended], "findings": [one.to_json() for one in left]}
        click.echo(json.dumps(found, indent=2))
    else:
        for one in mended:
            click.echo(f"mended: {one.hit.where}: {one.rule.name}")
        for one in left:
            click.echo(str(one))
        errors = sum(one.rule.level == "error" for one in left)
        click.echo(f"{len(RULES)} rules: {errors} error(s), {len(left) - errors} warning(s)")
    if any(one.rule.level == "error" for one in left):
        raise click.exceptions.Exit(1)
