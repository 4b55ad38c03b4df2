"""Whose fault is it: does what fails in company hold alone?

A fault of the batch or the cache changes logits, so L2 is the first level that sees it. Then the answers that failed
are asked for again, each alone and with a beginning that no cache holds. If they are right now, it was the company.
"""

from __future__ import annotations

from dataclasses import replace

from labsupport.validation.material import Material
from labsupport.validation.scoring import Scored
from labsupport.validation.target import Message, Prompt
from labsupport.validation.verdict import Level, Report

ASKED = 3  # answers that are asked for again
TOKENS = 8  # of each
NUMERIC = ("L2", "L3")


def guilty(report: Report, material: Material) -> str | None:
    """The name of the level whose component is guilty; None where nothing failed.

    Args:
        report: of the ladder.
        material: what it looked at.
    """
    first: Level | None = report.first_failure
    if first is None:
        return None
    return "L7" if first.name in NUMERIC and only_in_company(material) else first.name


def only_in_company(material: Material) -> bool:
    """Whether answers that are off were right when asked alone, from a cold cache."""
    bad = [item for item in (*material.greedy, *material.sampled) if _is_off(material, item)][:ASKED]
    for number, item in enumerate(bad):
        ask = replace(item.ask, prompt=_fresh(item.ask.prompt, number), max_tokens=TOKENS)
        [answer] = material.ask([ask])
        if answer.error or _is_off(material, material.score(ask, answer)):
            return False
    return bool(bad)


def _is_off(material: Material, item: Scored) -> bool:
    bound = material.tolerance
    off = [] if item.kld is None else [float(item.kld.mean()) > bound.kld]
    if item.difference is not None:
        off.append(float(item.difference.max()) > bound.log_prob)
    return any(off)


def _fresh(prompt: Prompt, number: int) -> Prompt:
    """The same request behind words that nobody has sent."""
    start = f"Case {number}, alone. "
    if isinstance(prompt, str):
        return start + prompt
    first, *others = prompt
    return (Message("system", start), first, *others) if first.role != "system" else (
        Message("system", start + first.content), *others)  # fmt: skip
