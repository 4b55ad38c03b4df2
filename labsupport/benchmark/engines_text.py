"""The tables of ``labs bench engines``."""

from __future__ import annotations

from labsupport.benchmark.catalogue import RELATED
from labsupport.benchmark.engines import Found, Row, Spread
from labsupport.benchmark.limits import Work

HEAD = (
    f"{'engine':24}{'':5}{'prefill tok/s':>18}{'decode tok/s':>20}{'of limit':>9}{'load s':>8}{'first s':>8}"
    f"{'peak MB':>9}{'others':>8}{'same':>6}  first tokens"
)


def lines(found: Found) -> list[str]:
    """The machine, a line for each engine and precision, ratios, and what is doubtful."""
    work, limits, asked = Work(found.weights), found.limits, found.settings
    text = [
        f"{found.model}: {found.weights / 1e6:.1f} M weights a token; {found.cpu}, {asked.threads} threads, batch 1, "
        f"{asked.prompt} tokens in, {asked.new} out, {asked.rounds} rounds in turn: median (lowest-highest)",
        f"limits measured in this run: {limits.read / 1e9:.1f} GB/s read (median {limits.read_median / 1e9:.1f}), "
        f"{limits.flops / 1e9:.0f} GFLOP/s in float32",
        "",
        HEAD,
        *(line(row) for row in found.rows),
        "",
    ]
    for precision in dict.fromkeys(row.precision for row in found.rows):
        read = work.read_bytes(precision) / 1e6
        limit = work.decode_limit(precision, limits)
        text.append(f"limit at {precision}: {limit:.0f} tok/s decode, reading {read:.0f} MB a token")
    text += [
        "",
        "others: cores that other programs used meanwhile",
        f"same: new tokens before the first that differs from those of {found.reference}",
    ]
    text += notes(found)
    for ratio in found.ratios:
        text.append(
            f"ours at {ratio.precision}: decode {ratio.decode:.2f} times {ratio.decode_best}, "
            f"prefill {ratio.prefill:.2f} times {ratio.prefill_best}"
        )
    text += [f"left out: {one}" for one in found.left_out]
    return [*text, *(f"doubtful: {one}" for one in found.doubts), RELATED]


def line(row: Row) -> str:
    """A row under ``HEAD``."""
    return (
        f"{row.title:24}{row.precision:5}{spread(row.prefill):>18}{spread(row.decode):>20}{row.share:9.2f}"
        f"{row.load_s:8.1f}{row.first_s:8.1f}{row.peak / 1e6:9.0f}{row.others:8.2f}{row.same:6}"
        f"  {' '.join(map(str, row.tokens[:4]))}"
    )


def spread(one: Spread) -> str:
    """A median with its range; tenths below a hundred."""
    digits = 0 if one.median >= 100 else 1
    return f"{one.median:.{digits}f} ({one.low:.{digits}f}-{one.high:.{digits}f})"


def notes(found: Found) -> list[str]:
    """What makes rows less equal than their precision says, and the versions, a line for each engine."""
    text = []
    for title in dict.fromkeys(row.title for row in found.rows):
        rows = [row for row in found.rows if row.title == title]
        said = dict.fromkeys(f"{row.precision}: {row.note}" for row in rows)
        versions = " ".join(f"{name} {version}" for name, version in rows[0].versions.items())
        text.append(f"{title} ({versions}): {'; '.join(said)}")
    return text
