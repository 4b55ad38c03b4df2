"""L3, greedy choices with a near-tie rule: a token that is not the reference's favorite must have been nearly so.

At every step, on the target's own prefix: margin = largest reference logit − logit of the chosen token. Two logits that
are each off by δ can swap only if they are less than 2δ apart, so a margin above 2δ is a fault, and a smaller one is a
tie. Ties are counted too, lest a fault hide among them.
"""

from __future__ import annotations

import numpy as np

from labsupport.validation.material import Material
from labsupport.validation.scoring import Scored
from labsupport.validation.statistics import at_least, most_expected
from labsupport.validation.verdict import Verdict

COMPONENT = "the greedy choice (masks, padded vocabulary, ties)"
ALPHA = 1e-4


def check(material: Material) -> list[Verdict]:
    """Margins of all greedy tokens, and how many of them are ties that fell the other way."""
    items = material.greedy
    delta = noise(material)
    margins = np.concatenate([item.margin for item in items])
    wrong = [text for item in items for text in _violations(material, item, 2 * delta)]
    n, flips = len(margins), int((margins > 0).sum())
    share = max(material.tolerance.flips, _flip_rate(material))
    most = most_expected(n, share, ALPHA)
    return [
        Verdict(
            "L3", "near-tie margin", "fail" if wrong else "pass",
            f"{len(wrong)} of {n} greedy tokens are further than {2 * delta:.3g} from the reference's favorite",
            n=n, statistic=float(margins.max()), threshold=2 * delta, source=material.source,
            power=f"a fault that changes 1 % of tokens is missed with {0.99**n:.2g}", evidence=tuple(wrong[:8]),
        ),
        Verdict(
            "L3", "number of ties", "fail" if flips > most else "pass",
            f"{flips} tokens differ at a near-tie; up to {most} are expected", n=n, statistic=flips, threshold=most,
            source="theory", p=at_least(flips, n, share), alpha=ALPHA,
        ),
    ]  # fmt: skip


def noise(material: Material) -> float:
    """δ: how far a logit may honestly be off, measured on the twin where there is one."""
    if material.source == "noise floor":
        return 1.25 * max(float(item.error.max()) for item in material.floor if item.error is not None)
    return material.tolerance.logit


def _flip_rate(material: Material) -> float:
    if not material.floor:
        return 0.0
    agree = np.concatenate([item.agree for item in material.floor if item.agree is not None])
    return 2 * float(1 - agree.mean())


def _violations(material: Material, item: Scored, limit: float) -> list[str]:
    words = material.reference.tokenizer
    return [
        f"token {place} after {words.decode(list(item.answer.output_ids[max(0, place - 4) : place]))!r}: "
        f"{words.decode([item.answer.output_ids[place]])!r}, {item.margin[place]:.3g} below the favorite"
        for place in np.flatnonzero(item.margin > limit)[:2]
    ]
