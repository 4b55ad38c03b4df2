"""What several levels look at: answers of the target, each scored once against the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from labsupport.decoding import Settings, independent_seed, token_logprobs
from labsupport.errors import ParameterError
from labsupport.models.quiet import quiet_transformers
from labsupport.validation.prompts import Prompts, read_prompts
from labsupport.validation.reference import Reference
from labsupport.validation.scoring import Scored, score
from labsupport.validation.target import Answer, Ask, Facts, Prompt, Target, conversation
from labsupport.validation.verdict import Source
from labsupport.workspace import data_folder


@dataclass(frozen=True)
class Budget:
    """How much is asked.

    Args:
        greedy, greedy_tokens: greedy answers, and the tokens of each.
        sampled, sampled_tokens: sampled answers.
        flat, flat_tokens: answers from designed, flat distributions.
        tasks, task_tokens: questions of the task level.
        mmd, mmd_samples, mmd_tokens: prompts, samples and tokens of the two-sample test; 0 leaves it out.
        relations: prompts of each metamorphic relation.
        run: name that the seeds are derived from.
        crowd: requests at once of which each must get its own answer.
        streams: texts that are streamed.
    """

    greedy: int = 16
    greedy_tokens: int = 32
    sampled: int = 20
    sampled_tokens: int = 32
    flat: int = 6
    flat_tokens: int = 48
    tasks: int = 24
    task_tokens: int = 8
    mmd: int = 6
    mmd_samples: int = 8
    mmd_tokens: int = 12
    relations: int = 4
    run: str = "validate"
    crowd: int = 300
    streams: int = 6


FAST = Budget(4, 16, 6, 24, 4, 32, 6, 6, 0, 0, 0, 1, crowd=0, streams=3)


@dataclass(frozen=True)
class Tolerance:
    """How far an honest target may be from the reference.

    Args:
        kld: mean KL divergence, nats.
        log_prob: largest difference of a reported ln p.
        logit: largest difference of a centered logit.
        flips: share of greedy choices that may differ, at near-ties.
        source: a table of guards, or a measured noise floor.
    """

    kld: float
    log_prob: float
    logit: float
    flips: float
    source: str = "guard"


GUARDS = {
    "float32": Tolerance(1e-8, 1e-3, 1e-3, 1e-3),
    "float16": Tolerance(5e-5, 5e-2, 5e-2, 5e-3),
    "bfloat16": Tolerance(2e-3, 3e-1, 5e-1, 2.5e-2),
    "8 bits": Tolerance(2e-2, 1.0, 1.5, 5e-2),
    "8-bit cache": Tolerance(1e-1, 4.2, 6.0, 1.5e-1),
    "4 bits": Tolerance(2e-1, 3.0, 5.0, 1.5e-1),
}
"""Where no noise floor is measured. 16 bits: half a unit in the last place of a logit near 16; 8 and 4 bits: start
values around the divergences that ``labs bench quantize`` prints for SmolLM2; 8-bit cache: twice the KL divergence and
three times the largest difference of SmolLM2 with one honest int8 scale for a layer's keys and values (0.051 and 1.41),
as L2's rule is; its other two are start values (5 of 18 greedy tokens flipped, no logit was off by more than 3.2)."""

SAMPLED: tuple[Settings, ...] = (
    Settings(temperature=1.0, top_p=1.0),
    Settings(temperature=0.7, top_k=50, top_p=0.9),
    Settings(temperature=1.0, top_p=0.8),
    Settings(temperature=1.3, top_k=20, repetition_penalty=1.2),
    Settings(temperature=0.9, top_k=50, presence_penalty=0.5, frequency_penalty=0.3),
)
FLAT: tuple[Settings, ...] = (
    Settings(temperature=50.0, top_k=50),
    Settings(temperature=50.0, top_p=0.9),
    Settings(temperature=50.0, top_k=50, top_p=0.8),
)
CELLS = 64  # tokens of a flat distribution
LIFT = 2000.0  # at temperature 50 it leaves the other tokens exp(-40)


