"""``labs validate``, ``labs respond``, ``labs compare``, ``labs replay`` and ``labs trace``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from labsupport.models import DEFAULT_MODEL
from labsupport.models.loading import DTYPES

LEVELS = ("L0", "L1", "L2", "L3", "L4", "L5", "L6", "L7")
_FILE = click.Path(path_type=Path)
_REFERENCE = click.option(
    "--reference", default=DEFAULT_MODEL, show_default=True, help="The original model: a name or a folder."
)
_DTYPE = click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True,
                      help="Of the engine behind a server, which does not say it; an engine folder does.")  # fmt: skip


@click.command()
@click.argument("target")
@_REFERENCE
@click.option("--fast", is_flag=True, help="A small budget: a minute instead of five.")
@click.option("--all", "every", is_flag=True, help="Go on after a level that fails.")
@click.option("--level", "only", multiple=True, type=click.Choice(LEVELS), help="Only this level; repeatable.")
@_DTYPE
@click.option("--quantization", help="Of the engine behind a server, such as W8A16.")
@click.option("--run", "name", default="validate", show_default=True, help="Name that the seeds are derived from.")
@click.option("--json", "as_json", type=_FILE, help="Write the report as JSON.")
@click.option("--html", "as_html", type=_FILE, help="Write the report as one HTML file.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def validate(
    target: str, reference: str, fast: bool, every: bool, only: tuple[str, ...], dtype: str, quantization: str | None,
    name: str, as_json: Path | None, as_html: Path | None, quiet: bool,
) -> None:  # fmt: skip
    """Is TARGET right? It is an engine folder, a server's address, or hf:MODEL. Exit code 0 yes, 1 no, 2 undecided."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # reference and server share the cores: nobody is to spin
    from dataclasses import replace

    from labsupport.validation.diagnosis import guilty
    from labsupport.validation.ladder import steps
    from labsupport.validation.material import FAST, Budget, Material
    from labsupport.validation.opening import open_target, reference_for
    from labsupport.validation.report_text import conclusion_lines, level_lines
    from labsupport.validation.verdict import Report
    from labsupport.workspace import atomic_text

    def say(what: str) -> None:
        if not quiet:
            click.echo(f"  {what} ...", err=True)

    asked = open_target(target, reference, dtype, quantization)
    budget = replace(FAST if fast else Budget(), run=name)
    material = Material(asked, reference_for(asked, reference), budget, progress=say)
    levels = []
    for level in steps(material, every=every, only=only):
        levels.append(level)
        for line in level_lines(level):
            click.echo(line)
    report = Report(asked.facts.name, material.reference.name, tuple(levels))
    for line in conclusion_lines(report):
        click.echo(line)
    if guilty(report, material) not in (None, report.first_failure and report.first_failure.name):
        click.echo("  asked alone and from a cold cache, the same is right: look at the batch, the slots or the cache")
    if as_json:
        atomic_text(as_json, json.dumps(report.to_json(), indent=2) + "\n")
    if as_html:
        from labsupport.validation.report_html import validation_html

        atomic_text(as_html, validation_html(report))
    sys.exit(report.exit_code)


@click.command()
@click.argument("target")
@click.option("--prompts", type=_FILE, help="What to ask.  [default: data/prompts-lite.json]")
@click.option("-o", "--output", type=_FILE, help="Where to.  [default: work/runs/responses-<target>.jsonl]")
@_REFERENCE
@_DTYPE
def respond(target: str, prompts: Path | None, output: Path | None, reference: str, dtype: str) -> None:
    """Ask TARGET all variations of a file of prompts, and write responses.jsonl. TARGET as in labs validate."""
    from labsupport.models import load_tokenizer
    from labsupport.validation.opening import open_target
    from labsupport.validation.prompts import read_prompts, variations
    from labsupport.validation.responses import respond as answers
    from labsupport.validation.responses import write_responses
    from labsupport.workspace import Workspace, data_folder

    asked = read_prompts(prompts or data_folder() / "prompts-lite.json")
    opened = open_target(target, reference, dtype)
    lacks = ("presence_penalty",) if opened.facts.dialect == "hf" else ()
    name = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in opened.facts.name)
    path = output or Workspace.current().runs / f"responses-{name}.jsonl"
    count = write_responses(path, answers(opened, load_tokenizer(reference), variations(asked, lacks)))
    click.echo(path)
    click.echo(f"{count} responses of {opened.facts.name}", err=True)


