"""``labs memory``: what fits a device, at which precision, tensor parallelism, batch and length, with the formula."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from labsupport.doctor.memory import POOL_FRACTION, PRECISIONS, Need, Plan, check_question, need
from labsupport.doctor.shapes import Device, Shape
from labsupport.engine.ledger import Source, check_tp, find_source, ledger, plan_for
from labsupport.errors import ParameterError
from labsupport.models.catalogue import DEFAULT_MODEL

RANKS = (1, 2, 4)


@click.command("memory")
@click.argument("model", default=DEFAULT_MODEL)
@click.option("--gpu", help="4090, a10g, l4, a100-40, a100-80, h100 or h200.  [default: what is here]")
@click.option("--memory", "gibibytes", type=float, help="Instead of --gpu: a GPU of so many GiB.")
@click.option("--dtype", help=f"{', '.join(PRECISIONS)}.  [default: the checkpoint's own, or float16]")
@click.option("--tp", type=int, help="GPUs that share the model.  [default: the checkpoint's own, or 1]")
@click.option("--batch", default=8, show_default=True, help="Sequences at a time.")
@click.option("--length", type=int, help="Tokens a sequence, prompt and answer.  [default: 2048, or the context]")
def memory(
    model: str,
    gpu: str | None,
    gibibytes: float | None,
    dtype: str | None,
    tp: int | None,
    batch: int,
    length: int | None,
) -> None:
    """What MODEL takes on a device: the ledger, the verdict, and what else would fit.

    MODEL is a known shape (llama-2-7b), a model of the workspace, or a folder: Hugging Face, checkpoint or engine.
    """
    source = find_source(model)
    device = _device(gpu, gibibytes)
    length = min(2048, source.shape.context) if length is None else length
    dtype, tp = dtype or source.precision or "float16", tp if tp is not None else source.tp or 1
    check_question(source.shape, dtype=dtype, batch=batch, length=length)
    check_tp(source.shape, tp)
    on_gpu = gpu is not None or gibibytes is not None or device.compute_capability is not None
    layout = {
        ranks: plan_for(source.build, gpu=on_gpu, tp=ranks, length=length) for ranks in ranks_of(source.shape, tp)
    }
    click.echo("\n".join(_lines(source, device, dtype, layout, tp, batch, length)))


def _device(gpu: str | None, gibibytes: float | None) -> Device:
    from labsupport.doctor.examine import this_device
    from labsupport.doctor.shapes import find_gpu

    if gpu is not None and gibibytes is not None:
        raise ParameterError("--gpu and --memory", why="each names a device", fix="give one of them")
    if gibibytes is not None:
        if gibibytes <= 0:
            raise ParameterError(f"--memory {gibibytes:g}", why="a GPU has more than that", fix="--memory 24")
        return Device(f"a GPU of {gibibytes:g} GiB", int(gibibytes * 1024), None, None)
    return find_gpu(gpu) if gpu else this_device()


def _lines(
    source: Source, device: Device, dtype: str, layout: dict[int, Plan], tp: int, batch: int, length: int
) -> Iterator[str]:
    shape, plan = source.shape, layout[tp]
    asked = need(shape, device, dtype, batch=batch, length=length, plan=plan)
    told = ledger(source, dtype, plan, batch=batch, length=length)
    each = "" if tp == 1 else f", on each of {tp}"
    yield f"{shape.title}, {dtype}, batch {batch} x {length} tokens, {device.title}{each}"
    yield ""
    for entry in told.entries:
        yield f"{entry.name:<12}{entry.bytes / 1e9:>9.3f} GB  = {entry.formula}"
    yield f"{'sum':<12}{told.total / 1e9:>9.3f} GB  of {device.memory_bytes / 1e9:.3f} GB"
    yield ""
    yield verdict(shape, device, asked, batch, length)
    yield ""
    borders = f"{f'largest batch at {length}':>23}{f'longest at batch {batch}':>22}"
    yield f"{'dtype':<10}{'TP':>3}{'GB each':>9}  {'fits':<5}{borders}"
    for name in PRECISIONS:
        for ranks, laid in layout.items():
            row = need(shape, device, name, batch=batch, length=length, plan=laid)
            fits = "yes" if row.fits else "no" if row.supported else "n/a"
            yield f"{name:<10}{ranks:>3}{row.total / 1e9:>9.2f}  {fits:<5}{row.largest_batch:>23,}{row.longest:>22,}"
    yield ""
    yield (
        f"The cache may take {POOL_FRACTION:.0%} of what the rest leaves. Activations and fixed are estimates; "
        "nothing was run."
    )


def ranks_of(shape: Shape, tp: int) -> Sequence[int]:
    """1, 2 and 4 where the heads divide, and what was asked."""
    fitting = []
    for ranks in sorted({*RANKS, tp}):
        try:
            check_tp(shape, ranks)
        except ParameterError:
            continue
        fitting.append(ranks)
    return fitting


def verdict(shape: Shape, device: Device, asked: Need, batch: int, length: int) -> str:
    """Fits or not, and where the border runs."""
    if not asked.supported:
        return f"n/a: {device.title} has no {asked.precision} arithmetic."
    if asked.pool <= 0:
        return f"Does not fit: weights, activations and the fixed part alone are beyond {device.title}."
    room = f"the cache has room for {asked.tokens:,} tokens, {batch * length:,} are asked"
    border = (
        f"Largest batch at {length} tokens: {asked.largest_batch}. Longest sequence at batch {batch}: {asked.longest:,}"
        f"{', the context of the model' if asked.longest == shape.context else ''}."
    )
    return f"{'Fits' if asked.fits else 'Does not fit'}: {room}. {border}"
