"""What a learner reads: passed, not yet attempted, or what is wrong with a small counter-example."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labsupport.errors import ParameterError
from labsupport.labs.checks import (
    Exercise,
    Verdict,
    Wrong,
    check,
    exercise,
    exercises_of,
    expect,
    expect_choice,
    expect_close,
    expect_equal,
    find,
    judge,
)


def halve(x):
    return x / 2


@exercise("99.1", reference=halve)
def halving(attempt):
    given = np.array([2.0, 4.0])
    expect_close(attempt(given), halve(given), given={"x": given})


def stub(x):
    raise NotImplementedError


def falls_over(_):
    nothing = []
    return nothing[3]


def says(attempt):
    return str(judge(halving, attempt))


def test_a_right_attempt_passes():
    assert says(lambda x: 0.5 * x) == "✓ Exercise 99.1: passed."


@pytest.mark.parametrize("attempt", [stub, None, ..., "", " ", [None, None], {"a": None, "b": ...}, ("",)])
def test_a_stub_is_not_yet_attempted(attempt):
    assert says(attempt) == "○ Exercise 99.1: not yet attempted."


def test_a_wrong_value_is_shown_with_its_input_and_its_place():
    assert says(lambda x: x / np.array([2, 4])) == (
        "✗ Exercise 99.1: not right yet.\n"
        "  For x=[2., 4.]:\n    you got  [1., 1.]\n    expected [1., 2.]\n  first difference at [1]: 1, expected 2"
    )


def test_an_error_in_the_learners_code_is_shown_with_its_line_and_no_traceback():
    text = says(falls_over)
    assert "Your code stopped with IndexError: list index out of range" in text
    assert "return nothing[3]" in text
    assert "Traceback" not in text


def test_an_error_without_a_message_is_shown_by_its_name():
    def gives_up(_):
        raise KeyError

    assert "Your code stopped with KeyError\n" in says(gives_up)


def test_what_is_no_function_is_said_so():
    assert "cannot be used here: TypeError: 'int' object is not callable" in says(3)


@pytest.mark.parametrize("result", [None, "two", [[1], [2, 3]], {"a": 1}, object()])
def test_a_result_that_is_no_number_is_said_so(result):
    assert "expected numbers" in says(lambda _: result)


def test_nothing_a_learner_raises_stops_the_lab_but_an_interrupt_does():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        judge(halving, interrupted)


def test_check_prints_and_hands_back_what_the_lab_can_go_on_with(monkeypatch, capsys):
    monkeypatch.setattr("labsupport.labs.checks.core.find", {"99.1": halving}.__getitem__)
    mine = lambda x: 0.5 * x  # noqa: E731
    assert check("99.1", mine) is mine
    assert check("99.1", stub) is halve
    assert check("99.1", falls_over) is halve
    states = [line.split(": ")[1] for line in capsys.readouterr().out.splitlines() if "Exercise" in line]
    assert states == ["passed.", "not yet attempted.", "not right yet."]


def test_unknown_exercises_and_ids_are_said_so():
    with pytest.raises(ParameterError, match=r"no exercise '98\.1'"):
        find("98.1")
    with pytest.raises(ParameterError, match="no exercise 'x'"):
        find("x")
    with pytest.raises(ParameterError, match=r"exercise id '2\.3'"):
        exercise("2.3", reference=None)
    assert exercises_of("98") == {}


@pytest.mark.parametrize(
    "got",
    [
        [1.0, 2.0],
        (1, 2),
        np.array([1, 2], dtype=np.float32),
        torch.tensor([1.0, 2.0], requires_grad=True),
    ],
)
def test_numbers_are_compared_whatever_holds_them(got):
    expect_close(got, np.array([1.0, 2.0]))


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        (3.0, 4.0, "you got 3, expected 4"),
        ([1, 2], [1, 2, 3], r"shape \(2,\), expected \(3,\)"),
        ([[1, 2], [3, 5]], [[1, 2], [3, 4]], r"at \[\(1, 1\)\]: 5, expected 4"),
        ([np.nan], [1.0], r"at \[0\]: nan, expected 1"),
        ([0.0], [-np.inf], r"at \[0\]: 0, expected -inf"),
    ],
)
def test_differences_are_shown_where_they_are(got, want, message):
    with pytest.raises(Wrong, match=message):
        expect_close(got, want)


def test_infinities_and_nans_in_the_same_places_are_equal():
    expect_close([np.nan, -np.inf, 1], [np.nan, -np.inf, 1])


def test_answers_are_compared_exactly():
    expect_equal(np.array([1, 2]), [1, 2])
    with pytest.raises(Wrong, match=r"For 'a b': you got \['a'\], expected \['a', 'b'\]"):
        expect_equal(["a"], ["a", "b"], given="'a b'")
    with pytest.raises(Wrong, match="it is odd"):
        expect(3 % 2 == 0, "it is odd")


def test_a_wrong_choice_is_told_its_reason_and_not_the_right_one():
    reasons = {"a": "that is the sum", "c": "that is the product"}
    expect_choice(" B ", "b", reasons=reasons)
    with pytest.raises(Wrong, match="'a': that is the sum"):
        expect_choice("A", "b", reasons=reasons)
    with pytest.raises(Wrong, match="'d' is none of the choices a, b, c"):
        expect_choice("d", "b", reasons=reasons)


def test_an_exercise_is_plain_data():
    assert isinstance(halving, Exercise)
    assert (halving.id, halving.reference) == ("99.1", halve)


def test_a_long_reason_is_wrapped_between_words():
    sentence = " ".join(f"word{number}" for number in range(40))
    lines = str(Verdict("02.1", "not right yet", f"{sentence}\n  [0.1, 0.2]")).splitlines()[1:]
    assert all(line.startswith("  ") and len(line) <= 92 for line in lines)
    assert " ".join(line.strip() for line in lines[:-1]) == sentence
    assert lines[-1] == "    [0.1, 0.2]"
