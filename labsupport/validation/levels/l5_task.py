"""L5, tasks: what a user would notice, and what nobody thought of.

Both systems answer the same questions, so they are compared in pairs: only questions that one gets right and the other
wrong count (McNemar), which is several times sharper than comparing two accuracies. Sampled answers are compared as
distributions (MMD). An alarm of the latter is confirmed on fresh samples before it counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np

from labsupport.decoding import Settings
from labsupport.validation.material import LIFT, Material
from labsupport.validation.statistics import mcnemar, mmd, rouge_l, trtllm_threshold
from labsupport.validation.target import Answer, Ask
from labsupport.validation.verdict import Verdict
from labsupport.workspace import data_folder

COMPONENT = "something that the levels below do not look at; compare answers: labs compare"
ALPHA_PAIRS = 1e-4
ALPHA_MMD = 2e-3  # twice in a row: 4e-6
ROUNDS = 1000


@dataclass(frozen=True)
class Task:
    """A question whose answer must hold one of some words."""

    question: str
    answers: tuple[str, ...]

    def right(self, text: str) -> bool:
        """Whether a text answers it."""
        return any(answer.lower() in text.lower() for answer in self.answers)


def tasks() -> list[Task]:
    """``data/validation_tasks.json``."""
    raw = json.loads((data_folder() / "validation_tasks.json").read_text(encoding="utf-8"))
    return [Task(item["question"], tuple(item["answers"])) for item in raw["tasks"]]


def check(material: Material) -> list[Verdict]:
    """Exact answers in pairs, ends, and two samples."""
    return [_pairs(material), _ends(material), *_samples(material)]


def _pairs(material: Material) -> Verdict:
    chosen = tasks()[: material.budget.tasks]
    material.progress("tasks")
    asks = [material.greedy_ask(task.question, material.budget.task_tokens) for task in chosen]
    answers = material.ask(asks)
    decode = material.reference.tokenizer.decode
    own = [decode(list(answer.output_ids), skip_special_tokens=True) for answer in answers]
    material.progress("tasks: reference")
    truths = [_reference_answer(material, ask, answer) for ask, answer in zip(asks, answers, strict=True)]
    theirs = [decode(list(ids), skip_special_tokens=True) for ids in truths]
    right = np.array([task.right(text) for task, text in zip(chosen, own, strict=True)])
    truth = np.array([task.right(text) for task, text in zip(chosen, theirs, strict=True)])
    lost, won = int((truth & ~right).sum()), int((right & ~truth).sum())
    p = mcnemar(lost, won)
    rouge = float(np.mean([rouge_l(a.split(), b.split()) for a, b in zip(own, theirs, strict=True)]))
    n = len(chosen)
    accuracy, reference = 100 * float(right.mean()), 100 * float(truth.mean())
    loose = trtllm_threshold(reference, 50, n)
    evidence = [
        f"{task.question!r}: {a!r}, the reference {b!r}"
        for task, a, b, fine, wanted in zip(chosen, own, theirs, right, truth, strict=True)
        if fine != wanted
    ]
    detail = (
        f"{accuracy:.0f} % right, the reference {reference:.0f} %; {lost} lost, {won} won; ROUGE-L {rouge:.2f}"
        f" (TensorRT-LLM's unpaired rule would pass {loose:.0f} %)"
    )
    return Verdict(
        "L5", "exact answers, paired", "fail" if p < ALPHA_PAIRS else "pass", detail, n=n, statistic=float(lost + won),
        source="theory", p=p, alpha=ALPHA_PAIRS, evidence=tuple(evidence[:6]),
        power="seen for certain from 15 questions on that only one of the two gets right",
    )  # fmt: skip


def _reference_answer(material: Material, ask: Ask, answer: Answer) -> tuple[int, ...]:
    """What the reference writes. One pass says whether it is the target's own answer; only else is it written out."""
    ids = answer.output_ids
    whole = len(ids) == ask.max_tokens or (ids and ids[-1] in material.reference.end_ids)
    if whole and not material.score(ask, answer).margin.any():
        return ids
    return material.reference.greedy(ask)


def _ends(material: Material) -> Verdict:
    """An answer ends at an end token, and nowhere else before its length."""
    ends, wrong = set(material.reference.end_ids), []
    for item in material.greedy:
        ids, allowed = item.answer.output_ids, item.ask.max_tokens
        if any(id in ends for id in ids[:-1]):
            wrong.append(f"went on after an end token: {ids}")
        elif len(ids) < allowed and ids[-1] not in ends:
            wrong.append(f"stopped after {len(ids)} of {allowed} tokens without an end token")
        elif len(ids) > allowed:
            wrong.append(f"wrote {len(ids)} tokens where {allowed} were allowed")
        if ids[-1] in ends and item.answer.finish not in ("end", "stop", "unknown"):
            wrong.append(f"ended with an end token, and says {item.answer.finish!r}")
    wrong += _forced(material)
    n, ended = len(material.greedy), sum(item.answer.output_ids[-1] in ends for item in material.greedy)
    detail = f"{len(wrong)} of {n + len(ends)} answers end wrongly; {ended} end by themselves, {len(ends)} were made to"
    return Verdict(
        "L5", "ends", "fail" if wrong else "pass", detail, n=n + len(ends), statistic=len(wrong), threshold=0,
        evidence=tuple(wrong[:4]),
    )  # fmt: skip


def _forced(material: Material) -> list[str]:
    """Each end token, made the likeliest by far: the answer is that token and nothing else."""
    ends = material.reference.end_ids
    prompt = material.conversations[0]
    plain = material.greedy_ask(prompt, 4)
    asks = [replace(plain, settings=replace(plain.settings, logit_bias={end: LIFT})) for end in ends]
    return [
        f"end token {end}: {answer.error or answer.output_ids}"
        for end, answer in zip(ends, material.ask(asks), strict=True)
        if answer.output_ids != (end,)
    ]


def _samples(material: Material) -> list[Verdict]:
    budget = material.budget
    if not budget.mmd:
        return []
    first, second = _mmd(material, 0), 1.0
    if first < ALPHA_MMD:
        second = _mmd(material, 1)
    failed = first < ALPHA_MMD and second < ALPHA_MMD
    confirmed = f", on fresh samples {second:.2g}" if first < ALPHA_MMD else ""
    return [
        Verdict(
            "L5", "two samples (MMD)", "fail" if failed else "pass",
            f"{budget.mmd} prompts, {budget.mmd_samples} answers each: p = {first:.2g}{confirmed}",
            n=budget.mmd * budget.mmd_samples, source="theory", p=max(first, second) if failed else first,
            alpha=ALPHA_MMD, power="another model, or a template that changes what is said",
        )
    ]  # fmt: skip


def _mmd(material: Material, turn: int) -> float:
    """Permutation p of fresh samples of both."""
    budget = material.budget
    prompts = material.conversations[: budget.mmd]
    whole = material.spoken(Settings(temperature=1.0, top_p=1.0))
    material.progress("two samples")
    count = budget.mmd_samples
    asks = [
        Ask(prompt, budget.mmd_tokens, whole, material.seed(f"mmd{turn}", i * count + k))
        for i, prompt in enumerate(prompts)
        for k in range(count)
    ]
    ids = [answer.output_ids for answer in material.ask(asks)]
    own = [ids[i * count : (i + 1) * count] for i in range(len(prompts))]
    material.progress("two samples: reference")
    drawn = [material.reference.samples(ask, (turn + 1) * count)[turn * count :] for ask in asks[::count]]
    return mmd(own, drawn, ROUNDS)
