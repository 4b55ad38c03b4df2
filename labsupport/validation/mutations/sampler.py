"""M23 to M34: faults of the sampler and of its random stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from labsupport.decoding import Context, Xorwow, dialect, steps
from labsupport.decoding.sampler import Sampler, Step
from labsupport.engine import sequences
from labsupport.validation.mutations.fault import Bench, Fault, above, swapped
from labsupport.validation.target import Target

WHERE = "the sampler"
Change = Callable[[Bench], AbstractContextManager[None]]


def _settings(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    """The sampler is made from other settings than those that arrived."""

    def made(name: str, **settings: Any) -> Sampler:
        return dialect(name, **{**settings, **change(settings)})

    return lambda _: swapped(sequences, dialect=made)


def _steps(change: Callable[[dict[str, Any], list[Step]], list[Step]]) -> Change:
    """The sampler's steps, changed."""

    def made(name: str, **settings: Any) -> Sampler:
        honest = dialect(name, **settings)
        return replace(honest, steps=tuple(change(settings, list(honest.steps))))

    return lambda _: swapped(sequences, dialect=made)


def _instead(step_name: str, apply: Callable[[Any, Any, Context], Any]) -> Change:
    """One step computes something else: ``apply(logits, setting, context)``."""

    def other(step: Step) -> Step:
        return replace(step, apply=lambda logits, context: apply(logits, step.setting, context))

    return _steps(lambda _, found: [other(step) if step.name == step_name else step for step in found])


def _streams(stream: Callable[[int], Any]) -> Change:
    """Another random stream for a seed."""
    return lambda _: swapped(sequences, stream_for=lambda _name, seed=None: stream(seed or 0))


