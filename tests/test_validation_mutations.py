"""Planted faults: each can be planted and taken out again, is found by its level, and the recording keeps its bars."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from checkpoints_made import converted
from click.testing import CliRunner
from validation_made import engine, model_folder

from labsupport.decoding import Settings
from labsupport.errors import ParameterError
from labsupport.validation.diagnosis import only_in_company
from labsupport.validation.ladder import RUNGS, climb, run
from labsupport.validation.material import Material
from labsupport.validation.mutations import blind
from labsupport.validation.mutations.benign import BENIGN
from labsupport.validation.mutations.catalogue import ALL, FAST, chosen
from labsupport.validation.mutations.commands import mutation_matrix
from labsupport.validation.mutations.fault import Bench, swapped
from labsupport.validation.mutations.matrix import Kept, Outcome, jobs, run_fault, run_seeds, seeds, work
from labsupport.validation.mutations.recording import LEVELS, Matrix, Rate, lines, read_matrix
from labsupport.validation.mutations.remembering import RememberingModel
from labsupport.validation.reference import Reference
from labsupport.validation.target import Ask, conversation
from labsupport.workspace import data_folder

RECORDING = data_folder() / "recordings" / "mutation_matrix.json"
GREEDY = Ask(conversation(("user", "Hello")), 6, Settings(top_k=1), ignore_end=True)
DRAWN = Ask("abc", 6, Settings(temperature=0.9, top_k=20, top_p=0.9), seed=7, ignore_end=True)


@pytest.fixture(scope="module")
def bench():
    made = Bench(converted(model_folder()), model_folder())
    yield made
    made.close()


def judged(bench, fault, upto):
    names = [name for name in LEVELS if name <= upto]
    return run_fault(bench, fault, blind.BUDGET, only=names, baselines=False)


def test_the_server_s_path_in_this_process_gives_what_the_engine_gives(bench):
    for ask in (GREEDY, DRAWN):
        [served], [plain] = bench.raw().generate([ask]), engine().generate([ask])
        assert served.output_ids == plain.output_ids
        assert served.text == plain.text
        np.testing.assert_allclose(served.log_probs, plain.log_probs, atol=1e-5)


def test_a_stream_of_the_server_s_path_is_its_whole_answer(bench):
    target = bench.target()
    [whole], stream = target.generate([DRAWN]), target.stream(DRAWN)
    assert "".join(event.text for event in stream.events) == whole.text
    assert [event.final for event in stream.events] == [*[False] * (len(stream.events) - 1), True]


def test_what_is_refused_is_an_answer(bench):
    assert "max_tokens" in bench.target().generate([Ask("Hi", 0)])[0].error


def test_a_remembering_model_computes_what_the_model_computes(bench):
    asks = [GREEDY, DRAWN, Ask("abcdef", 9, DRAWN.settings, seed=8, ignore_end=True)]
    plain = bench.raw().generate(asks)
    target = bench.target(RememberingModel(bench.model))
    for _ in range(2):
        for one, other in zip(plain, target.generate(asks), strict=True):
            assert one.output_ids == other.output_ids
            np.testing.assert_allclose(one.logits, other.logits, atol=1e-4)


def test_a_remembering_model_goes_on_where_its_memory_ends(bench):
    target = bench.target(RememberingModel(bench.model))
    short = Ask("abcdef", 3, Settings(top_k=1), ignore_end=True)
    longer = Ask("abcdef", 8, Settings(top_k=1), ignore_end=True)
    target.generate([short])
    [mine], [plain] = target.generate([longer]), bench.raw().generate([longer])
    np.testing.assert_allclose(mine.logits, plain.logits, atol=1e-4)


def test_a_remembering_reference_reads_what_the_reference_reads(bench):
    plain, prompt = Reference(str(model_folder())), bench.reference.ids("abc")
    for output in ([5, 6, 7], [5, 6, 9, 9], [5], [5, 6, 7]):
        np.testing.assert_allclose(bench.reference.logits(prompt, output), plain.logits(prompt, output), atol=1e-4)


def test_the_catalogue_is_whole():
    assert sorted({fault.id for fault in ALL}) == [f"M{number:02}" for number in range(1, 46)]
    assert len(chosen()) == 45
    assert len({fault.name for fault in ALL}) == len(ALL)
    assert {fault.level for fault in ALL} <= set(LEVELS)
    assert all(chosen([name])[0].measured for name in FAST)
    with pytest.raises(ParameterError, match="no fault M99"):
        chosen(["M99"])


def test_every_fault_can_be_planted_and_leaves_nothing_behind(bench):
    before = bench.raw().generate([GREEDY, DRAWN])
    for fault in ALL:
        with fault.plant(bench) as target:
            assert target.facts.kind == "engine"
    after = bench.raw().generate([GREEDY, DRAWN])
    assert [one.output_ids for one in before] == [one.output_ids for one in after]
    np.testing.assert_array_equal(before[0].logits, after[0].logits)


@pytest.mark.parametrize("name", [*FAST, "M09", "M18", "M25", "M30", "M38", "M42"])
def test_a_fault_is_named_by_its_level(bench, name):
    [fault] = chosen([name])
    outcome = judged(bench, fault, fault.level)
    if name != "M33":
        assert outcome.named == fault.level, outcome.failing
    assert outcome.killed


@pytest.mark.parametrize("name", ["M20", "M22"])
def test_a_fault_of_the_batch_shows_in_company_only(bench, name):
    [fault] = chosen([name])
    assert judged(bench, fault, "L2").named == "L7"


def test_a_fault_of_the_network_shows_alone_too(bench):
    [fault] = chosen(["M12"])
    with fault.plant(bench) as target:
        assert not only_in_company(Material(target, bench.reference, blind.BUDGET))


def test_the_healthy_server_passes(bench):
    report = climb(Material(bench.target(), bench.reference, blind.BUDGET))
    assert report.first_failure is None


@pytest.mark.parametrize("benign", [one for one in BENIGN if one.id != "B04"], ids=lambda one: one.title)
def test_a_harmless_variation_raises_no_alarm(bench, benign):
    with benign.make(bench) as target:
        material = Material(target, bench.reference, blind.BUDGET)
        for rung in RUNGS[:4]:
            level = run(rung, material)
            assert level.decision != "fail", [verdict.detail for verdict in level.verdicts]


def test_fresh_seeds_raise_no_alarm_and_cost_no_forward_pass(bench):
    run_seeds(bench, 0)
    known = len(bench.remembered._known)
    assert run_seeds(bench, 1).named is None
    assert len(bench.remembered._known) - known <= 60  # texts that a stranger's seed made longer
    assert len(seeds(299)) + len(BENIGN) == 300


def test_a_run_can_stop_and_go_on(bench, tmp_path):
    kept, told = Kept(tmp_path, blind.BUDGET), []
    todo = jobs(chosen(["M35", "M02"]), 0, blind.BUDGET)
    assert work(bench, todo, kept, -1, told.append) == 2
    assert work(bench, todo[:1], kept, 100, told.append) == 0
    made = kept.get("M35@half")
    assert made is not None
    assert made.localized
    work(bench, todo[:1], kept, 100, told.append)
    assert len(told) == 1


def test_swapped_puts_back_what_was_there_and_what_was_not():
    class Thing:
        shared = 1

    one = Thing()
    with swapped(one, shared=2), swapped(Thing, shared=3):
        assert (one.shared, Thing.shared) == (2, 3)
    assert (one.shared, vars(one)) == (1, {})


def outcome(name, kind="fault", named=None, **fields):
    base = {"title": "t", "where": "", "primary": "L2", "measured": True, "levels": {}, "failing": ()}
    return Outcome(name, kind, named=named, **{**base, **fields})


def test_the_numbers_of_a_matrix():
    found = (
        outcome("M01", named="L2", baselines={"text": True}), outcome("M02", named="L4", baselines={"text": False}),
        outcome("M03"), outcome("M03@2", named="L2", measured=False),
        outcome("B01", "benign", baselines={"text": True}),
        outcome("B11-000", "benign"),
    )  # fmt: skip
    matrix = Matrix(found, {})
    assert (matrix.score.count, matrix.score.of) == (2, 3)
    assert (matrix.localization.count, matrix.localization.of) == (1, 2)
    assert (matrix.false_alarms.count, matrix.false_alarms.of) == (0, 2)
    assert [rate.count for rate in matrix.baseline("text")] == [1, 1]
    assert [one.name for one in matrix.curves()["M03"]] == ["M03", "M03@2"]
    assert 0.009 < Rate(0, 299).interval[1] < 0.013


def test_the_cheapest_levels_find_nearly_all_that_all_find():
    seconds = {"L0": 1.0, "L2": 9.0, "L4": 2.0, "L7": 50.0}
    seen = {"M01": ("L2", "L7"), "M02": ("L0", "L2"), "M03": ("L4", "L7"), "M04": ()}
    faults = [outcome(name, named="L2", levels=dict.fromkeys(by, "fail"), seconds=seconds) for name, by in seen.items()]
    assert Matrix(tuple(faults), {}).cheapest() == ["L0", "L2", "L4"]
    assert Matrix(tuple(faults), {}).cheapest(0.6) == ["L0", "L4"]
    assert Matrix((outcome("M01", named="L2"),), {}).cheapest() == []


recorded = pytest.mark.skipif(
    not RECORDING.is_file(), reason="not recorded yet: labs mutation-matrix --benign 299 --output data/recordings/..."
)


@recorded
def test_the_recording_keeps_its_bars():
    matrix = read_matrix(RECORDING)
    assert matrix.score.of == 45
    assert matrix.score.count >= 42
    assert matrix.localization.count >= 0.9 * matrix.localization.of
    assert matrix.false_alarms.of >= 299
    assert matrix.false_alarms.count == 0
    assert {"command", "date", "machine", "versions", "model"} <= set(matrix.about)
    assert any("mutation score" in line for line in lines(matrix))


def test_the_command_prints_a_recording_and_refuses_what_is_none(tmp_path):
    made = Path(tmp_path, "matrix.json")
    made.write_text(json.dumps(Matrix((outcome("M01", named="L2"),), {"model": "tiny"}).to_json()))
    shown = CliRunner().invoke(mutation_matrix, ["--read", str(made)])
    assert shown.exit_code == 0
    assert "false alarms" in shown.output
    broken = Path(tmp_path, "x.json")
    broken.write_text(json.dumps({"outcomes": 3}))
    with pytest.raises(ParameterError, match="no recording"):
        read_matrix(broken)
