"""L4, the sampler: its output distribution is known exactly, so its draws can be tested without any text.

No single statistic suffices. Settings that became wider let tokens in that had no chance (support); those that became
narrower shift the probability integral transform; a wrong temperature makes draws too likely or too unlikely
(surprisal); a generator that stands still or ignores its seed correlates. Where the random stream is known, replaying
it needs a hundred times fewer tokens than any of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from labsupport.decoding import Settings
from labsupport.validation.material import Material
from labsupport.validation.scoring import Draws, Floats, Scored, log_p
from labsupport.validation.statistics import (
    at_least,
    cross_correlation,
    g_test,
    lag_correlation,
    most_expected,
    smallest_seen,
    surprisal_z,
    uniform_test,
)
from labsupport.validation.target import Answer, Ask
from labsupport.validation.verdict import Verdict

COMPONENT = "the sampler"
ALPHA = 1e-5  # of each test; six of them, so that 299 healthy runs raise an alarm with a chance of 2 %
MISSES = 2e-3  # share of replayed tokens that a tie at a cut's edge may explain


def check(material: Material) -> list[Verdict]:
    """Support, designed contexts, transforms, surprisal, correlations, replay, and what a seed means."""
    natural, flat = material.sampled, material.flat
    items = [*natural, *flat]
    rng = np.random.default_rng(0)
    draws = [draw for item in items if (draw := item.draws) is not None]
    uniforms = [draw.uniforms(rng) for draw in draws]
    return [
        _support(material, items),
        _designed(flat, rng),
        _transforms(uniforms),
        _surprisal(draws),
        _correlation("related to the token before", lag_correlation(uniforms), sum(map(len, uniforms))),
        _correlation("related to another request", cross_correlation(uniforms), sum(map(len, uniforms))),
        _replay(material, items),
        *_seeds(material),
    ]


def _support(material: Material, items: Sequence[Scored]) -> Verdict:
    wrong = []
    for item in items:
        if item.draws is not None:
            wrong += [_told(material, item, place) for place in np.flatnonzero(~item.draws.supported)]
    n = sum(item.tokens for item in items)
    return Verdict(
        "L4", "support", "fail" if wrong else "pass", f"{len(wrong)} of {n} tokens had no chance under the settings",
        n=n, statistic=len(wrong), threshold=0, evidence=tuple(wrong[:6]),
        power="top_p .9 as .95, or T x 1.05 with top-p: seen in 100 to 320 tokens",
    )  # fmt: skip


def _designed(flat: Sequence[Scored], rng: np.random.Generator) -> Verdict:
    values = np.concatenate([item.draws.uniforms(rng) for item in flat if item.draws is not None])
    cells = max(2, min(50, len(values) // 8))
    counts, _ = np.histogram(values, bins=cells, range=(0, 1))
    statistic, df, p = g_test(counts, np.full(cells, 1 / cells))
    return _tested(
        "G-test, flat contexts", p, len(values), f"G = {statistic:.1f} on {df} degrees of freedom", statistic
    )


def _transforms(uniforms: Sequence[Floats]) -> Verdict:
    values = np.concatenate(uniforms)
    statistic, df, p = uniform_test(values)
    detail = f"chi-squared = {statistic:.1f} on {df} degrees of freedom"
    return _tested("probability integral transform", p, len(values), detail, statistic, _sees(df, len(values)))


def _sees(df: int, n: int) -> str:
    return f"cells that are off by {smallest_seen(df, n, ALPHA):.0%}, root mean square: seen with 95 %" if df else ""


def _surprisal(draws: Sequence[Draws]) -> Verdict:
    logs = np.concatenate([log_p(draw) for draw in draws])
    variance = np.concatenate([draw.variance for draw in draws])
    z, p = surprisal_z(logs, np.concatenate([draw.expected for draw in draws]), variance)
    how = "more" if z > 0 else "less"
    shift = 6.1 * float(np.sqrt(variance.sum())) / len(logs)  # 6.1: from z at alpha / 2 to z at 95 %
    power = f"tokens that are {shift:.2f} nats too likely or unlikely, on average: seen with 95 %"
    return _tested("surprisal", p, len(logs), f"draws are {how} likely than they should be, z = {z:.1f}", z, power)


def _correlation(test: str, found: tuple[float, float], n: int) -> Verdict:
    z, p = found
    return _tested(
        test, p, n, f"z = {z:.1f}", z, "an ignored seed or a generator that stands still: a few dozen tokens"
    )


def _tested(test: str, p: float, n: int, detail: str, statistic: float, power: str = "") -> Verdict:
    if n < 100:
        return Verdict("L4", test, "insufficient", f"{n} tokens are too few to decide by", n=n, power=power)
    return Verdict(
        "L4", test, "fail" if p < ALPHA else "pass", f"{detail}, p = {p:.2g}", n=n, statistic=statistic,
        source="theory", p=p, alpha=ALPHA, power=power,
    )  # fmt: skip


def _replay(material: Material, items: Sequence[Scored]) -> Verdict:
    misses = [(item, item.draws.miss) for item in items if item.draws is not None]
    known = [(item, miss) for item, miss in misses if not np.isnan(miss).any()]
    test = "seed replay"
    if not known:
        why = f"the random stream of the dialect {material.facts.dialect} is not known here"
        return Verdict("L4", test, "insufficient", why, needed=False)
    n = sum(len(miss) for _, miss in known)
    count = sum(int((miss > 0).sum()) for _, miss in known)
    if not material.facts.exact and any(item.answer.logits is None for item, _ in known):
        why = (
            f"{n - count} of {n} tokens within noise; without the target's logits the noise of its type decides nothing"
        )
        return Verdict("L4", test, "insufficient", why, n=n, statistic=count, needed=False)
    most = most_expected(n, MISSES, ALPHA)
    wrong = [_told(material, item, int(place)) for item, miss in known for place in np.flatnonzero(miss > 0)[:2]]
    failed = count > most
    return Verdict(
        "L4", test, "fail" if failed else "pass", f"{n - count} of {n} tokens are those that their seed gives", n=n,
        statistic=count, threshold=most, source="theory", p=at_least(count, n, MISSES), alpha=ALPHA,
        power=f"a fault that changes 8 % of tokens, as T x 1.05 does, is missed with {_missed(n, most, 0.08):.1g}",
        evidence=tuple(wrong[:6]) if failed else (),
    )  # fmt: skip


def _missed(n: int, most: int, rate: float) -> float:
    return 1 - at_least(most + 1, n, rate)


def _seeds(material: Material) -> list[Verdict]:
    """Equal seeds, equal answers; another seed, another answer; and no seed means what the dialect says."""
    settings = material.spoken(Settings(temperature=1.0, top_p=1.0))
    first, second = material.seed("semantics", 0), material.seed("semantics", 1) | 1 << 63
    ask = Ask(material.conversations[0], 12, settings, first, ignore_end=True)
    asks = [ask, ask, replace(ask, seed=second), replace(ask, seed=second & (1 << 63) - 1), replace(ask, seed=None)]
    one, again, other, low, unset = material.ask(asks)
    wrong = _refused([one, again, other, low, unset])
    if not wrong:
        wrong += ["the same seed twice gives two answers"] if one.output_ids != again.output_ids else []
        wrong += ["two seeds give one answer"] if one.output_ids == other.output_ids else []
        lost = material.facts.dialect == "trtllm-cpp" and other.output_ids == low.output_ids
        wrong += ["the highest bit of a seed is ignored"] if lost else []  # as torch's generator on a CPU does
    if not wrong and material.facts.dialect == "trtllm-cpp":
        [zero] = material.ask([replace(ask, seed=0)])
        wrong += ["no seed is not seed 0"] if zero.output_ids != unset.output_ids else []
    detail = "; ".join(wrong) or "equal seeds repeat, others differ, an unset one is what the dialect says"
    return [Verdict("L4", "what a seed means", "fail" if wrong else "pass", detail, n=len(asks), statistic=len(wrong))]


def _refused(answers: Sequence[Answer]) -> list[str]:
    return [f"refused: {answer.error}" for answer in answers if answer.error]


def _told(material: Material, item: Scored, place: int) -> str:
    words, ids, draws = material.reference.tokenizer, item.answer.output_ids, item.draws
    text = f"seed {item.ask.seed}, token {place}: {words.decode([ids[place]])!r}"
    if draws is not None and draws.replayed[place] >= 0:
        text += f" where the seed gives {words.decode([int(draws.replayed[place])])!r}"
    return text
