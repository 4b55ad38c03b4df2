"""Reports as one HTML file that asks nobody else for anything: no script, no font, no address."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labsupport.validation.compare import Pair, counts, html_rows
from labsupport.validation.verdict import SYMBOL, Level, Report, Verdict

STYLE = """
:root { color-scheme: light dark; --ok: #00703c; --bad: #b3261e; --open: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ok: #5fd38d; --bad: #ff8a80; --open: #ffd180; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; } th { white-space: nowrap; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #8886; } pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .85rem; }
.pass, .same { color: var(--ok); } .fail, .differs { color: var(--bad); } .insufficient, .neartie, .unknown
{ color: var(--open); } mark { background: #8883; } .number { font-variant-numeric: tabular-nums; } summary { cursor:
pointer; } .told { opacity: .8; font-size: .9rem; }
"""


def validation_html(report: Report) -> str:
    """The report of ``labs validate``: the verdict, then each level with its tests, thresholds and evidence."""
    head = (
        f'<h1 class="{report.decision}">{SYMBOL[report.decision]} {report.decision}: {escape(report.target)}</h1>'
        f"<p>Reference: {escape(report.reference)}. {escape(report.conclusion)}</p>"
    )
    return _page(f"Validation of {report.target}", head + "".join(map(_level, report.levels)))


def _level(level: Level) -> str:
    rows = "".join(map(_row, level.verdicts))
    return (
        f'<h2 class="{level.decision}">{SYMBOL[level.decision]} {level.name} {escape(level.title)}</h2>'
        f'<p class="told">{level.tokens} tokens, {level.seconds:.1f} s. If it fails: {escape(level.component)}.</p>'
        "<table><thead><tr><th>test</th><th>verdict</th><th>what was seen</th><th>statistic</th><th>threshold</th>"
        f"<th>power</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _row(verdict: Verdict) -> str:
    evidence = "".join(f"<li><pre>{escape(line)}</pre></li>" for line in verdict.evidence)
    shown = " open" if verdict.decision == "fail" else ""
    details = f"<details{shown}><summary>evidence</summary><ul>{evidence}</ul></details>" if evidence else ""
    limit = f"p &lt; {verdict.alpha:g}" if verdict.alpha is not None else _number(verdict.threshold)
    seen = f"p = {verdict.p:.2g}" if verdict.p is not None else _number(verdict.statistic)
    number = ", ".join(part for part in (seen, f"n = {verdict.n}") if part)
    return (
        f'<tr><td>{escape(verdict.test)}</td><td class="{verdict.decision}">{SYMBOL[verdict.decision]} '
        f"{verdict.decision}</td><td>{escape(verdict.detail)}{details}</td>"
        f'<td class="number">{number}</td><td class="number">{limit} ({verdict.source})</td>'
        f'<td class="told">{escape(verdict.power)}</td></tr>'
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def compare_html(pairs: Sequence[Pair]) -> str:
    """The report of ``labs compare``: template and output, side by side."""
    names = [escape(response.system.name) for response in (pairs[0].first, pairs[0].second)] if pairs else ["", ""]
    head = "".join(
        f"<th>{part}</th><th>{part}: {names[0]}</th><th>{part}: {names[1]}</th>" for part in ("template", "output")
    )
    body = f"<h1>{names[0]} beside {names[1]}</h1><p>{escape(counts(pairs))}</p>"
    table = f"<table><thead><tr><th>request</th>{head}</tr></thead><tbody>{html_rows(pairs)}</tbody></table>"
    return _page("Two systems side by side", body + table)


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>{body}</body></html>\n"
    )
