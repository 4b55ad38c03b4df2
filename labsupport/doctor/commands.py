"""``labs doctor``: what this machine can do, and whether a model fits."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from labsupport.doctor import report
from labsupport.errors import ParameterError
from labsupport.workspace import repository_root

if TYPE_CHECKING:
    from labsupport.doctor.classroom import Figures


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--model", help="Memory verdict for this model: a known name, a model of the workspace, or a folder.")
@click.option("--gpu", help="For the verdict: 4090, a10g, l4, a100-40, a100-80, h100 or h200. Default: what is here.")
@click.option("--dtype", default="float16", show_default=True, help="float32, bfloat16, float16, fp8, int8 or int4.")
@click.option("--batch", default=8, show_default=True, help="Sequences at a time.")
@click.option("--length", type=int, help="Tokens a sequence, prompt and answer. Default: 2048, or the model's context.")
@click.option(
    "--classroom", type=int, is_flag=False, flag_value=20, metavar="N", help="Do N learners fit? Default: 20."
)
@click.option("--measure", is_flag=True, help="With --classroom: run the labs and measure here; takes minutes.")
def doctor(
    as_json: bool,
    model: str | None,
    gpu: str | None,
    dtype: str,
    batch: int,
    length: int | None,
    classroom: int | None,
    measure: bool,
) -> None:
    """What this machine can do, and how to mend what it cannot.

    Exits with 1 when something that `make run` needs is missing. With --model it answers whether the model fits
    instead, for example: labs doctor --model llama-2-7b --gpu 4090 --batch 12. With --classroom N it answers whether N
    learners can work on this machine at the same time, and exits with 1 when they cannot.
    """
    from labsupport.doctor.examine import examine, this_device

    if measure and classroom is None:
        raise ParameterError(
            "--measure without --classroom",
            why="it measures what a learner takes",
            fix="labs doctor --classroom 20 --measure",
        )
    if classroom is not None:
        _classroom(classroom, measure, as_json)
        return
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


def _classroom(learners: int, measure: bool, as_json: bool) -> None:
    from labsupport.doctor import classroom
    from labsupport.doctor.examine import this_room

    wanted = classroom.need(learners, figures := _measured() if measure else classroom.read_figures())
    rows = classroom.judge_room(wanted, figures, this_room())
    if as_json:
        told = {"need": asdict(wanted), "figures": asdict(figures), "rows": [row.as_dict() for row in rows]}
        click.echo(json.dumps(told, indent=2))
    else:
        lines = [line for row in rows for line in report.lines_of(row, max(len(one.name) for one in rows))]
        click.echo("\n".join([*lines, "", classroom.formula(wanted, figures)]))
    if any(row.state == "bad" for row in rows):
        raise SystemExit(1)


def _measured() -> Figures:
    from labsupport.doctor.classroom_measure import keep, measure

    labs = sorted((repository_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    figures = measure(labs)
    click.echo(f"measured in {len(labs)} labs; kept in {keep(figures)}", err=True)
    return figures
