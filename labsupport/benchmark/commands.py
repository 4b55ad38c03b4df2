"""``labs bench``: the group, with the measurements of the rooms before this one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labsupport.benchmark.catalogue import PEERS, PRECISIONS
from labsupport.benchmark.serve_commands import bench_agree, bench_compare, bench_generator, bench_serve
from labsupport.checkpoint.commands import bench_convert, model_folder
from labsupport.checkpoint.quantize.commands import bench_quantize
from labsupport.errors import BenchmarkError

if TYPE_CHECKING:
    from labsupport.benchmark.catalogue import Peer


@click.group()
def bench() -> None:
    """Measure, and print what was measured."""


bench.add_command(bench_convert, "convert")
bench.add_command(bench_quantize, "quantize")
bench.add_command(bench_serve, "serve")
bench.add_command(bench_compare, "compare")
bench.add_command(bench_generator, "generator")
bench.add_command(bench_agree, "agree")


@bench.command("engines")
@click.argument("source", required=False)
@click.option("--install", "to_install", is_flag=True, help="Install the engines of --peers first, each for itself.")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(PRECISIONS), help="Only these; repeatable.")
@click.option("--peers", help="Engines to run, joined by commas.  [default: all that are installed]")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Rounds; medians are printed.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1), help="Threads of each engine.")
@click.option("--read", "recorded", type=click.Path(path_type=Path), help="Print this result; measure nothing.")
@click.option("--chart", type=click.Path(path_type=Path), help="A picture of the decoding rates (PNG).")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")
def bench_engines(
    source: str | None,
    to_install: bool,
    precisions: tuple[str, ...],
    peers: str | None,
    rounds: int,
    threads: int,
    recorded: Path | None,
    chart: Path | None,
    as_json: bool,
) -> None:
    """Our engine beside others on SOURCE, in turn: prefill, decode, memory, and the share of this machine's limits."""
    from labsupport.benchmark.engines import Settings, measure
    from labsupport.benchmark.engines_compare import read_found
    from labsupport.benchmark.engines_text import lines
    from labsupport.benchmark.installing import install
    from labsupport.doctor.machine import read_cpu

    def say(what: str) -> None:
        click.echo(f"{what} ...", err=True)

    if recorded:
        found = read_found(recorded)
    else:
        named = chosen(peers)
        if to_install:
            for peer in named:
                say(f"install {peer.title}")
                install(peer)
        entries = entries_of(named, precisions or PRECISIONS, all_of_them=peers is not None)
        model = model_folder(source, quiet=True)
        asked = Settings(threads=threads, rounds=rounds)
        cpu = read_cpu()
        name = f"{cpu.model} ({', '.join(cpu.features)})"
        found = measure(model, entries, prompts(model, asked.prompt, rounds + 1), asked, cpu=name, progress=say)
    if chart:
        from labsupport.benchmark.charts import engines_chart

        chart.write_bytes(engines_chart(found).png())
    for text in [json.dumps(asdict(found), indent=2)] if as_json else lines(found):
        click.echo(text)


@bench.command("gpu")
@click.argument("shapes", nargs=-1)
@click.option("--batch", "batches", multiple=True, type=int, help="Sequences of a step.  [default: 1, 8 and 64]")
@click.option("--output", type=click.Path(path_type=Path), help="Where the recording is written, as JSON.")
def bench_gpu(shapes: tuple[str, ...], batches: tuple[int, ...], output: Path | None) -> None:
    """Our engine on this GPU, with random weights of the SHAPES (default: smollm2-135m-instruct and llama-3.1-8b)."""
    from tempfile import TemporaryDirectory

    from labsupport.benchmark.gpu_decode import measure
    from labsupport.engine.build import fingerprint_for
    from labsupport.workspace import Workspace, atomic_text

    fingerprint_for("cuda")
    root = Workspace.current().root
    root.mkdir(parents=True, exist_ok=True)
    names = shapes or ("smollm2-135m-instruct", "llama-3.1-8b")

    def keep(found: dict[str, Any]) -> None:
        if output:
            atomic_text(output, json.dumps(found, indent=2) + "\n")

    with TemporaryDirectory(dir=root) as place:
        measure(names, batches or (1, 8, 64), Path(place), lambda line: click.echo(line), keep)


@bench.command("overhead")
@click.argument("source", required=False)
@click.option("--prompts", default=20, show_default=True, type=click.IntRange(3), help="Asked on both sides.")
@click.option("--input-tokens", "given", default=64, show_default=True, type=click.IntRange(1))
@click.option("--output-tokens", "new", default=64, show_default=True, type=click.IntRange(2))
@click.option("--model", default="tensorrt_llm_bls", show_default=True, help="The served model that is asked.")
@click.option("--json", "as_json", is_flag=True, help="The runs as JSON, for programs.")
def bench_overhead(source: str | None, prompts: int, given: int, new: int, model: str, as_json: bool) -> None:
    """What serving costs: the engine of SOURCE in this process beside the same engine behind Triton, in turn.

    SOURCE is what `labs serve` takes.
    """
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # the side that rests must not spin on the other's cores
    from labsupport.benchmark.overhead import measure
    from labsupport.serving.making import repository_for

    def say(what: str) -> None:
        click.echo(f"{what} ...", err=True)

    found = measure(repository_for(source), prompts=prompts, given=given, new=new, model=model, progress=say)
    for text in [json.dumps(asdict(found), indent=2)] if as_json else found.lines():
        click.echo(text)


def chosen(names: str | None) -> list[Peer]:
    """The peers of a list joined by commas; all of them for None.

    Raises:
        BenchmarkError: no such peer.
    """
    wanted = names.split(",") if names else list(PEERS)
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise BenchmarkError(
            f"no engine {unknown[0]!r}",
            why="only engines with a script can be driven",
            fix="one of " + ", ".join(PEERS),
        )
    return [PEERS[name] for name in wanted]


def entries_of(peers: list[Peer], precisions: tuple[str, ...], *, all_of_them: bool) -> list[tuple[Peer, str]]:
    """Each precision with each peer that runs it; a peer that is not installed is left out, and named on stderr.

    Raises:
        BenchmarkError: nothing is left, or, with ``all_of_them``, one is not installed.
    """
    from labsupport.benchmark.installing import installed, require_installed

    for peer in peers:
        if all_of_them:
            require_installed(peer)
        elif not installed(peer):
            click.echo(
                f"left out: {peer.title} is not installed (labs bench engines --install --peers {peer.name})", err=True
            )
    ready = [peer for peer in peers if installed(peer)]
    entries = [(peer, one) for one in PRECISIONS if one in precisions for peer in ready if one in peer.precisions]
    if not entries:
        raise BenchmarkError(
            "no engine is left to run",
            why=f"none of {', '.join(peer.title for peer in peers)} is installed and runs {', '.join(precisions)}",
            fix="labs bench engines --install",
        )
    return entries


def prompts(model: Path, length: int, count: int) -> list[list[int]]:
    """``count`` pieces of the evaluation text, each of ``length`` tokens."""
    from labsupport.checkpoint.quantize.calibrate import read_pieces
    from labsupport.checkpoint.quantize.quality import TEXT
    from labsupport.workspace import data_folder

    pieces = read_pieces(model, data_folder() / TEXT, length, length * count)
    return [[int(token) for token in piece] for piece in pieces[:count]]
