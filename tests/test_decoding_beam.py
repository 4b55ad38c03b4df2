"""Beam search on a tiny vocabulary, where everything can be counted.

transformers 5 runs diverse groups only through remote code, so here they are held against a second, plain statement
of the rule.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labsupport.decoding import BeamTrace, NextLogprobs, beam_search, log_softmax
from labsupport.errors import ParameterError


def toy_model(vocabulary: int, seed: int = 0) -> NextLogprobs:
    """A random but fixed distribution for every possible context."""

    def next_logprobs(sequences: list[list[int]]) -> np.ndarray:
        rows = [np.random.default_rng([seed, *sequence]).normal(size=vocabulary) * 2 for sequence in sequences]
        return log_softmax(np.array(rows))

    return next_logprobs


def logprob_of(model: NextLogprobs, tokens: tuple[int, ...]) -> float:
    return sum(float(model([list(tokens[:t])])[0, token]) for t, token in enumerate(tokens))


def all_sequences(vocabulary: int, length: int, end: int) -> list[tuple[int, ...]]:
    """Every sequence that a search can finish: it ends in the end token, or has the full length without one before."""
    return [
        tokens
        for n in range(1, length + 1)
        for tokens in itertools.product(range(vocabulary), repeat=n)
        if end not in tokens[:-1] and (tokens[-1] == end or n == length)
    ]


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_search_meets_brute_force(seed: int, length_penalty: float) -> None:
    vocabulary, length, end = 3, 4, 2
    model = toy_model(vocabulary, seed)
    trace = beam_search(
        model,
        [],
        width=vocabulary**length,
        max_new_tokens=length,
        end_ids=[end],
        length_penalty=length_penalty,
        early_stopping="never",
    )
    scores = {t: logprob_of(model, t) / len(t) ** length_penalty for t in all_sequences(vocabulary, length, end)}
    ranked = sorted(scores, key=lambda tokens: -scores[tokens])
    assert [h.tokens for h in trace.hypotheses] == ranked
    np.testing.assert_allclose([h.score for h in trace.hypotheses], [scores[tokens] for tokens in ranked])


def test_greedy_can_lose_to_two_beams() -> None:
    def next_logprobs(sequences: list[list[int]]) -> np.ndarray:
        table = {(): [0.6, 0.4], (0,): [0.5, 0.5], (1,): [0.1, 0.9]}
        return np.log([table[tuple(sequence)] for sequence in sequences])

    greedy = beam_search(next_logprobs, [], width=1, max_new_tokens=2)
    wide = beam_search(next_logprobs, [], width=2, max_new_tokens=2)
    assert greedy.best.tokens[0] == 0
    assert np.exp(greedy.best.logprob) == pytest.approx(0.30)
    assert wide.best.tokens == (1, 1)
    assert np.exp(wide.best.logprob) == pytest.approx(0.36)


def search(seed: int, width: int, **more: Any) -> BeamTrace:
    request: dict[str, Any] = {"width": width, "max_new_tokens": 6, "end_ids": [0, 1]}
    return beam_search(toy_model(12, seed), [3], **{**request, **more})


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.sampled_from([True, False, "never"]), st.sampled_from([0.0, 1.0]))
def test_the_trace_accounts_for_every_candidate(
    seed: int, width: int, early_stopping: bool | str, length_penalty: float
) -> None:
    trace = search(seed, width, early_stopping=early_stopping, length_penalty=length_penalty)
    model = toy_model(12, seed)
    for step, after in itertools.zip_longest(trace.steps, trace.steps[1:]):
        kept, finished, pruned = (step.with_fate(fate) for fate in ("kept", "finished", "pruned"))
        assert len(kept) + len(finished) + len(pruned) == len(step.candidates)
        assert len(kept) <= width
        totals = [candidate.total for candidate in step.candidates]
        assert totals == sorted(totals, reverse=True)
        for candidate in step.candidates:
            parent = step.beams[candidate.parent]
            assert candidate.tokens[:-1] == parent.tokens
            assert candidate.total == step.totals[candidate.parent, candidate.token]
            assert candidate.logprob == pytest.approx(logprob_of_output(model, candidate.tokens))
        not_competing = np.sort(step.totals, axis=None)[: -len(step.candidates)]
        assert not_competing.size == 0 or not_competing.max() <= totals[-1]
        if after is not None:
            assert [beam.tokens for beam in after.beams] == [candidate.tokens for candidate in kept]
    ended = {candidate.tokens for step in trace.steps for candidate in step.with_fate("finished")}
    assert {h.tokens for h in trace.hypotheses} <= ended
    scores = [h.score for h in trace.hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert all(h.score == pytest.approx(h.logprob / len(h.tokens) ** length_penalty) for h in trace.hypotheses)


def logprob_of_output(model: NextLogprobs, tokens: tuple[int, ...]) -> float:
    return sum(float(model([[3, *tokens[:t]]])[0, token]) for t, token in enumerate(tokens))


def test_the_stopping_rules_search_further_and_further() -> None:
    lengths = {
        rule: [len(search(s, 3, early_stopping=rule).steps) for s in range(40)] for rule in (True, False, "never")
    }
    for eager, standard, patient in zip(*lengths.values(), strict=True):
        assert eager <= standard <= patient
    assert sum(lengths[True]) < sum(lengths[False]) < sum(lengths["never"])


def test_never_assumes_the_shortest_length_when_short_is_favored() -> None:
    """With a negative penalty every further token costs, so the best that a beam can hope for is to end now."""
    table = {(): [-1.0, -1.2, -9.0], (1,): [-1.8, -0.8, -9.0], (1, 1): [-0.1, -9.0, -9.0]}

    def next_logprobs(sequences: list[list[int]]) -> np.ndarray:
        return np.array([table.get(tuple(sequence), [-9.0, -9.0, -9.0]) for sequence in sequences])

    trace = beam_search(
        next_logprobs, [], width=2, max_new_tokens=20, end_ids=[0], length_penalty=-0.2, early_stopping="never"
    )
    assert [h.tokens for h in trace.hypotheses] == [(0,), (1, 1, 0)]
    assert trace.hypotheses[1].score == pytest.approx(-2.1 * 3**0.2)
    assert trace.stopped == ("no running beam can score better",)


def test_a_higher_length_penalty_favors_longer_sequences() -> None:
    means = []
    for penalty in (-2.0, 0.0, 2.0):
        traces = [search(s, 4, length_penalty=penalty, early_stopping="never") for s in range(40)]
        means.append(np.mean([len(trace.best.tokens) for trace in traces]))
    assert means[0] < means[1] < means[2]


def plain_group_search(
    model: NextLogprobs, prompt: list[int], width: int, groups: int, penalty: float, length: int, end: int
) -> list[tuple[tuple[int, ...], float]]:
    """Diverse beam search over dictionaries, with no end-of-search heuristic: (tokens, total / length), best first."""
    per_group = width // groups
    running: list[dict[tuple[int, ...], float]] = [{(): 0.0} for _ in range(groups)]
    finished: list[dict[tuple[int, ...], float]] = [{} for _ in range(groups)]
    for n in range(1, length + 1):
        used: list[int] = []
        for g in range(groups):
            if len(finished[g]) == per_group:
                continue
            options = {}
            for tokens, total in running[g].items():
                row = model([[*prompt, *tokens]])[0]
                for token in range(len(row)):
                    options[(*tokens, token)] = total + row[token] - penalty * used.count(token)
            best = sorted(options, key=lambda tokens: -options[tokens])[: 2 * per_group]
            for tokens in best[:per_group]:
                if tokens[-1] == end or n == length:
                    finished[g][tokens] = options[tokens] / n
            finished[g] = dict(sorted(finished[g].items(), key=lambda item: -item[1])[:per_group])
            running[g] = {t: options[t] for t in [t for t in best if t[-1] != end][:per_group]}
            used += [tokens[-1] for tokens in running[g]] if n < length else []
    return sorted((item for group in finished for item in group.items()), key=lambda item: -item[1])


@pytest.mark.parametrize("penalty", [0.0, 0.5, 3.0])
@pytest.mark.parametrize(("width", "groups"), [(2, 2), (4, 2), (6, 3), (6, 2), (8, 4)])
def test_diverse_groups_follow_the_plain_statement(width: int, groups: int, penalty: float) -> None:
    for seed in range(6):
        model = toy_model(12, seed)
        trace = beam_search(
            model,
            [3],
            width=width,
            groups=groups,
            diversity_penalty=penalty,
            max_new_tokens=5,
            end_ids=[0],
            early_stopping=True,
        )
        expected = plain_group_search(model, [3], width, groups, penalty, 5, 0)
        assert sorted((h.tokens, round(h.score, 9)) for h in trace.hypotheses) == sorted(
            (tokens, round(score, 9)) for tokens, score in expected
        )


def test_groups_without_a_penalty_are_copies_and_with_a_large_one_begin_differently() -> None:
    alone = beam_search(toy_model(12), [3], width=2, max_new_tokens=5)
    copies = beam_search(toy_model(12), [3], width=6, groups=3, max_new_tokens=5)
    for group in range(3):
        assert [h.tokens for h in copies.hypotheses if h.group == group] == [h.tokens for h in alone.hypotheses]
    diverse = beam_search(toy_model(12), [3], width=3, groups=3, diversity_penalty=100.0, max_new_tokens=5)
    assert len({h.tokens[0] for h in diverse.hypotheses}) == 3
    for h in diverse.hypotheses:
        assert h.logprob == pytest.approx(logprob_of_output(toy_model(12), h.tokens))


def test_a_forbidden_token_is_never_a_candidate() -> None:
    without_two = np.array([np.log(0.5), np.log(0.5), -np.inf])
    trace = beam_search(lambda sequences: np.tile(without_two, (len(sequences), 1)), [], width=4, max_new_tokens=3)
    assert all(candidate.token != 2 for step in trace.steps for candidate in step.candidates)
    assert len(trace.hypotheses) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width 0"),
        ({"max_new_tokens": 0}, "max_new_tokens 0"),
        ({"early_stopping": "soon"}, "early_stopping 'soon'"),
        ({"groups": 3}, "3 groups for width 4"),
        ({"diversity_penalty": 0.5}, r"diversity_penalty 0.5 with 1 group\(s\)"),
        ({"diversity_penalty": -1.0, "groups": 2}, "diversity_penalty -1.0"),
    ],
)
def test_a_setting_out_of_range_is_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        search(0, **{"width": 4, **change})


def test_a_search_with_no_way_on_is_explained() -> None:
    with pytest.raises(ParameterError, match="the search found no sequence"):
        beam_search(lambda sequences: np.full((len(sequences), 3), -np.inf), [], width=2, max_new_tokens=3)


def test_a_model_that_returns_the_wrong_shape_is_explained() -> None:
    with pytest.raises(ParameterError, match=r"next_logprobs returned the shape \(3,\) for 1 sequences"):
        beam_search(lambda _: np.zeros(3), [], width=2, max_new_tokens=3)
