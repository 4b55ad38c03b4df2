"""``labs bench serve``, ``labs bench compare`` and ``labs bench generator``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labsupport.errors import ParameterError

if TYPE_CHECKING:
    from labsupport.benchmark.serve import Plan
    from labsupport.benchmark.served import Point, Share
    from labsupport.benchmark.target import Target

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("target", required=False)
@click.option("--concurrency", multiple=True, type=int, help="Users of a closed loop; repeatable.  [default: 1]")
@click.option("--rate", multiple=True, type=float, help="Requests a second of an open loop (Poisson); repeatable.")
@click.option("--requests", type=int, help="Requests of each level.  [default: 50]")
@click.option("--seconds", type=float, help="Instead of --requests: send for so long.")
@click.option("--warmup", default=5, show_default=True, help="Requests before each level that are not counted.")
@click.option("--input-tokens", "inputs", default="64", show_default=True, help="64, 32-128 or 64~16.")
@click.option("--output-tokens", "outputs", default="32", show_default=True, help="Likewise.")
@click.option("--trace", type=_FILE, help="JSON lines with input_length, output_length, timestamp: a replay.")
@click.option("--let-end", is_flag=True, help="Let the end token end an answer; without it lengths are as asked.")
@click.option("--slo", "objectives", multiple=True, help="ttft=500, itl=50 or latency=2000, in ms; repeatable.")
@click.option("--protocol", type=click.Choice(["grpc", "http"]), default="grpc", show_default=True)
@click.option("--model", default="ensemble", show_default=True, help="Whom to ask; tensorrt_llm gets token ids.")
@click.option("--tokenizer", type=_FILE, help="The model's tokenizer folder.  [default: the target's own]")
@click.option("--roofline", type=_FILE, help="The engine or checkpoint that this machine serves.")
@click.option("--seed", default=0, show_default=True, help="Of lengths, prompts and arrival times.")
@click.option("--output", type=_FILE, help="The result as JSON, timelines included.  [default: work/runs/serve.json]")
@click.option("--chart", type=_FILE, help="A picture of the result (PNG): throughput against latency.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON instead of tables.")
def bench_serve(
    target: str | None, protocol: str, model: str, tokenizer: Path | None, roofline: Path | None, output: Path | None,
    chart: Path | None, as_json: bool, let_end: bool, **asked: Any,
) -> None:  # fmt: skip
    """Load TARGET and measure what its users see: latencies, rates and goodput, each with its interval.

    TARGET is HOST:PORT of a Triton server (default: TRITON_URL), a model repository, which is served for the time of
    the test, or one of our engine folders, which runs in this process.
    """
    from labsupport.benchmark.serve import measure
    from labsupport.benchmark.served_text import lines
    from labsupport.doctor.machine import read_cpu
    from labsupport.workspace import Workspace, atomic_text

    plan = plan_of(fixed=not let_end, **asked)
    with opened(target, protocol, model, tokenizer, plan) as (who, words, engine):
        found = measure(
            who, plan, words, cpu=read_cpu().model, settings=_settings(plan, asked), limit=_limit(roofline or engine),
            progress=lambda what: click.echo(f"{what} ...", err=True),
        )  # fmt: skip
    atomic_text(output or Workspace.current().runs / "serve.json", found.model_dump_json(indent=1) + "\n")
    if chart:
        from labsupport.benchmark.charts import chart_of

        chart.write_bytes(chart_of(found).png())
    for text in [found.model_dump_json(indent=1)] if as_json else lines(found):
        click.echo(text)


def plan_of(
    *, concurrency: tuple[int, ...], rate: tuple[float, ...], requests: int | None, seconds: float | None, warmup: int,
    inputs: str, outputs: str, trace: Path | None, objectives: tuple[str, ...], seed: int, fixed: bool,
) -> Plan:  # fmt: skip
    """The plan that the options ask for.

    Raises:
        ParameterError: they contradict each other.
    """
    from labsupport.benchmark.arrivals import Arrivals, Closed, Poisson, Replay
    from labsupport.benchmark.serve import Plan
    from labsupport.benchmark.workload import Lengths, read_trace

    loads: list[Arrivals] = [*map(Closed, concurrency), *map(Poisson, rate)]
    shapes = read_trace(trace) if trace else None
    if requests is None and seconds is None:
        requests = len(shapes) if shapes else 50
    if not loads:
        loads = [Replay() if shapes and shapes[0][2] is not None else Closed(1)]
    return Plan(
        loads, requests, seconds, warmup, Lengths.parse(inputs), Lengths.parse(outputs), shapes, fixed,
        slo_of(objectives), seed,
    )  # fmt: skip


def slo_of(texts: tuple[str, ...]) -> Any:
    """``ttft=500`` and the like, in milliseconds.

    Raises:
        ParameterError: another name, or no number.
    """
    from labsupport.benchmark.timeline import Slo

    limits = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            limits[name] = float(value) / 1000
            if name not in ("ttft", "itl", "latency"):
                raise ValueError
        except ValueError:
            raise ParameterError(
                f"{text!r} is no objective", why="it needs a metric and milliseconds", fix="--slo ttft=500 --slo itl=50"
            ) from None
    return Slo(**limits)


@contextmanager
def opened(
    target: str | None, protocol: str, model: str, tokenizer: Path | None, plan: Plan
) -> Iterator[tuple[Target, Path, Path | None]]:
    """The target, its tokenizer's folder, and its engine where it lies on this machine; a repository is served.

    Raises:
        ParameterError: there is no such folder, or the tokenizer of a server elsewhere was not named.
        ServerError: the server does not start, or is not there.
    """
    from labsupport.benchmark.target_triton import GrpcTarget, HttpTarget
    from labsupport.serving import Address, Server
    from labsupport.workspace import Workspace

    ask = GrpcTarget if protocol == "grpc" else HttpTarget
    folder = Path(target or "").expanduser()
    shelf = Workspace.current().checkpoints
    if target and (folder / "config.json").is_file():
        from labsupport.benchmark.target_engine import EngineTarget

        words = tokenizer or shelf / folder.resolve().parent.name
        yield EngineTarget(folder, end_ids=() if plan.fixed else _ends(words)), words, folder
    elif target and (folder / "ensemble").is_dir():
        own = next(folder.glob("_assets/*/tokenizer/tokenizer.json"), None)
        engine = next(folder.glob("_assets/*/engines/**/config.json"), None)
        with Server(folder) as server:
            yield (ask(server.address, model, ignore_end=plan.fixed), tokenizer or (own.parent if own else folder),
                   engine.parent if engine else None)  # fmt: skip
    else:
        path = target and "/" in target.removeprefix("http://").rstrip("/")
        address = None if path else Address.parse(target) if target else Address.from_environment()
        if address is None:
            raise ParameterError(
                f"{target} is neither a server nor a folder" if target else "no target",
                why="an engine folder has a config.json, and a model repository a folder ensemble",
                fix="labs bench serve 127.0.0.1:8000, or the folder of labs build or labs assemble",
            )
        if tokenizer is None:
            raise ParameterError(
                "the tokenizer of a running server is not known here",
                why="prompts are cut to their length with the model's own tokenizer",
                fix="--tokenizer work/checkpoints/MODEL",
            )
        yield ask(address, model, ignore_end=plan.fixed), tokenizer, None


def _ends(tokenizer: Path) -> tuple[int, ...]:
    from labsupport.models import load_tokenizer

    end = load_tokenizer(str(tokenizer)).eos_token_id
    return () if end is None else (int(end),)


def _limit(folder: Path | None) -> Callable[[Point], Share] | None:
    """Shares of this machine's limits, which are measured once the load is over."""
    if folder is None:
        return None
    from labsupport.benchmark.machine import measure_limits
    from labsupport.benchmark.traffic import traffic_of

    traffic, slots = traffic_of(folder)
    measured: list[Any] = []

    def share(one: Point) -> Share:
        if not measured:
            measured.append(measure_limits(threads=_threads()))
        return traffic.share(one, measured[0], slots)

    return share


