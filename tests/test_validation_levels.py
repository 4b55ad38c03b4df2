"""Each level passes on a healthy target, and fails on a fault of its own kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from checkpoints_made import converted, spoiled
from validation_made import SMALL, engine, material, model_folder

from labsupport.decoding import Settings
from labsupport.errors import LabError
from labsupport.validation.ladder import RUNGS, climb, run
from labsupport.validation.material import Material
from labsupport.validation.reference import Reference
from labsupport.validation.target import Answer, Ask, Prompt, Target, Wrapped
from labsupport.validation.verdict import Level, Report

LEVELS = [rung.name for rung in RUNGS]


@cache
def healthy() -> Report:
    return climb(material(), every=True)


def level(name: str, target: Target) -> Level:
    [rung] = [rung for rung in RUNGS if rung.name == name]
    return run(rung, material(target))


def failed(found: Level) -> set[str]:
    return {verdict.test for verdict in found.verdicts if verdict.decision == "fail"}


def test_a_healthy_target_passes_every_level() -> None:
    assert [level.name for level in healthy().levels] == LEVELS
    wrong = [v for level in healthy().levels for v in level.verdicts if v.decision == "fail"]
    assert wrong == []
    assert healthy().decision == "pass"
    assert healthy().exit_code == 0


class Changed(Wrapped):
    """Every request is changed before it is served."""

    def __init__(self, inner: Target, change: Callable[[Ask], Ask]) -> None:
        super().__init__(inner)
        self.change = change

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        return self.inner.generate([self.change(ask) for ask in asks])

    def stream(self, ask: Ask) -> Answer:
        return self.inner.stream(self.change(ask))

    def received(self, ask: Ask) -> Any:
        return self.inner.received(self.change(ask))


def setting(**changes: Callable[[Any], Any]) -> Callable[[Ask], Ask]:
    """A change of settings: each given one is what its function makes of it; unset ones stay unset."""

    def change(ask: Ask) -> Ask:
        values = {
            name: change(old) for name, change in changes.items() if (old := getattr(ask.settings, name)) is not None
        }
        return replace(ask, settings=replace(ask.settings, **values))

    return change


def test_l0_sees_a_number_that_went_through_text() -> None:
    shortened = Changed(engine(), setting(temperature=lambda t: float(repr(np.float32(t).item())[:9])))
    assert failed(level("L0", shortened)) == {"bits"}


def test_l0_sees_half_precision() -> None:
    half = Changed(engine(), setting(top_p=lambda p: float(np.float16(p))))
    assert "bits" in failed(level("L0", half))


def test_l0_sees_a_dropped_parameter_and_one_token_too_many() -> None:
    assert "bits" in failed(level("L0", Changed(engine(), setting(repetition_penalty=lambda _: None))))
    more = level("L0", Changed(engine(), lambda ask: replace(ask, max_tokens=ask.max_tokens + 1)))
    assert failed(more) == {"bits", "probes"}
    late = level("L0", Changed(engine(), setting(min_length=lambda n: n + 1)))
    assert "with min_tokens 5 the end stands at [6]" in str(late.verdicts[1].evidence)


class Template(Wrapped):
    """Another way from a conversation to ids."""

    def __init__(self, inner: Target, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> None:
        super().__init__(inner)
        self.change = change

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        return self.change(self.inner.tokenize(prompt) or ())


def test_l1_sees_a_second_bos_and_a_missing_generation_prompt() -> None:
    assert failed(level("L1", Template(engine(), lambda ids: (ids[0], *ids)))) == {"three routes", "one BOS"}
    assert failed(level("L1", Template(engine(), lambda ids: ids[:-10]))) == {"three routes"}


def test_l1_is_undecided_where_no_ids_are_shown() -> None:
    class Hidden(Wrapped):
        def tokenize(self, prompt: Prompt) -> None:  # noqa: ARG002
            return None

        def generate(self, asks: Sequence[Ask]) -> list[Answer]:
            return [replace(answer, input_ids=None) for answer in self.inner.generate(asks)]

    assert level("L1", Hidden(engine())).decision == "insufficient"


def test_conversations_that_the_template_refuses_are_not_asked() -> None:
    strict = Reference(model_folder())
    strict.tokenizer.chat_template = "{{ raise_exception('no system') if messages[0].role == 'system' }}x"
    asked = Material(engine(), strict).conversations
    assert len(asked) == len(material().conversations) - 2
    assert all(prompt[0].role != "system" for prompt in asked if not isinstance(prompt, str))


def scaled(factor: float) -> Any:
    def change(held: dict[str, Any]) -> None:
        held["transformer.layers.2.mlp.proj.weight"] *= factor

    return change


@pytest.mark.parametrize("factor", [1.01, 2.0])
def test_l2_sees_weights_that_are_off(factor: float, tmp_path: Any) -> None:
    wrong = spoiled(converted(model_folder()), tmp_path / "wrong", tensors=scaled(factor))
    found = level("L2", engine(wrong))
    assert failed(found) == {"mean KL divergence", "reported log-probs"}
    assert level("L2", engine(wrong, logits=False)).verdicts[0].test == "reported log-probs"


def test_l2_sees_log_probs_of_the_wrong_token() -> None:
    class Late(Wrapped):
        def generate(self, asks: Sequence[Ask]) -> list[Answer]:
            answers = self.inner.generate(asks)
            return [replace(a, log_probs=(*(a.log_probs or ())[1:], 0.0)) for a in answers]

    assert failed(level("L2", Late(engine()))) == {"reported log-probs"}


def test_l2_is_undecided_without_numbers() -> None:
    class Mute(Wrapped):
        def generate(self, asks: Sequence[Ask]) -> list[Answer]:
            return [replace(answer, log_probs=None, logits=None) for answer in self.inner.generate(asks)]

    assert level("L2", Mute(engine())).decision == "insufficient"


class Second(Wrapped):
    """Once in a while the second best token, as a broken argmax would choose it."""

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        return [self._changed(answer) for answer in self.inner.generate(asks)]

    def _changed(self, answer: Answer) -> Answer:
        if answer.logits is None or len(answer.output_ids) < 3:
            return answer
        ids = list(answer.output_ids)
        ids[-1] = int(np.argsort(answer.logits[-1])[-2])
        return replace(answer, output_ids=tuple(ids))


def test_l3_sees_the_second_best_token() -> None:
    assert "near-tie margin" in failed(level("L3", Second(engine())))


SAMPLER_FAULTS: dict[str, Callable[[Ask], Ask]] = {
    "T x 1.05": setting(temperature=lambda t: t * 1.05),
    "T x 1.02": setting(temperature=lambda t: t * 1.02),
    "top_k off by one, more": setting(top_k=lambda k: k + 1 if k > 1 else k),
    "top_k off by one, less": setting(top_k=lambda k: k - 1 if k > 1 else k),
    "top_p .9 as .91": setting(top_p=lambda p: min(1.0, p + 0.01)),
    "seed ignored": lambda ask: replace(ask, seed=0),
    "seed cut to 32 bits": lambda ask: replace(ask, seed=None if ask.seed is None else ask.seed & 0xFFFFFFFF),
    "no presence penalty": setting(presence_penalty=lambda _: None, frequency_penalty=lambda _: None),
}


@pytest.mark.parametrize("fault", SAMPLER_FAULTS)
def test_l4_sees_a_wrong_sampler(fault: str) -> None:
    assert failed(level("L4", Changed(engine(), SAMPLER_FAULTS[fault])))


def test_l4_tells_a_wider_support_by_its_name() -> None:
    assert "support" in failed(level("L4", Changed(engine(), SAMPLER_FAULTS["top_k off by one, more"])))


def test_l4_without_seed_replay_still_sees_a_coarse_fault() -> None:
    """Where the random stream is unknown, distributions are left: they see T x 1.5."""

    class Other(Wrapped):
        @property
        def facts(self) -> Any:
            return replace(self.inner.facts, dialect="trtllm-torch")

    asked = Other(Changed(engine(), setting(temperature=lambda t: t * 1.5)))
    found = level("L4", asked)
    assert failed(found) & {"surprisal", "probability integral transform", "support"}
    assert "seed replay" not in failed(found)


def test_l5_sees_an_ignored_end_and_another_distribution() -> None:
    class Endless(Wrapped):
        def generate(self, asks: Sequence[Ask]) -> list[Answer]:
            answers = self.inner.generate(asks)
            return [replace(a, output_ids=(*a.output_ids[:2], 2, *a.output_ids[3:])) for a in answers]

    assert "ends" in failed(level("L5", Endless(engine())))
    deaf = Changed(engine(), lambda ask: replace(ask, ignore_end=True))
    assert failed(level("L5", deaf)) == {"ends"}
    assert failed(level("L0", deaf)) == set()
    other = Changed(engine(), lambda ask: replace(ask, settings=replace(ask.settings, logit_bias={9: 9.0})))
    assert "two samples (MMD)" in failed(level("L5", other))


class Pieces(Wrapped):
    """Another stream."""

    def __init__(self, inner: Target, change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> None:
        super().__init__(inner)
        self.change = change

    def stream(self, ask: Ask) -> Answer:
        answer = self.inner.stream(ask)
        return replace(answer, events=self.change(answer.events))


def _cumulative(events: tuple[Any, ...]) -> tuple[Any, ...]:
    texts = ["".join(event.text for event in events[: place + 1]) for place in range(len(events))]
    return tuple(event._replace(text=text) for event, text in zip(events, texts, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events[:-1],
        lambda events: (*events, events[-1]),
        lambda events: tuple(event._replace(text=event.text.lstrip()) for event in events),
        lambda events: tuple(event._replace(final=False) for event in events),
        _cumulative,
    ],
    ids=["last piece dropped", "last piece twice", "spaces dropped", "no final flag", "whole text each time"],
)
def test_l6_sees_a_broken_stream(change: Any) -> None:
    assert failed(level("L6", Pieces(engine(), change)))


class Leaky(Wrapped):
    """What is served together disturbs each other: the positive control of the relations."""

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        answers = self.inner.generate(asks)
        return (
            answers if len(asks) == 1 else [answers[0], *self.inner.generate([self._warmer(ask) for ask in asks[1:]])]
        )

    def _warmer(self, ask: Ask) -> Ask:
        return replace(ask, settings=replace(ask.settings, logit_bias={7: 3.0}))


class Forgetful(Wrapped):
    """The second request for a prompt gets the answer of a shorter one, as a wrong cache hit would give it."""

    def __init__(self, inner: Target) -> None:
        super().__init__(inner)
        self.seen: set[Prompt] = set()

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        answers = []
        for ask in asks:
            known = ask.prompt in self.seen
            self.seen.add(ask.prompt)
            cut = ask.prompt[3:] if known and isinstance(ask.prompt, str) and len(ask.prompt) > 5 else ask.prompt
            answers += self.inner.generate([replace(ask, prompt=cut)])
        return answers


def test_l7_sees_a_batch_that_leaks_and_a_cache_that_lies() -> None:
    assert "alone or together" in failed(level("L7", Leaky(engine())))
    assert "cold or warm cache" in failed(level("L7", Forgetful(engine())))


def test_the_first_failing_level_names_the_component_and_stops_the_ladder() -> None:
    report = climb(material(Changed(engine(), SAMPLER_FAULTS["seed ignored"])))
    assert report.first_failure is not None
    assert report.exit_code == 1
    assert [level.name for level in report.levels][-1] == report.first_failure.name == "L0"  # it shows its bits
    hidden = Changed(engine(), SAMPLER_FAULTS["seed ignored"])
    hidden.received = lambda ask: None  # type: ignore[method-assign]  # noqa: ARG005
    report = climb(material(hidden))
    assert report.first_failure is not None
    assert report.first_failure.name == "L4"
    assert report.to_json()["guilty"] == "the sampler"


def test_a_target_that_refuses_fails_the_level_that_asked() -> None:
    class Closed(Wrapped):
        def generate(self, asks: Sequence[Ask]) -> list[Answer]:
            return [Answer(error="503") for _ in asks]

    found = level("L2", Closed(engine()))
    assert found.decision == "fail"
    assert found.verdicts[0].evidence == ("503",)


def test_too_little_is_insufficient_and_never_a_pass() -> None:
    small = Material(engine(), material().reference, replace(SMALL, sampled=2, sampled_tokens=4, flat=1, flat_tokens=4))
    [rung] = [rung for rung in RUNGS if rung.name == "L4"]
    assert run(rung, small).decision == "insufficient"


def test_settings_that_no_dialect_has_are_left_out() -> None:
    spoken = material().spoken(Settings(temperature=1.0, presence_penalty=0.5))
    assert spoken.presence_penalty == 0.5
    with pytest.raises(LabError):
        material().scored("nothing", [Ask("Hi", 0)])
