"""L2, logits under teacher forcing: the reference reads the target's own tokens and says what it would have expected.

Nothing is compared after a divergence, because there is none: both stand on the same prefix at every step. The rule,
after FlashAttention's tests: an honest target is at most twice as far from the float32 truth as the same model in the
target's type (three times for a maximum); in float32, and for quantized weights, a table of guards stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from labsupport.validation.material import Material
from labsupport.validation.scoring import Floats, Scored
from labsupport.validation.verdict import Source, Verdict

COMPONENT = "the weights, the kernels or the KV cache"


def check(material: Material) -> list[Verdict]:
    """KL divergence of each place where the target gives logits; reported log-probabilities where it gives those."""
    items = [*material.greedy, *material.sampled]
    bound = material.tolerance
    verdicts = []
    if all(item.kld is not None for item in items):
        kld = _join(items, lambda item: item.kld)
        limit, source = _limit(material, lambda item: item.kld, np.mean, 2.0, bound.kld)
        verdicts.append(_verdict(
            "mean KL divergence", float(kld.mean()), limit, source, items, kld, "nats of KL divergence, on average"
        ))  # fmt: skip
    if all(item.reported is not None for item in items):
        off = _join(items, lambda item: item.difference)
        limit, source = _limit(material, lambda item: item.difference, np.max, 3.0, bound.log_prob)
        verdicts.append(_verdict(
            "reported log-probs", float(off.max()), limit, source, items, off, "largest difference of a token's ln p"
        ))  # fmt: skip
    if not verdicts:
        why = "the target gives neither logits nor log-probabilities"
        return [Verdict("L2", "teacher-forced logits", "insufficient", why, n=sum(item.tokens for item in items))]
    return verdicts


def _limit(
    material: Material,
    field: Callable[[Scored], Floats | None],
    measure: Callable[[Floats], float],
    factor: float,
    guard: float,
) -> tuple[float, Source]:
    if material.source == "noise floor":
        return factor * float(measure(_join(material.floor, field))) + 1e-9, "noise floor"
    return guard, "guard"


def _verdict(
    test: str, value: float, limit: float, source: Source, items: Sequence[Scored], each: Floats, unit: str
) -> Verdict:
    failed = not value <= limit  # a NaN fails
    detail = f"{value:.2e} {unit}; up to {limit:.2e} is noise ({source})"
    return Verdict(
        "L2", test, "fail" if failed else "pass", detail, n=len(each), statistic=value, threshold=limit,
        source=source, power="structural faults move it a hundredfold",
        evidence=tuple(_where(items, each, limit)) if failed else (),
    )  # fmt: skip


def _where(items: Sequence[Scored], each: Floats, limit: float) -> list[str]:
    """Where it is wrong: from the first token on, from some length on, or in some requests only."""
    found, start = [], 0
    for item in items:
        bad = np.flatnonzero(~(each[start : start + item.tokens] <= limit))
        start += item.tokens
        if len(bad):
            length = len(item.prompt) + int(bad[0])
            found.append(
                f"prompt of {len(item.prompt)} tokens: {len(bad)} of {item.tokens}, first after {length} tokens"
            )
    return [f"{len(found)} of {len(items)} answers are off", *found[:6]]


def _join(items: Sequence[Scored], field: Callable[[Scored], Floats | None]) -> Floats:
    return np.concatenate([part for item in items if (part := field(item)) is not None])
