"""The doctor's findings as text: the table of the machine, and the memory verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from labsupport.doctor.memory import POOL_FRACTION, Need, Verdict, weight_bytes
from labsupport.doctor.rows import Row

SIGNS = {"ok": "ok  ", "note": "note", "bad": "BAD "}


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text; under each row that is not ok stands its mend."""
    width = max(len(row.name) for row in rows)
    lines = [line for row in rows for line in lines_of(row, width)]
    bad = [row.name for row in rows if row.state == "bad"]
    notes = sum(row.state == "note" for row in rows)
    lines.append("")
    lines.append(f"`make run` lacks: {', '.join(bad)}." if bad else "`make run` has what it needs here.")
    if notes:
        lines.append(f"{notes} note{'s' if notes > 1 else ''}: wanted later, or only by some labs.")
    return "\n".join(lines)


def lines_of(row: Row, width: int = 0) -> list[str]:
    """One row as text, its name padded to ``width``, and its mend on a line of its own."""
    width = max(width, len(row.name))
    line = f"{SIGNS[row.state]}  {row.name:<{width}}  {row.found}  · for {row.needed_for}"
    return [line, f"{'':<{width + 8}}mend: {row.mend}"] if row.mend else [line]


def summary(verdict: Verdict) -> str:
    """The verdict in one sentence or two."""
    asked, name = verdict.asked, verdict.asked.precision
    head = (
        f"{verdict.shape.title} in {name} needs {_gb(asked.weights)} GB of weights + {_gb(asked.kv)} GB of KV cache "
        f"(batch {verdict.batch} x length {verdict.length}) + {_gb(asked.activations + asked.fixed)} GB reserve"
    )
    if not asked.supported:
        return f"{head}: {verdict.device.title} has no {name} arithmetic. {_alternatives(verdict)}"
    if asked.fits:
        return f"{head}: fits {verdict.device.title}; the cache has room for {asked.tokens:,} tokens in all."
    return f"{head}: does not fit {verdict.device.title}. {_reason(verdict)} {_alternatives(verdict)}"


def _reason(verdict: Verdict) -> str:
    asked = verdict.asked
    if asked.pool <= 0:
        return "The weights and the reserve alone are too big for it."
    wanted = verdict.batch * verdict.length
    return f"The weights alone fit; what does not is the cache: room for {asked.tokens:,} tokens, {wanted:,} asked."


def _alternatives(verdict: Verdict) -> str:
    fitting = [other.precision for other in verdict.others if other.fits]
    if fitting:
        return f"At the same batch and length it does fit as: {', '.join(fitting)}."
    return "No smaller format fits at this batch and length either."


def explain(verdict: Verdict) -> str:
    """The verdict with its figures: every format, what would fit, the build, and what is estimated."""
    device, shape = verdict.device, verdict.shape
    return "\n".join(
        [
            summary(verdict),
            "",
            *_grid(verdict),
            "",
            f"Device: {device.title}, {device.memory_mib} MiB = {_gb(device.memory_bytes)} GB. "
            f"The cache may take {POOL_FRACTION:.0%} of what weights and reserve leave.",
            f"Cache: {verdict.asked.kv_per_token / 1024:,.0f} KiB a token = 2 x {shape.layers} layers x "
            f"{shape.kv_heads} KV heads x {shape.head_size} x bytes.",
            *([] if device.compute_capability is None else _build(verdict)),
            "Weights and cache are exact arithmetic. Activations and the fixed 1 GB are estimates; nothing was run.",
        ]
    )


def _build(verdict: Verdict) -> list[str]:
    sixteen = weight_bytes(verdict.shape, "float16")
    return [
        f"While building: host RAM at least {_gb(verdict.build.host)} GB (two copies of the 16-bit weights), "
        f"GPU about {_gb(verdict.build.device)} GB.",
        f"Calibrated formats (AWQ, SmoothQuant, FP8) first hold the 16-bit model on the GPU: {_gb(sixteen)} GB "
        "before the first calibration batch.",
    ]


def _grid(verdict: Verdict) -> list[str]:
    lines = [
        f"{'GB':<9}{'weights':>8}{'cache':>8}{'reserve':>8}{'sum':>8}  {'fits':<5}"
        f"{'tokens':>10}{f'length at {verdict.batch}':>14}{f'batch at {verdict.length}':>15}{'tok/s limit':>13}"
    ]
    for item in (verdict.asked, *verdict.others):
        fits = "yes" if item.fits else "no" if item.supported else "n/a"
        limit = f"{item.ceiling:.0f}" if item.ceiling else "-"
        sizes = (item.weights, item.kv, item.activations + item.fixed, item.total)
        lines.append(
            f"{item.precision:<9}{''.join(f'{_gb(size):>8}' for size in sizes)}  {fits:<5}"
            f"{item.tokens:>10,}{item.longest:>14,}{item.largest_batch:>15,}{limit:>13}"
        )
    lines.append("tok/s limit: one sequence, bandwidth / bytes of weights; no measurement")
    return lines


def verdict_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict for ``--json``; sizes in bytes."""

    def flat(item: Need) -> dict[str, Any]:
        return {**asdict(item), "total": item.total, "fits": item.fits}

    return {
        "model": asdict(verdict.shape),
        "device": asdict(verdict.device),
        "batch": verdict.batch,
        "length": verdict.length,
        "summary": summary(verdict),
        "asked": flat(verdict.asked),
        "others": [flat(other) for other in verdict.others],
        "build": asdict(verdict.build),
    }


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f}" if count < 9.995e9 else f"{count / 1e9:.1f}"
