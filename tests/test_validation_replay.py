"""Seed replay: a seeded answer again, token by token; and why the seeds of two systems never meet."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from validation_made import engine, material, model_folder

from labsupport.decoding import Settings, Xorwow, dialect, independent_seed, inverse_cdf
from labsupport.validation.replay import IntervalReplay, RaceReplay, interval, replay_for, why_seeds_differ
from labsupport.validation.target import Ask
from labsupport.validation.targets.huggingface import open_huggingface

PROBS = np.array([0.05, 0.4, 0.25, 0.2, 0.1], np.float32)


def test_intervals_tile_the_unit_line_likeliest_first() -> None:
    edges = [interval(PROBS, token) for token in (1, 2, 3, 4, 0)]
    assert edges[0][0] == 0
    assert edges[-1][1] == pytest.approx(1)
    assert all(a[1] == pytest.approx(b[0]) for a, b in pairwise(edges))


def test_what_the_stream_draws_is_a_hit_and_a_token_far_away_a_miss() -> None:
    for index in range(200):
        seed = independent_seed("replay", index)
        drawn = inverse_cdf(PROBS, Xorwow(seed).uniform())
        assert IntervalReplay(seed).next(PROBS, drawn, 0.0).miss == 0
        others = [IntervalReplay(seed).next(PROBS, token, 0.0).miss for token in range(5) if token != drawn]
        assert min(others) > 0


def test_tokens_that_are_nearly_as_likely_may_change_places() -> None:
    twins = np.array([0.4, 0.3000001, 0.2999999], np.float32)
    seed = next(seed for seed in range(100) if 0.45 < Xorwow(seed).uniform() < 0.65)  # in the first twin's interval
    assert inverse_cdf(twins, Xorwow(seed).uniform()) == 1
    assert IntervalReplay(seed).next(twins, 2, 1e-5).miss == 0
    assert IntervalReplay(seed).next(twins, 2, 0.0).miss > 0


def test_an_engines_answer_is_replayed_in_full() -> None:
    found = material().scored("answer", [Ask("Hi", 40, Settings(temperature=0.8, top_k=30, top_p=0.9), 2**63 + 5)])[0]
    assert found.draws is not None
    assert list(found.draws.replayed) == list(found.answer.output_ids)
    assert found.draws.miss.max() == 0


def test_transformers_own_seed_is_replayed_with_its_own_stream() -> None:
    target = open_huggingface(model_folder())
    settings = Settings(do_sample=True, temperature=0.8, top_k=30, top_p=0.9)
    answer = target.generate([Ask("Hi", 20, settings, 11, ignore_end=True)])[0]
    assert answer.error is None
    assert answer.logits is not None
    replay = RaceReplay(11)
    steps = dialect("hf", **vars(settings))
    for row, token in zip(answer.logits, answer.output_ids, strict=True):
        again = replay.next(steps.probs(row), token, 1e-5)
        assert again.miss == 0


def test_the_same_seed_in_two_systems_gives_two_answers() -> None:
    settings = Settings(temperature=1.0, top_p=1.0)
    [ours] = engine().generate([Ask("Hi", 12, settings, 42, ignore_end=True)])
    [theirs] = open_huggingface(model_folder()).generate([Ask("Hi", 12, settings, 42, ignore_end=True)])
    assert ours.input_ids == theirs.input_ids
    assert ours.output_ids != theirs.output_ids


def test_each_difference_alone_parts_the_streams() -> None:
    story = why_seeds_differ(PROBS, 42, tokens=32)
    assert story.xorwow != story.torch
    assert any(cpp != hf for cpp, hf in story.same_numbers)
    assert any(cdf != race for cdf, race in story.swapped)  # one generator, two ways of reading it


def test_streams_that_are_not_known_are_not_replayed() -> None:
    assert replay_for("trtllm-torch", 1) is None
    assert replay_for("hf", None) is None
    assert isinstance(replay_for("trtllm-cpp", None), IntervalReplay)
