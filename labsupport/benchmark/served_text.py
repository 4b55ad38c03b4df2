"""The tables of ``labs bench serve``."""

from __future__ import annotations

from labsupport.benchmark.resample import Distribution, Estimate
from labsupport.benchmark.served import Point, Report

HEAD = f"  {'':22}{'mean':>22}{'p50':>22}{'p90':>22}{'p99':>22}"
NAMES = {
    "ttft": "TTFT, ms", "ttst": "TTST, ms", "itl": "ITL, ms", "inter_chunk": "inter-chunk, ms",
    "latency": "request latency, ms", "per_user": "tokens/s of a user",
}  # fmt: skip


def lines(found: Report) -> list[str]:
    """What was asked of whom, and a table for each load level."""
    asked = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    text = [f"{found.target}; {found.cpu}; {found.date}", asked, "value [interval of 95 %, bootstrap over requests]"]
    for one in found.points:
        text += ["", *table(one)]
    return text


def table(one: Point) -> list[str]:
    """The metrics of one load level."""
    text = [
        f"{one.load}: {one.requests} requests in {one.seconds:.1f} s, {one.in_flight:.1f} in flight, "
        f"{one.input_tokens / one.requests:.0f} tokens in, {one.output_tokens / one.requests:.0f} out",
        HEAD,
    ]
    for name, title in NAMES.items():
        row: Distribution | None = getattr(one, name)
        if row is not None:
            scale = 1.0 if name == "per_user" else 1e3
            cells = (row.mean, row.p50, row.p90, row.p99)
            text.append(f"  {title:22}" + "".join(f"{cell(value, scale):>22}" for value in cells))
    text.append(f"  {'output tokens/s':22}{cell(one.output_rate):>22}")
    text.append(f"  {'requests/s':22}{cell(one.request_rate):>22}")
    if one.goodput:
        text.append(f"  {'goodput, requests/s':22}{cell(one.goodput):>22}")
    if one.share:
        text.append(
            f"  share of limits: output {one.share.output:.2f} of {one.share.output_limit:.0f} tokens/s; "
            f"first token {one.share.ttft:.2f} ({one.share.ttft_limit * 1e3:.0f} ms at best)"
        )
    client = one.client
    cores = "" if client.cores is None else f"{client.cores:.2f} cores, "
    text.append(
        f"  client: {cores}event loop {client.lag_p99 * 1e3:.1f} ms late, requests sent {client.late_p99 * 1e3:.1f} ms "
        "late (99th percentiles)"
    )
    return text + [f"  doubtful: {doubt}" for doubt in one.doubts]


def cell(value: Estimate, scale: float = 1.0) -> str:
    """A value with its interval.

    Example:
        >>> cell(Estimate(value=0.0123, low=0.01, high=0.5), 1e3)
        '12.3 [10.0, 500]'
    """
    parts = [number(scale * one) for one in (value.value, value.low, value.high)]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]"


def number(value: float) -> str:
    """Three digits, more where the number has more before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
