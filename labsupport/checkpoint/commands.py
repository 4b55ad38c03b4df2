"""``labs convert``, ``labs inspect``, ``labs verify`` and ``labs bench convert``."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labsupport.errors import CheckpointError

if TYPE_CHECKING:
    from labsupport.checkpoint.convert_bench import Comparison
    from labsupport.checkpoint.convert_plan import Options, Plan

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("source", required=False)
@click.option("--tp", default=1, show_default=True, help="Tensor-parallel ranks.")
@click.option("--pp", default=1, show_default=True, help="Pipeline stages.")
@click.option("--dtype", default="auto", show_default=True, help="float32, float16, bfloat16; auto: the source's own.")
@click.option("--parallel-embedding", type=click.Choice(["0", "1"]), help="Split the embedding along this dimension.")
@click.option("--output", type=_FOLDER, help="The folder to write.  [default: work/trt_checkpoints/<model>/<recipe>]")
@click.option("--config", "config_file", type=_FOLDER, help="The model's config.json, where it is not in SOURCE.")
@click.option(
    "--backend",
    type=click.Choice(["labs", "tensorrt_llm"]),
    default="labs",
    show_default=True,
    help="tensorrt_llm: its convert_checkpoint.py, run in its container and printed elsewhere.",
)
@click.option("--tensorrt-llm", "version", help="Print the call for this version of TensorRT-LLM.")
@click.option("--scripts", type=_FOLDER, help="The clone of TensorRT-LLM that holds its scripts.")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--force", is_flag=True, help="Convert again, and replace OUTPUT whatever it is.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def convert(
    source: str | None,
    tp: int,
    pp: int,
    dtype: str,
    parallel_embedding: str | None,
    output: Path | None,
    config_file: Path | None,
    backend: str,
    version: str | None,
    scripts: Path | None,
    dry_run: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Write a TensorRT-LLM checkpoint, and print its folder.

    SOURCE is a model (labs models), a hub id, a Hugging Face folder, a state dict of DeepSpeed or PyTorch saved as
    safetensors (with --config), or a TensorRT-LLM checkpoint, such as ModelOpt exports, to be cut for other ranks.
    """  # fmt: skip
    from labsupport.checkpoint.convert_plan import Options

    folder = model_folder(source, quiet=quiet)
    embedding = parallel_embedding is not None
    options = Options(dtype, tp, pp, embedding, int(parallel_embedding or 0))
    if dry_run or backend == "tensorrt_llm":
        plan = _plan(folder, options, config_file)
        if backend == "tensorrt_llm":
            _real_stack(folder, options, plan, output, version, scripts, dry_run=dry_run, force=force)
        else:
            _print_plan(folder, options, plan, output)
        return
    _convert(folder, options, output, config_file, force=force, quiet=quiet)


def _convert(
    folder: Path, options: Options, output: Path | None, config_file: Path | None, *, force: bool, quiet: bool
) -> None:
    from tqdm import tqdm

    from labsupport.checkpoint.convert import convert as make

    with tqdm(unit="B", unit_scale=True, desc=f"convert {folder.name}", disable=quiet or None, leave=False) as bar:

        def progress(written: int, total: int) -> None:
            bar.total = total
            bar.update(written)

        done = make(folder, options, output=output, config_file=config_file, force=force, progress=progress)
    click.echo(done.folder)
    if not quiet:
        note = "made before from the same files and options" if done.skipped else f"{done.seconds:.1f} s"
        click.echo(
            f"{done.config.architecture}, {done.config.dtype}, {done.config.mapping.files} rank(s), {note}", err=True
        )


def model_folder(source: str | None, *, quiet: bool) -> Path:
    """A folder is taken as it is (it need not hold a tokenizer); any other name is a model to be fetched."""
    from labsupport.models import DEFAULT_MODEL, fetch

    if source and Path(source).expanduser().is_dir():
        return Path(source).expanduser().resolve()
    return fetch(source or DEFAULT_MODEL, progress=not quiet)


def _plan(folder: Path, options: Options, config_file: Path | None) -> Plan:
    from labsupport.checkpoint.convert_plan import make_plan, open_source

    source = open_source(folder)
    try:
        return make_plan(source, options, config_file)
    finally:
        source.close()


def _print_plan(folder: Path, options: Options, plan: Plan, output: Path | None) -> None:
    from labsupport.checkpoint.convert import default_output
    from labsupport.checkpoint.inspect import Contents
    from labsupport.checkpoint.inspect_text import tree

    target = output or default_output(folder, options, plan)
    files = {f"rank{rank}.safetensors": plan.infos(rank) for rank in range(len(plan.ranks))}
    for line in tree(Contents(target, plan.config.to_json(), files)):
        click.echo(line)
    click.echo("dry run: nothing was written")