class Standing(Xorwow):
    """A generator whose state is not stored back: the same uniform at each step."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._only = super().uniform()

    def uniform(self) -> float:
        """Always the first one."""
        return self._only


class Coarse(Xorwow):
    """Probabilities are summed in bfloat16."""

    def draw(self, probs: Any) -> int:
        """Walk down a running sum that is rounded at each step."""
        order = np.argsort(-probs, kind="stable")[:4096]
        total, sums = np.float32(0), []
        for p in probs[order]:
            total = _bfloat16(total + np.float32(p))
            sums.append(total)
        place = int(np.searchsorted(np.array(sums), self.uniform() * sums[-1], side="left"))
        return int(order[min(place, len(order) - 1)])


def _bfloat16(x: np.float32) -> np.float32:
    bits = int(np.float32(x).view(np.uint32))
    return np.uint32((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


@contextmanager
def _by_batch_index(_: Bench) -> Iterator[None]:
    """States belong to places in the batch, and go on where the request before stopped."""
    honest = sequences.Sampled.accept
    states: dict[int, Any] = {}

    def accept(self: Any, logits: Any) -> Sequence[int]:
        self._stream = states.setdefault(self.slot, self._stream)
        return honest(self, logits)

    with swapped(sequences.Sampled, accept=accept):
        yield


def _last(name: str) -> Change:
    """A step that runs after all others."""
    return _steps(lambda _, found: sorted(found, key=lambda step: step.name == name))


def _strict_top_p(logits: Any, p: float, _: Context) -> Any:
    """The token that crosses p is dropped, unless it is the first."""
    probs = steps.softmax(logits.astype(np.float64))
    order = np.argsort(-probs, kind="stable")
    kept = order[np.cumsum(probs[order]) <= p]
    return _only(logits, kept if len(kept) else order[:1])


def _generous_top_p(logits: Any, p: float, _: Context) -> Any:
    """One token more than the nucleus has."""
    probs = steps.softmax(logits.astype(np.float64))
    order = np.argsort(-probs, kind="stable")
    return _only(logits, order[: int((np.cumsum(probs[order]) < p).sum()) + 2])


def _only(logits: Any, kept: Any) -> Any:
    left = np.full_like(logits, -np.inf)
    left[kept] = logits[kept]
    return left


def _whole_mass(_: dict[str, Any], found: list[Step]) -> list[Step]:
    """top_p is held against the mass of the whole vocabulary, though top_k cut it already."""
    names = [step.name for step in found]
    if not {"top_k", "top_p"} <= set(names):
        return found
    cut, nucleus = (found[names.index(name)] for name in ("top_k", "top_p"))

    def apply(logits: Any, context: Context) -> Any:
        left = cut.apply(logits, context)
        mass = float(steps.softmax(logits)[np.isfinite(left)].sum())
        return steps.top_p_cut(left, min(1.0, nucleus.setting / mass))

    return [step for step in found if step not in (cut, nucleus)] + [replace(nucleus, apply=apply)]


@contextmanager
def _ties(_: Bench) -> Iterator[None]:
    """top_k = 1 keeps all that are as good as equal: among the two likeliest, a coin decides within 0.3."""
    honest = sequences.choose

    def choose(sampler: Any, logits: Any, stream: Any, prompt: Any, output: Any) -> int:
        if any(step.name == "top_k" and step.setting == 1 for step in sampler.steps):
            first, second = np.argsort(-logits)[:2]
            return int(second if logits[first] - logits[second] < 0.3 and stream.uniform() < 0.5 else first)
        return honest(sampler, logits, stream, prompt, output)

    with swapped(sequences, choose=choose):
        yield


def _prompt_left_out(bench: Bench) -> AbstractContextManager[None]:
    """Repetition, presence and frequency count what was written, and not the prompt."""
    kinds = ("repetition_penalty", "presence_penalty", "frequency_penalty")

    def other(step: Step) -> Step:
        penalty = getattr(steps, step.name)
        return replace(step, apply=lambda logits, context: penalty(logits, step.setting, context.output))

    return _steps(lambda _, found: [other(step) if step.name in kinds else step for step in found])(bench)


def _before_temperature(_: dict[str, Any], found: list[Step]) -> list[Step]:
    """Presence and frequency are taken off before the division, as vLLM does."""
    first = [step for step in found if step.name in ("presence_penalty", "frequency_penalty")]
    return [*first, *(step for step in found if step not in first)]


def _always_divided(logits: Any, penalty: float, context: Context) -> Any:
    """The penalty divides negative logits too, which makes them likelier."""
    seen = [id for id in set(context.tokens) if id < len(logits)]
    changed = logits.copy()
    changed[seen] = logits[seen] / penalty
    return changed


PADDING = 64


@contextmanager
def _padding(bench: Bench) -> Iterator[Target]:
    """Rows that fill the vocabulary up are scored, and nothing forbids them."""
    honest = bench.remembered

    def padded(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **how: Any) -> Any:
            logits = call(*args, **how)
            rows = np.repeat(logits.max(-1, keepdims=True) - 3, PADDING, axis=-1)
            return np.concatenate([logits, rows], axis=-1)

        return run

    class Padded:
        vocab_size = honest.vocab_size + PADDING
        tokens_per_block, max_rows = honest.tokens_per_block, honest.max_rows
        new_cache, copy_blocks = honest.new_cache, honest.copy_blocks
        context, generation = staticmethod(padded(honest.context)), staticmethod(padded(honest.generation))

    yield bench.target(Padded())


def _hotter(factor: float) -> Change:
    return _settings(lambda given: {"temperature": (given.get("temperature") or 1.0) * factor})


def _top_k(change: int) -> Change:
    return _settings(lambda given: {"top_k": given["top_k"] + change} if (given.get("top_k") or 0) > 1 else {})


def _top_p(change: float) -> Change:
    return _settings(lambda given: {"top_p": min(1.0, given["top_p"] + change)} if given.get("top_p") else {})


FAULTS = (
    Fault("M23", "the seed is ignored", "L4", WHERE, above(_streams(lambda _: Xorwow(0)))),
    Fault("M24", "random state by place in the batch", "L4", WHERE, above(_by_batch_index)),
    Fault("M25", "random state not advanced", "L4", WHERE, above(_streams(Standing))),
    Fault("M26", "temperature x 1.1", "L4", WHERE, above(_hotter(1.1)), "1.1", measured=False),
    Fault("M26", "temperature x 1.05", "L4", WHERE, above(_hotter(1.05)), "1.05"),
    Fault("M26", "temperature x 1.02", "L4", WHERE, above(_hotter(1.02)), "1.02", measured=False),
    Fault("M26", "temperature x 1.005", "L4", WHERE, above(_hotter(1.005)), "1.005", measured=False),
    Fault("M27", "temperature after top-p", "L4", WHERE, above(_last("temperature"))),
    Fault("M28", "top-p drops the crossing token", "L4", WHERE, above(_instead("top_p", _strict_top_p)), "-1"),
    Fault("M28", "top-p keeps one token more", "L4", WHERE, above(_instead("top_p", _generous_top_p)), "+1",
          measured=False),
    Fault("M28", "top-p + 0.05", "L4", WHERE, above(_top_p(0.05)), "+0.05", measured=False),
    Fault("M28", "top-p + 0.01", "L4", WHERE, above(_top_p(0.01)), "+0.01", measured=False),
    Fault("M29", "top-p of the whole mass after top-k", "L4", WHERE, above(_steps(_whole_mass))),
    Fault("M30", "top-k one too many", "L4", WHERE, above(_top_k(1)), "+1"),
    Fault("M30", "top-k one too few", "L4", WHERE, above(_top_k(-1)), "-1", measured=False),
    Fault("M30", "top-k = 1 keeps near-ties", "L4", WHERE, above(_ties), "ties", measured=False),
    Fault("M31", "penalties leave the prompt out", "L4", WHERE, above(_prompt_left_out), "prompt"),
    Fault("M31", "presence before the temperature", "L4", WHERE, above(_steps(_before_temperature)), "order",
          measured=False),
    Fault("M32", "repetition penalty divides negative logits", "L4", WHERE,
          above(_instead("repetition_penalty", _always_divided))),
    Fault("M33", "padded vocabulary not masked", "L4", WHERE, _padding,
          note="SmolLM2's 49,152 rows need no padding: 64 rows are added, as for four ranks"),
    Fault("M34", "probabilities summed in bfloat16", "L4", WHERE, above(_streams(Coarse))),
)  # fmt: skip
