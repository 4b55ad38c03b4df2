"""An answer's tokens, held against the reference one by one: the numbers that the levels decide by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labsupport.decoding import Array, Context, Sampler, dialect, log_softmax, softmax
from labsupport.validation.replay import replay_for
from labsupport.validation.target import Answer, Ask, Logits

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """How each token was drawn; arrays [n].

    Args:
        below: probability of all likelier tokens.
        p: of the token itself.
        supported: whether the settings leave the token any chance, noise allowed for.
        expected, variance: of ln p under the distribution that was drawn from.
        miss: of the seed replay (:class:`labsupport.validation.replay.Replayed`); NaN where there is none.
        replayed: the ids that the replay draws; -1 where there is none.
    """

    below: Floats
    p: Floats
    supported: NDArray[np.bool_]
    expected: Floats
    variance: Floats
    miss: Floats
    replayed: NDArray[np.int64]

    def uniforms(self, rng: np.random.Generator) -> Floats:
        """Probability integral transforms: uniform in (0, 1) if every token came from its distribution."""
        return np.asarray(self.below + rng.random(len(self.p)) * self.p)


@dataclass(frozen=True)
class Scored:
    """One answer and its scores; arrays [n], one entry a token.

    Args:
        ask, answer: what was asked and what came.
        prompt: the ids that the reference read.
        truth: ln p of each token under the reference.
        margin: how far the token's logit is below the reference's largest one; 0 is the greedy choice.
        reported: ln p as the target reported it, or None.
        kld: KL(reference || target) of each place, where the target gives logits, or None.
        error: the largest difference of centered logits of each place, or None.
        agree: whether both have the same largest logit, or None.
        draws: None for a greedy answer.
    """

    ask: Ask
    answer: Answer
    prompt: tuple[int, ...]
    truth: Floats
    margin: Floats
    reported: Floats | None = None
    kld: Floats | None = None
    error: Floats | None = None
    agree: NDArray[np.bool_] | None = None
    draws: Draws | None = None

    @property
    def tokens(self) -> int:
        """Tokens that were scored."""
        return len(self.truth)

    @property
    def difference(self) -> Floats | None:
        """|reported − true| ln p of each token."""
        return None if self.reported is None else np.abs(self.reported - self.truth)


def score(
    ask: Ask,
    answer: Answer,
    prompt: tuple[int, ...],
    truth: Logits,
    speaks: str,
    *,
    noise: float,
    own: bool = True,
) -> Scored:
    """Score an answer.

    Args:
        ask, answer: the request, and what came back.
        prompt: its ids.
        truth: float32 [n, V], the reference's logits.
        speaks: the target's dialect.
        noise: how far a logit of the target may honestly be from the reference's.
        own: take the target's own logits for its draws where it gives them: that isolates the sampler.
    """
    ids = list(answer.output_ids)
    places = np.arange(len(ids))
    true = log_softmax(truth.astype(np.float64))
    theirs = answer.logits
    reported = None if answer.log_probs is None else np.array(answer.log_probs, float)
    kld = error = agree = None
    if theirs is not None:
        other = log_softmax(theirs.astype(np.float64))
        kld = np.maximum((np.exp(true) * (true - other)).sum(axis=-1), 0)
        offset = theirs.astype(np.float64) - truth
        error = np.abs(offset - offset.mean(axis=-1, keepdims=True)).max(axis=-1)
        agree = theirs.argmax(axis=-1) == truth.argmax(axis=-1)
    sampler = dialect(speaks, **sampling(ask))
    draws = None
    if not (sampler.steps and sampler.steps[-1].name == "greedy"):
        mine = own and theirs is not None
        rows = theirs if mine and theirs is not None else truth
        draws = score_draws(sampler, rows, ask, prompt, ids, reach_of(ask, 1e-5 if mine else noise), speaks)
    chosen = truth[places, ids] if ids else np.empty(0)
    margin = (truth.max(axis=-1) - chosen).astype(np.float64) if ids else np.empty(0)
    return Scored(
        ask, answer, prompt, true[places, ids] if ids else np.empty(0), margin, reported, kld, error, agree, draws
    )


def score_draws(
    sampler: Sampler, rows: Logits, ask: Ask, prompt: tuple[int, ...], ids: Sequence[int], reach: float, speaks: str
) -> Draws:
    """Score how tokens were drawn from logits ``rows`` [n, V] by a sampler."""
    replay = replay_for(speaks, ask.seed)
    found = []
    for place, (row, token) in enumerate(zip(rows, ids, strict=True)):
        context = Context(prompt, tuple(ids[:place]))
        probs = sampler.probs(row, context)
        wide = probs.astype(np.float64)
        p = float(wide[token])
        below = float(wide[wide > p].sum() + wide[:token][wide[:token] == p].sum())
        kept = wide[wide > 0]
        logs = np.log(kept)
        mean = float((kept * logs).sum())
        variance = float((kept * logs**2).sum() - mean**2)
        again = replay.next(probs, token, reach) if replay else None
        found.append((
            below, p, p > 0 or _possible(sampler, row, token, context, reach), mean, max(variance, 0.0),
            again.miss if again else np.nan, again.token if again else -1,
        ))  # fmt: skip
    columns = list(zip(*found, strict=True)) if found else [()] * 7
    below_, p_, supported, mean_, variance_, miss, token_ = columns
    return Draws(
        np.array(below_, float), np.array(p_, float), np.array(supported, bool), np.array(mean_, float),
        np.array(variance_, float), np.array(miss, float), np.array(token_, np.int64),
    )  # fmt: skip


def sampling(ask: Ask) -> dict[str, object]:
    """The keywords of ``decoding.dialect`` for a request."""
    return dict(vars(ask.settings))


def reach_of(ask: Ask, noise: float) -> float:
    """How far the logarithm of a ratio of two final probabilities may be off when each logit may be by ``noise``."""
    t = ask.settings.temperature
    return 2 * noise * max(1.0, ask.settings.repetition_penalty or 1.0) / (min(t, 1.0) if t else 1.0)


def log_p(draws: Draws) -> Array:
    """ln p of the drawn tokens; those without a chance are left to the support test and count as expected."""
    with np.errstate(divide="ignore"):
        logs = np.log(draws.p)
    return np.where(draws.p > 0, logs, draws.expected)


def softmax64(logits: Logits) -> Floats:
    """Probabilities in float64."""
    return np.asarray(softmax(logits.astype(np.float64)))


def _possible(sampler: Sampler, row: Array, token: int, context: Context, reach: float) -> bool:
    """Whether the token would be kept if its logit were a little larger."""
    raised = row.copy()
    raised[token] += reach
    return bool(sampler.probs(raised, context)[token] > 0)
