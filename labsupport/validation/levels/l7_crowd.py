"""Everyone gets their own: many one-token requests at once, each of which can have one answer only.

A server that hands an answer to the wrong client once in 200 times passes any check that asks 50 questions. Here each
request forces a token of its own by a bias, so that a swap shows whatever the model would have said.
"""

from __future__ import annotations

from dataclasses import replace

from labsupport.decoding import Settings
from labsupport.validation.material import LIFT, Material
from labsupport.validation.verdict import Verdict


def crowd(material: Material) -> list[Verdict]:
    """Who got another one's token; nothing where the budget has no crowd."""
    count, ids = material.budget.crowd, material.plain_ids
    if not count or not ids:
        return []
    material.progress("relation: everyone gets their own")
    wanted = [ids[index % len(ids)] for index in range(count)]
    base = material.greedy_ask("Hi", 1)
    asks = [replace(base, settings=material.spoken(Settings(top_k=1, logit_bias={id: LIFT}))) for id in wanted]
    answers = material.ask(asks)
    wrong = [
        f"request {place}: {answer.error or answer.output_ids} instead of {id}"
        for place, (id, answer) in enumerate(zip(wanted, answers, strict=True))
        if answer.output_ids != (id,)
    ]
    return [
        Verdict(
            "L7", "everyone gets their own", "fail" if wrong else "pass",
            f"{len(wrong)} of {count} requests got something else", n=count, statistic=len(wrong), threshold=0,
            power=f"one swap in 200 requests is missed with {0.995**count:.1%}", evidence=tuple(wrong[:4]),
        )
    ]  # fmt: skip