@click.command()
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.option("--html", "as_html", type=_FILE, help="Write the same as one HTML file.")
def compare(first: Path, second: Path, as_html: Path | None) -> None:
    """Two files of responses side by side: is the template right, and is the output? Exit code 1 where they differ."""
    from labsupport.validation.compare import compare as pairs_of
    from labsupport.validation.compare import text_lines
    from labsupport.validation.report_html import compare_html
    from labsupport.validation.responses import read_responses
    from labsupport.workspace import atomic_text

    pairs = pairs_of(read_responses(first), read_responses(second))
    for line in text_lines(pairs):
        click.echo(line)
    if as_html:
        atomic_text(as_html, compare_html(pairs))
    sys.exit(any("differs" in (pair.template, pair.output) for pair in pairs) or not pairs)


@click.command()
@click.argument("target")
@click.argument("prompt", default="The capital of France is")
@click.option("--seed", default=42, show_default=True, type=click.IntRange(0, 2**64 - 1))
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--top-k", type=int)
@click.option("--top-p", default=0.9, show_default=True)
@click.option("--max-tokens", default=16, show_default=True)
@_REFERENCE
@_DTYPE
def replay(
    target: str, prompt: str, seed: int, temperature: float, top_k: int | None, top_p: float, max_tokens: int,
    reference: str, dtype: str,
) -> None:  # fmt: skip
    """Replay a seeded answer of TARGET token by token: the original model's logits, and the seed's random stream."""
    from labsupport.decoding import Settings
    from labsupport.validation.material import Material
    from labsupport.validation.opening import open_target, reference_for
    from labsupport.validation.replay import why_seeds_differ
    from labsupport.validation.scoring import softmax64
    from labsupport.validation.target import Ask

    opened = open_target(target, reference, dtype)
    material = Material(opened, reference_for(opened, reference))
    ask = Ask(prompt, max_tokens, material.spoken(Settings(temperature=temperature, top_k=top_k, top_p=top_p)), seed)
    [item] = material.scored("answer", [ask])
    for line in _replayed(item, material.reference.tokenizer):
        click.echo(line)
    probs = softmax64(material.reference.logits(item.prompt, item.answer.output_ids[:1]))[0]
    story = why_seeds_differ(probs.astype("float32"), seed)
    click.echo(f"\nThe first token, drawn {len(story.same_numbers)} times with seed {seed}:")
    words = material.reference.tokenizer
    for name, index in (("TensorRT-LLM, XORWOW, inverse CDF", 0), ("Hugging Face, torch, race", 1)):
        click.echo(f"  {name:34} {' '.join(repr(words.decode([pair[index]])) for pair in story.same_numbers)}")
    swapped = " ".join(repr(words.decode([pair[0]])) for pair in story.swapped)
    click.echo(f"  {'torch, read by the inverse CDF':34} {swapped}")


def _replayed(item: Any, words: Any) -> list[str]:
    ids, draws = item.answer.output_ids, item.draws
    if draws is None or (draws.replayed < 0).any():
        return ["nothing to replay: a greedy request, or a dialect whose random stream is not known"]
    lines = [
        f"{'✓' if not miss else '✗'} {words.decode([id])!r:16} the seed gives {words.decode([int(again)])!r}"
        for id, again, miss in zip(ids, draws.replayed, draws.miss, strict=True)
    ]
    return [*lines, f"{int((draws.miss == 0).sum())} of {len(ids)} tokens are those that seed {item.ask.seed} gives"]


@click.command()
@click.argument("source", required=False)
@click.option("--prompt", default="The capital of France is", show_default=True)
@click.option("--temperature", default=0.9, show_default=True)
@click.option("--top-p", default=0.95, show_default=True)
@click.option("--top-k", default=50, show_default=True)
@click.option("--repetition-penalty", default=1.1, show_default=True)
@click.option("--presence-penalty", type=float)
@click.option("--frequency-penalty", type=float)
@click.option("--min-tokens", type=int)
@click.option("--seed", default=2**63 + 1, show_default=True, type=click.IntRange(0, 2**64 - 1))
@click.option("--max-tokens", default=4, show_default=True)
@click.option("--protocol", type=click.Choice(["grpc", "http"]), default="grpc", show_default=True)
def trace(source: str | None, prompt: str, protocol: Any, **fields: Any) -> None:
    """Every number of a request as sent, as each model received it, and as the sampler uses it, with its bits.

    SOURCE is what labs serve takes; a traced copy of its repository is served for this one request.
    """
    from labsupport.serving import Client, Sampling
    from labsupport.serving.making import repository_for
    from labsupport.validation.trace import changed, stages, table, traced_server

    repository = repository_for(source, say=lambda line: click.echo(line, err=True))
    sent = {name: value for name, value in fields.items() if value is not None}
    with traced_server(repository) as (server, log), Client(server.address, protocol=protocol) as client:
        client.generate(prompt, Sampling(**sent))
        found = stages(log)
    rows = table(sent, found)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    wrong = changed(sent, found)
    click.echo(f"✗ {', '.join(wrong)}" if wrong else f"✓ all {len(sent)} numbers arrived with all of their bits")
    sys.exit(bool(wrong))