def _threads() -> int:
    """Threads that an engine uses here: the machine's cores."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _settings(plan: Plan, asked: dict[str, Any]) -> dict[str, object]:
    kept = {"requests": plan.requests, "seconds": plan.seconds, "warm-up": plan.warm_up, "seed": plan.seed,
            "tokens in": asked["inputs"], "tokens out": asked["outputs"], "fixed length": plan.fixed}  # fmt: skip
    if asked["trace"]:
        kept |= {"trace": Path(asked["trace"]).name, "tokens in": None, "tokens out": None}
    return {name: value for name, value in kept.items() if value is not None}


@click.command()
@click.argument("old", type=_FILE)
@click.argument("new", type=_FILE)
@click.option("--tolerance", default=0.1, show_default=True, help="A ratio may be so much worse before it counts.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")
def bench_compare(old: Path, new: Path, tolerance: float, as_json: bool) -> None:
    """Compare two results by ratio, NEW by OLD; exit 1 on a regression beyond the tolerance.

    Both are of labs bench serve, or both of labs bench engines: there our engine is held against the others of its run.
    """
    from labsupport.benchmark.compare import lines
    from labsupport.benchmark.engines_compare import compare_files

    found = compare_files(old, new, tolerance)
    for text in [json.dumps(asdict(found), indent=2)] if as_json else lines(found):
        click.echo(text)
    if found.regressions:
        sys.exit(1)


@click.command()
@click.option("--users", default=8, show_default=True, help="Streams at once.")
@click.option("--requests", default=200, show_default=True, help="Streams of 128 tokens, for each protocol.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, for programs.")
def bench_generator(users: int, requests: int, as_json: bool) -> None:
    """What the load generator itself can take in, from a server that answers at once."""
    from labsupport.benchmark.generator import capacity

    found = [capacity(protocol, users, requests) for protocol in ("grpc", "http")]
    if as_json:
        click.echo(json.dumps([asdict(one) | {"per_token": one.per_token} for one in found], indent=2))
        return
    for one in found:
        click.echo(
            f"{one.protocol}: {one.rate:,.0f} tokens/s in {one.users} streams, {one.cores:.2f} cores, "
            f"{one.per_token * 1e6:.0f} us of CPU for a token ({one.tokens:,} tokens)"
        )


@click.command()
@click.argument("repository", type=_FILE)
@click.option("--install", "to_install", is_flag=True, help="Install AIPerf first, in a Python of its own.")
@click.option("--users", default=2, show_default=True, type=click.IntRange(1), help="Users of the closed loop.")
@click.option("--requests", default=30, show_default=True, type=click.IntRange(1), help="Requests.")
@click.option("--input-tokens", "given", default=64, show_default=True, type=click.IntRange(1))
@click.option("--output-tokens", "new", default=32, show_default=True, type=click.IntRange(2))
@click.option("--model", default="ensemble", show_default=True)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1), help="Runs of each tool, in turn.")
@click.option("--output", type=_FILE, help="The rounds as JSON, with versions and machine.")
def bench_agree(
    repository: Path, to_install: bool, users: int, requests: int, given: int, new: int, model: str, rounds: int,
    output: Path | None,
) -> None:  # fmt: skip
    """Serve REPOSITORY and measure it with this load generator and with NVIDIA's AIPerf: do the two agree?"""
    from labsupport.benchmark.aiperf import AIPERF, agree, lines
    from labsupport.benchmark.installing import install
    from labsupport.doctor.machine import read_cpu
    from labsupport.serving import Server
    from labsupport.workspace import atomic_text

    if to_install:
        install(AIPERF)
    words = next(repository.glob("_assets/*/tokenizer/tokenizer.json"), repository / "tokenizer.json").parent
    with Server(repository) as server:
        for found in agree(
            server.address, model, words.resolve(), users=users, requests=requests, given=given, new=new, rounds=rounds,
            cpu=read_cpu().model, server="/".join(repository.resolve().parts[-2:]),
            progress=lambda what: click.echo(f"{what} ...", err=True),
        ):  # fmt: skip
            if output:
                atomic_text(output, found.model_dump_json(indent=1) + "\n")
    for text in lines(found):
        click.echo(text)
