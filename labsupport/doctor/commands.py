"""``labs doctor``: what this machine can do, and whether a model fits."""

from __future__ import annotations

import json

import click

from labsupport.doctor import report
from labsupport.errors import ParameterError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--model", help="Memory verdict for this model: a known name, a model of the workspace, or a folder.")
@click.option("--gpu", help="For the verdict: 4090, a10g, l4, a100-40, a100-80, h100 or h200. Default: what is here.")
@click.option("--dtype", default="float16", show_default=True, help="float32, bfloat16, float16, fp8, int8 or int4.")
@click.option("--batch", default=8, show_default=True, help="Sequences at a time.")
@click.option("--length", type=int, help="Tokens a sequence, prompt and answer. Default: 2048, or the model's context.")
def doctor(as_json: bool, model: str | None, gpu: str | None, dtype: str, batch: int, length: int | None) -> None:
    """What this machine can do, and how to mend what it cannot.

    Exits with 1 when something that `make run` needs is missing. With --model it answers whether the model fits
    instead, for example: labs doctor --model llama-2-7b --gpu 4090 --batch 12
    """
    from labsupport.doctor.examine import examine, this_device

    if gpu is not None and model is None:
        raise ParameterError(
            f"--gpu {gpu} without a model",
            why="the GPU is for the memory verdict, and that is about one model",
            fix=f"labs doctor --model llama-2-7b --gpu {gpu}",
        )
    if model is not None:
        from labsupport.doctor.memory import judge
        from labsupport.doctor.shapes import find_gpu, find_shape

        shape = find_shape(model)
        device = find_gpu(gpu) if gpu else this_device()
        verdict = judge(
            shape, device, dtype=dtype, batch=batch, length=min(2048, shape.context) if length is None else length
        )
        click.echo(json.dumps(report.verdict_dict(verdict), indent=2) if as_json else report.explain(verdict))
        return
    rows = examine()
    click.echo(json.dumps([row.as_dict() for row in rows], indent=2) if as_json else report.table(rows))
    if any(row.state == "bad" for row in rows):
        raise SystemExit(1)