def _real_stack(
    folder: Path, options: Options, plan: Plan, output: Path | None, version: str | None, scripts: Path | None,
    *, dry_run: bool, force: bool,
) -> None:  # fmt: skip
    from labsupport.checkpoint.convert import default_output, require_ours
    from labsupport.checkpoint.real_stack import SCRIPTS, installed_version, require_same_version, stack_call
    from labsupport.workspace import atomic_folder, write_record

    default = default_output(folder, options, plan)
    target = (output or default.with_name(default.name + "-tensorrt_llm")).expanduser().resolve()
    scripts, library = scripts or SCRIPTS, installed_version()
    call = stack_call(plan.config, folder, target, tensorrt_llm=version, scripts=scripts)
    if library is None or dry_run or version:
        click.echo(call.clone)
        click.echo(call.line)
        click.echo(f"not run here: it needs the container of TensorRT-LLM {call.tensorrt_llm}", err=True)
        return
    require_same_version(scripts, library)
    require_ours(target, folder, force=force)
    with atomic_folder(target) as making:
        call = stack_call(plan.config, folder, making, scripts=scripts)
        if subprocess.run(call.argv, check=False).returncode:
            raise CheckpointError(
                "convert_checkpoint.py ended with an error",
                why="its own message stands above",
                fix=f"run it alone: {call.line}",
            )
        write_record(making, {"step": "convert", "backend": "tensorrt_llm", "options": asdict(options),
                              "versions": {"tensorrt_llm": library}})  # fmt: skip
    click.echo(target)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--diff", "other", type=_FOLDER, help="Show how this second folder differs; exit with 1 if it does.")
@click.option("--translate", is_flag=True, help="Print config.json of the schema of 2023 in today's.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")
@click.pass_context
def inspect(context: click.Context, folder: Path, other: Path | None, translate: bool, as_json: bool) -> None:
    """Show what a checkpoint, or a Hugging Face folder, holds: tensors with type, shape, layers and bytes, per rank."""
    from labsupport.checkpoint import inspect as look
    from labsupport.checkpoint import inspect_text as text

    if translate:
        _translate(folder)
    elif other:
        found = look.diff(folder, other)
        lines = [json.dumps([asdict(one) for one in found], indent=2)] if as_json else text.differences(found)
        for line in lines:
            click.echo(line)
        if not as_json:
            click.echo(f"{len(found)} differences" if found else "no difference")
        context.exit(1 if found else 0)
    elif as_json:
        click.echo(json.dumps(asdict(look.inspect(folder)), default=str, indent=2))
    else:
        for line in text.tree(look.inspect(folder)):
            click.echo(line)


def _translate(folder: Path) -> None:
    from labsupport.checkpoint.config import CONFIG, read_json
    from labsupport.checkpoint.config_old import translate

    done = translate(read_json(folder / CONFIG))
    click.echo(json.dumps(done.config, indent=4))
    for change in done.changes or ["nothing to change: it follows today's schema"]:
        click.echo(change, err=True)


@click.command()
@click.argument("folder", type=_FOLDER)
@click.option("--reference", help="The model it was made from.  [default: work/checkpoints/<model>]")
@click.option("--no-execution", is_flag=True, help="Leave out the third check, which runs the model.")
@click.option("--tolerance", default=1e-4, show_default=True, help="Largest difference of any logit, in float32.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")
@click.pass_context
def verify(
    context: click.Context, folder: Path, reference: str | None, no_execution: bool, tolerance: float, as_json: bool
) -> None:
    """Prove a checkpoint: structure, the way back to the original's bytes, and logits. Exits with 1 at a fault."""
    from labsupport.checkpoint.verify import verify as check

    original = model_folder(reference, quiet=True) if reference else None
    verdict = check(folder, original, execution=not no_execution, tolerance=tolerance)
    click.echo(json.dumps(verdict.to_json(), indent=2) if as_json else verdict)
    context.exit(0 if verdict.passed else 1)


@click.command("convert")
@click.argument("source", required=False)
@click.option("--rounds", default=3, show_default=True, help="Runs of each way, in turn; medians are printed.")
@click.option("--size-gb", default=8.0, show_default=True, help="Size of the synthetic model; needs twice the disk.")
@click.option("--tp", default=1, show_default=True, help="Tensor-parallel ranks.")
@click.option("--only", type=click.Choice(["modelopt", "copy"]), help="One of the two comparisons.")
def bench_convert(source: str | None, rounds: int, size_gb: float, tp: int, only: str | None) -> None:
    """Conversion against ModelOpt's export of SOURCE, and against a plain copy of a large synthetic model."""
    from labsupport.checkpoint.convert_bench import against_copy, against_modelopt

    met = []
    if only != "copy":
        model = against_modelopt(model_folder(source, quiet=True), rounds=rounds)
        _print_comparison(model)
        alone = f"(without its imports: {model.time_ratio:.1f})"
        fast = f"at least 2 times as fast as ModelOpt, start to end: {model.process_ratio:.1f} times {alone}"
        met += [(fast, model.process_ratio >= 2)]
        met += [(f"peak memory below half of ModelOpt's: {model.peak_ratio:.2f} of it", model.peak_ratio < 0.5)]
    if only != "modelopt":
        copy = against_copy(size_gb, rounds=rounds, tp_size=tp)
        _print_comparison(copy)
        met += [(f"within 1.5 times the copy: {1 / copy.time_ratio:.2f} times", copy.time_ratio >= 1 / 1.5)]
        met += [(f"peak memory at most 2 GB: {copy.peak / 1e9:.2f} GB", copy.peak <= 2e9)]
    for sentence, ok in met:
        click.echo(f"{'met    ' if ok else 'NOT met'}  {sentence}")


def _print_comparison(found: Comparison) -> None:
    click.echo(found.what)
    for name, runs in (("ours", found.ours), ("theirs", found.theirs)):
        for run in runs:
            rate = found.bytes / run.work / 1e9
            click.echo(f"  {name:6}  work {run.work:7.2f} s ({rate:.2f} GB/s)  process {run.whole:7.2f} s"
                       f"  peak {run.peak / 1e6:7.0f} MB")  # fmt: skip
