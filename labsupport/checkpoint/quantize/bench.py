"""All recipes side by side on one model: what each saves, and what it costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from labsupport.checkpoint.convert import convert
from labsupport.checkpoint.convert_plan import Options
from labsupport.checkpoint.network import load_network
from labsupport.checkpoint.quantize.calibrate import read_pieces
from labsupport.checkpoint.quantize.cost import Cost, cost
from labsupport.checkpoint.quantize.quality import LENGTH, TEXT, Judge, Quality
from labsupport.checkpoint.quantize.quantize import quantize_model
from labsupport.checkpoint.quantize.recipes import QuantizeOptions
from labsupport.workspace import Workspace, atomic_text, data_folder

SWEEP = (
    QuantizeOptions("full_prec"),
    QuantizeOptions("int8_wo"),
    QuantizeOptions("int8_wo", quantize_lm_head=True),
    QuantizeOptions("int8_gptq"),
    QuantizeOptions("fp8"),
    QuantizeOptions("int8_sq"),
    QuantizeOptions("int8_sq", alpha=0.5),
    QuantizeOptions("int4_awq"),
    QuantizeOptions("int4_rtn"),
    QuantizeOptions("int4_wo"),
    QuantizeOptions("full_prec", "fp8"),
    QuantizeOptions("full_prec", "int8"),
)
FEWEST = 4096  # tokens, for the bars


@dataclass(frozen=True)
class Row:
    """One recipe on one model.

    Args:
        name: the recipe, with its group, its alpha and its KV cache.
        quality: against the float32 model.
        cost: in bytes.
        seconds: to make the checkpoint; 0 where it was there already.
    """

    name: str
    quality: Quality
    cost: Cost
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """All recipes on one model.

    Args:
        model: its name.
        perplexity: of the float32 model on the same text.
        rows: in the order asked for.
    """

    model: str
    perplexity: float
    rows: tuple[Row, ...]

    def kl(self, recipe: str) -> float:
        """Mean divergence of the first row of that recipe."""
        return next(row.quality.kl_mean for row in self.rows if row.name.split()[0] == recipe)


def sweep(
    model: Path,
    options: Sequence[QuantizeOptions] = SWEEP,
    *,
    tokens: int = FEWEST,
    text: Path | None = None,
    progress: Callable[[str], object] = lambda name: None,  # noqa: ARG005
    report: Callable[[Row], object] = lambda row: None,  # noqa: ARG005
) -> Sweep:
    """Make every checkpoint that is missing, run it over the evaluation text, and write ``work/runs/quantize-*.json``.

    Args:
        model: a Hugging Face folder with a tokenizer.
        tokens: how many to run at most, in windows of 512.
        text: the text to run; that in ``data/`` where missing.
        progress: called with the name of each recipe as it begins.
        report: called with each row as soon as it is measured.

    Raises:
        ParameterError: the text has fewer tokens, or a recipe does not fit the model.
        CheckpointError: the model cannot be read or calibrated.
    """
    windows = read_pieces(model, text or data_folder() / TEXT, min(LENGTH, tokens), tokens)[: max(1, tokens // LENGTH)]
    progress("float32")
    judge = Judge(convert(model, Options("float32")).folder, windows)
    rows = []
    for one in options:
        progress(named(one))
        made = quantize_model(model, one)
        quality = judge.measure(load_network(made.folder))
        group = f" g{made.config.quantization.group_size}" if one.chosen.grouped else ""
        seconds = 0.0 if made.skipped else made.seconds
        rows.append(Row(named(one) + group, quality, cost(made.folder, made.config), seconds))
        report(rows[-1])
    found = Sweep(model.name, judge.perplexity, tuple(rows))
    atomic_text(Workspace.current().runs / f"quantize-{model.name}.json", json.dumps(asdict(found), indent=2) + "\n")
    return found


def named(options: QuantizeOptions) -> str:
    """The recipe with what is not its default, for example ``int8_sq alpha 0.5`` or ``full_prec kv int8``."""
    name = options.recipe + (" head" if options.quantize_lm_head else "")
    if options.recipe == "int8_sq":
        name += f" alpha {options.alpha:g}"
    return name if options.kv_cache == "none" else f"{name} kv {options.kv_cache}"


HEAD = (
    f"{'recipe':22}{'bits':>6}{'KL mean':>11}{'KL p99.9':>10}{'top-1':>8}{'ppl':>8}"
    f"{'disk MB':>9}{'read MB':>9}{'KV B/token':>12}"
)


def line(row: Row) -> str:
    """A row of the table under ``HEAD``."""
    q, c = row.quality, row.cost
    return (
        f"{row.name:22}{c.bits:6.2f}{q.kl_mean:11.6f}{q.kl_p999:10.4f}{100 * q.agreement:7.2f}%{q.perplexity:8.3f}"
        f"{c.disk / 1e6:9.1f}{c.read / 1e6:9.1f}{c.cache:12,}"
    )


def bars(found: Sweep) -> list[tuple[str, bool]]:
    """What is asked of the recipes that were run, and whether it holds; of two W8A16 recipes the better is judged."""
    names = {row.name.split()[0] for row in found.rows}
    judged = []
    if eight := names & {"int8_wo", "int8_gptq"}:
        best = min(eight, key=found.kl)
        judged.append((f"W8A16 ({best}): mean KL at most 1e-3: {found.kl(best):.2e}", found.kl(best) <= 1e-3))
    if {"int4_rtn", "int4_awq"} <= names:
        ratio = found.kl("int4_rtn") / found.kl("int4_awq")
        judged.append((f"int4_awq: mean KL at least 1.5 times below int4_rtn's: {ratio:.2f} times", ratio >= 1.5))
    return judged


def caption(found: Sweep) -> str:
    """What the table was measured on."""
    count = found.rows[0].quality.tokens
    return f"{found.model}, {count:,} tokens of data/{TEXT}; float32 has perplexity {found.perplexity:.3f}"