class Material:
    """Answers to look at, made when a level first asks for them.

    Args:
        target: what is validated.
        reference: the truth.
        budget: how much is asked.
        prompts: from which texts are taken; by default ``data/prompts.json``.
        progress: told in a few words what is being done.
    """

    def __init__(
        self, target: Target, reference: Reference, budget: Budget | None = None, *, prompts: Prompts | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.target, self.reference, self.budget = target, reference, budget or Budget()
        self.prompts = prompts or read_prompts(data_folder() / "prompts.json")
        self.progress = progress
        self.tokens = 0

    @property
    def facts(self) -> Facts:
        """Of the target."""
        return self.target.facts

    @cached_property
    def conversations(self) -> list[Prompt]:
        """Every prompt of the file as a conversation, but for those that the model's template refuses."""
        texts: list[Prompt] = [conversation(("user", text.text)) for text in self.prompts.prompt]
        turns = (tuple((t["role"], t["content"]) for t in c.contents) for c in self.prompts.conversations)
        return [
            prompt for prompt in (*texts, *(conversation(*turn) for turn in turns)) if self.reference.accepts(prompt)
        ]

    @cached_property
    def at_page_ends(self) -> list[Prompt]:
        """Plain texts of one token less than a page of the KV cache, a page, one more; and the same of two pages."""
        page = self.facts.page or 32
        text = (data_folder() / "texts" / "evaluation.txt").read_text(encoding="utf-8")
        with quiet_transformers():  # it would warn that this is too long for the model
            ids = self.reference.tokenizer.encode(text[:8000], add_special_tokens=False)
        found: list[Prompt] = []
        for length in (page - 1, page, page + 1, 2 * page - 1, 2 * page, 2 * page + 1):
            for start in range(0, len(ids) - length, length):
                cut = self.reference.tokenizer.decode(ids[start : start + length])
                if len(self.reference.ids(cut)) == length:
                    found.append(cut)
                    break
        return found

    @cached_property
    def greedy(self) -> list[Scored]:
        """Greedy answers: conversations, and texts that end where pages end."""
        mixed = [*_alternate(self.at_page_ends, self.conversations)]
        asks = [self.greedy_ask(prompt, self.budget.greedy_tokens) for prompt in mixed[: self.budget.greedy]]
        return self.scored("greedy answers", asks)

    @cached_property
    def sampled(self) -> list[Scored]:
        """Seeded answers under several settings."""
        budget, settings = self.budget, [self.spoken(s) for s in SAMPLED]
        pool = [*_alternate(self.conversations, self.at_page_ends)]
        asks = [
            Ask(pool[i % len(pool)], budget.sampled_tokens, settings[i % len(settings)], self.seed("sampled", i),
                ignore_end=True)
            for i in range(budget.sampled)
        ]  # fmt: skip
        return self.scored("sampled answers", asks)

    @cached_property
    def flat(self) -> list[Scored]:
        """Seeded answers from distributions that are nearly flat over 64 tokens, whatever was written before.

        There a cut that is off by one token shows at once, as it never does in natural text.
        """
        bias = {id: LIFT - index for index, id in enumerate(self.plain_ids[:CELLS])}
        settings = [self.spoken(replace(s, logit_bias=bias)) for s in FLAT]
        asks = [
            Ask("A word:", self.budget.flat_tokens, settings[i % len(settings)], self.seed("flat", i), ignore_end=True)
            for i in range(self.budget.flat)
        ]
        return self.scored("answers from flat distributions", asks)

    @cached_property
    def plain_ids(self) -> list[int]:
        """Ids of tokens that can be named by their text alone, in every transport."""
        words = self.reference.tokenizer
        special = set(words.all_special_ids)
        found = []
        for id in range(len(words)):
            text = words.decode([id])
            plain = id not in special and text.isascii() and text.isprintable()
            if plain and words.encode(text, add_special_tokens=False) == [id]:
                found.append(id)
            if len(found) == 2 * CELLS:
                break
        return found

    def greedy_ask(self, prompt: Prompt, tokens: int) -> Ask:
        """The request for the likeliest tokens, in the target's dialect."""
        return Ask(prompt, tokens, self.spoken(Settings(top_k=1)))

    def spoken(self, settings: Settings) -> Settings:
        """Settings without the fields that the target's dialect lacks."""
        lacks: tuple[str, ...] = {
            "hf": ("presence_penalty", "frequency_penalty"),
            "trtllm-torch": ("presence_penalty", "frequency_penalty", "repetition_penalty", "min_p"),
        }.get(self.facts.dialect, ())
        spoken = Settings(**{**vars(settings), **dict.fromkeys(lacks)})
        if self.facts.dialect == "hf":
            return replace(spoken, do_sample=True, top_k=spoken.top_k or 0)
        return spoken

    def seed(self, purpose: str, index: int) -> int:
        """A seed that is unrelated to its neighbors, and the same in every run of that name."""
        return independent_seed(f"{self.budget.run}:{purpose}", index)

    def ask(self, asks: Sequence[Ask], *, together: bool = True) -> list[Answer]:
        """Answers of the target, its tokens counted.

        Raises:
            ParameterError: the target refused a request that it should serve.
        """
        answers = self.target.generate(asks) if together else [self.target.generate([ask])[0] for ask in asks]
        self.tokens += sum(len(answer.output_ids) for answer in answers)
        return answers

    def scored(self, what: str, asks: Sequence[Ask]) -> list[Scored]:
        """Answers, scored."""
        self.progress(what)
        answers = self.ask(asks)
        for answer in answers:
            if answer.error:
                raise ParameterError(
                    f"{self.facts.name} refused a request of the ladder", why=answer.error, fix="see its log"
                )
        self.progress(f"{what}: reference")
        return [self.score(ask, answer) for ask, answer in zip(asks, answers, strict=True)]

    def score(self, ask: Ask, answer: Answer) -> Scored:
        """One answer held against the reference, at the ids that the target itself should have read."""
        prompt = self.reference.ids(ask.prompt)
        if not answer.output_ids:
            raise ParameterError(f"{self.facts.name} wrote no token", why=f"the request was {ask}", fix="see its log")
        truth = self.reference.logits(prompt, answer.output_ids)
        return score(ask, answer, prompt, truth, self.facts.dialect, noise=self.tolerance.logit)

    @cached_property
    def floor(self) -> list[Scored]:
        """What the twin, an honest model in the target's type, scores on the target's own answers."""
        if self.reference.twin is None:
            return []
        found = []
        for item in [*self.greedy, *self.sampled]:  # unlikely tokens are off by more than greedy ones
            ids = list(item.answer.output_ids)
            logits = self.reference.twin_logits(item.prompt, ids)
            log_probs = token_logprobs(logits.astype(np.float64), ids)
            twin = replace(item.answer, logits=logits, log_probs=tuple(log_probs))
            truth = self.reference.logits(item.prompt, ids)
            found.append(score(item.ask, twin, item.prompt, truth, self.facts.dialect, noise=0.0))
        return found

    @property
    def source(self) -> Source:
        """Where thresholds on numbers come from: the twin's noise, or the guards."""
        return "noise floor" if self.facts.quantization is None and self.floor else "guard"

    @property
    def tolerance(self) -> Tolerance:
        """The guard of the target's type."""
        facts = self.facts
        algo = facts.quantization or ""
        if not algo:
            return GUARDS[facts.dtype]
        return GUARDS["4 bits" if "W4A16" in algo else "8-bit cache" if "KV" in algo else "8 bits"]


def _alternate(first: Sequence[Prompt], second: Sequence[Prompt]) -> list[Prompt]:
    """Two lists, one from each in turn; then what is left of the longer."""
    n = min(len(first), len(second))
    mixed = [prompt for pair in zip(first[:n], second[:n], strict=True) for prompt in pair]
    return [*mixed, *first[n:], *second[n:]]
