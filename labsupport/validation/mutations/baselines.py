"""What others look at, on the same answers: text, overlap, accuracy, neighbors of the first difference, frequencies.

Each says whether it would reject the target. Thresholds are those of the systems that use them.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import SequenceMatcher

import numpy as np

from labsupport.decoding import Context, Settings, dialect
from labsupport.validation.levels.l5_task import tasks
from labsupport.validation.material import Material
from labsupport.validation.scoring import Scored, sampling
from labsupport.validation.statistics import rouge_l, trtllm_threshold
from labsupport.validation.target import Ask

DRAWS = 200
TOP = 5


def text_equality(material: Material) -> bool:
    """Greedy texts differ from the reference's: what the seed hoped for."""
    return any(mine != theirs for mine, theirs in _texts(material))


def rouge(material: Material) -> bool:
    """ROUGE-L of greedy texts is below 0.9 on average."""
    return float(np.mean([rouge_l(mine.split(), theirs.split()) for mine, theirs in _texts(material)])) < 0.9


def sequence_matcher(material: Material) -> bool:
    """``difflib`` finds a greedy text less than 0.8 alike. Source: TensorRT-LLM ``tests/unittest/utils/util.py``."""
    return any(SequenceMatcher(None, mine, theirs).ratio() < 0.8 for mine, theirs in _texts(material))


def logprobs_close(material: Material) -> bool:
    """At the first difference, a token is not among the other side's five likeliest; nothing is read after it.

    Source: vLLM ``tests/models/utils.py``, ``check_logprobs_close``.
    """
    return any(_apart(material, item) for item in material.greedy)


def accuracy(material: Material) -> bool:
    """Fewer exact answers than the unpaired test allows. Source: TensorRT-LLM ``tests/integration/defs/accuracy``."""
    chosen = tasks()[: material.budget.tasks]
    asks = [material.greedy_ask(task.question, material.budget.task_tokens) for task in chosen]
    decode = material.reference.tokenizer.decode
    rows = [answer.output_ids for answer in material.ask(asks)], [material.reference.greedy(ask) for ask in asks]
    own, theirs = (
        100 * float(np.mean([task.right(decode(list(ids))) for task, ids in zip(chosen, side, strict=True)]))
        for side in rows
    )
    return own < trtllm_threshold(theirs, 50, len(chosen))


def cosine(material: Material) -> bool:
    """The frequencies of one context's draws are not within cosine 0.99. Source: FlashInfer ``test_sampling.py``."""
    settings = material.spoken(Settings(temperature=0.7, top_k=50, top_p=0.9))
    asks = [Ask("The", 1, settings, material.seed("cosine", index), ignore_end=True) for index in range(DRAWS)]
    prompt = material.reference.ids("The")
    row = material.reference.logits(prompt, [0])[0]
    probs = dialect(material.facts.dialect, **sampling(asks[0])).probs(row, Context(prompt))
    drawn = [answer.output_ids[0] for answer in material.ask(asks) if answer.output_ids]
    seen = np.bincount([id for id in drawn if id < len(probs)], minlength=len(probs)).astype(float)
    size = float(np.linalg.norm(seen) * np.linalg.norm(probs))
    return size == 0 or float(seen @ probs) / size <= 0.99


BASELINES: dict[str, Callable[[Material], bool]] = {
    "text equality": text_equality,
    "ROUGE-L >= 0.9": rouge,
    "SequenceMatcher >= 0.8": sequence_matcher,
    "check_logprobs_close": logprobs_close,
    "accuracy, unpaired": accuracy,
    "cosine > 0.99": cosine,
}


def _texts(material: Material) -> list[tuple[str, str]]:
    decode = material.reference.tokenizer.decode
    return [
        (item.answer.text, decode(list(material.reference.greedy(item.ask)), skip_special_tokens=True))
        for item in material.greedy
    ]


def _apart(material: Material, item: Scored) -> bool:
    mine, theirs = item.answer.output_ids, material.reference.greedy(item.ask)
    place = next((i for i, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), None)
    if place is None or item.answer.logits is None:
        return False
    truth = material.reference.logits(item.prompt, mine[: place + 1])[place]
    return (
        mine[place] not in np.argsort(-truth)[:TOP] or theirs[place] not in np.argsort(-item.answer.logits[place])[:TOP]
    )
