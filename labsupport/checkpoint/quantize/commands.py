"""``labs quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from labsupport.checkpoint.quantize.quantize import QuantizedCheckpoint
    from labsupport.checkpoint.quantize.recipes import KvCache, QuantizeOptions

_FOLDER = click.Path(path_type=Path)
# a test holds it to RECIPES
_RECIPES = ("full_prec", "int8_wo", "int8_gptq", "int4_wo", "int4_rtn", "int4_awq", "int8_sq", "fp8")


@click.command()
@click.argument("source", required=False)
@click.option("--recipe", type=click.Choice(_RECIPES), default="int8_wo", show_default=True, help="See --list.")
@click.option("--kv-cache", type=click.Choice(["none", "int8", "fp8"]), default="none", show_default=True)
@click.option("--group", type=int, help="Inputs that share a scale.  [default: the most, up to 128, that divide]")
@click.option("--alpha", default=1.0, show_default=True, help="SmoothQuant: how much of an outlier the weights take.")
@click.option("--dtype", default="auto", show_default=True, help="Of what stays unquantized; auto: 16 bits.")
@click.option("--tp", default=1, show_default=True, help="Tensor-parallel ranks.")
@click.option("--pp", default=1, show_default=True, help="Pipeline stages.")
@click.option("--quantize-lm-head", is_flag=True, help="The head too; for weight-only recipes without groups.")
@click.option("--text", type=_FOLDER, help="Calibration text.  [default: data/texts/calibration.txt]")
@click.option("--output", type=_FOLDER, help="The folder to write.  [default: work/trt_checkpoints/<model>/<recipe>]")
@click.option("--real-stack", is_flag=True, help="Print TensorRT-LLM's own calls for the same, and write nothing.")
@click.option("--list", "listed", is_flag=True, help="Print the recipes.")
@click.option("--force", is_flag=True, help="Make it again, and replace OUTPUT whatever it is.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def quantize(
    source: str | None,
    recipe: str,
    kv_cache: KvCache,
    group: int | None,
    alpha: float,
    dtype: str,
    tp: int,
    pp: int,
    quantize_lm_head: bool,
    text: Path | None,
    output: Path | None,
    real_stack: bool,
    listed: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Write a TensorRT-LLM checkpoint of fewer bits, and print its folder.

    SOURCE is a model (labs models), a hub id or a Hugging Face folder. What it costs in quality: labs bench quantize.
    """
    from labsupport.checkpoint.commands import model_folder
    from labsupport.checkpoint.quantize.recipes import RECIPES, QuantizeOptions

    if listed:
        for one in RECIPES.values():
            click.echo(f"{one.name:10} W{one.weights}A{one.activations:<3} {one.algo or '-':20} {one.what}")
        return
    options = QuantizeOptions(recipe, kv_cache, group, alpha, dtype, tp, pp, quantize_lm_head)
    folder = model_folder(source, quiet=quiet)
    if real_stack:
        _print_real_stack(folder, options, output)
        return
    from labsupport.checkpoint.quantize.quantize import quantize_model

    def progress(stage: str) -> None:
        if not quiet:
            click.echo(f"{stage} ...", err=True)

    done = quantize_model(folder, options, output=output, text=text, force=force, progress=progress)
    click.echo(done.folder)
    _say(done, quiet=quiet)


def _say(done: QuantizedCheckpoint, *, quiet: bool) -> None:
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    if quiet:
        return
    quantization = done.config.quantization
    kinds = [quantization.quant_algo or "weights in full", f"{done.config.mapping.files} rank(s)"]
    kinds += [f"groups of {quantization.group_size}"] if quantization.quant_algo == "W4A16_AWQ" else []
    kinds += ["the head too"] if quantization.exclude_modules == () else []
    kinds += [f"KV cache {quantization.kv_cache_quant_algo}"] if quantization.kv_cache_quant_algo else []
    kinds += [f"calibrated on {done.calibration_tokens:,} tokens"] if done.calibration_tokens else []
    kinds += ["made before from the same files and options" if done.skipped else f"{done.seconds:.1f} s"]
    click.echo(", ".join(kinds), err=True)


def _print_real_stack(folder: Path, options: QuantizeOptions, output: Path | None) -> None:
    from labsupport.checkpoint.quantize.quantize import planned
    from labsupport.checkpoint.quantize.real_stack import quantize_calls

    config, default = planned(folder, options)
    calls = quantize_calls(options, config, folder, (output or default).with_name(default.name + "-tensorrt_llm"))
    for call in calls:
        click.echo(call.line)
        for note in call.notes:
            click.echo(f"  {note}")
    if not calls:
        click.echo(f"TensorRT-LLM's scripts do not make {options.recipe}; a checkpoint of ours loads all the same")
    click.echo("not run here: it needs the container of TensorRT-LLM", err=True)


@click.command()
@click.argument("source", required=False)
@click.option("--tokens", default=4096, show_default=True, help="Tokens to run, of data/texts/evaluation.txt.")
@click.option("--recipe", "only", multiple=True, type=click.Choice(_RECIPES), help="Only these; may be repeated.")
def bench_quantize(source: str | None, tokens: int, only: tuple[str, ...]) -> None:
    """What each recipe saves and costs on SOURCE: KL to the float model, agreement, perplexity, bytes.

    Exit code 1 when a bar is not met: W8A16 loses at most 1e-3 nats, int4 AWQ 1.5 times less than plain rounding.
    """
    from labsupport.checkpoint.commands import model_folder
    from labsupport.checkpoint.quantize.bench import HEAD, SWEEP, bars, caption, line, sweep

    options = [one for one in SWEEP if not only or one.recipe in only]
    folder = model_folder(source, quiet=True)
    click.echo(HEAD)
    found = sweep(
        folder,
        options,
        tokens=tokens,
        progress=lambda name: click.echo(f"{name} ...", err=True),
        report=lambda row: click.echo(line(row)),
    )
    click.echo(caption(found))
    judged = bars(found)
    for sentence, met in judged:
        click.echo(f"{'met    ' if met else 'NOT met'}  {sentence}")
    if not all(met for _, met in judged):
        raise click.exceptions.Exit(1)
