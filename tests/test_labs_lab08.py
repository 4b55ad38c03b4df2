"""Lab 08: the notebook fills, joins and shares as the package does; the planted faults are found and mended."""

from __future__ import annotations

import re
import string
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from labs_slices import bound
from repositories_made import engine_json, good

from labsupport.errors import ParameterError
from labsupport.labs.checks import lab08
from labsupport.labs.notebook import read
from labsupport.labs.reference import sharing
from labsupport.repository import templates
from labsupport.repository.dataflow import CLIENT, edges, tree, undeclared
from labsupport.repository.engine_config import EngineConfig
from labsupport.repository.lint import lint
from labsupport.repository.lint.repo import Repo
from labsupport.repository.lint.run import _read
from labsupport.repository.model_config import Assets, Options, build_configs
from labsupport.repository.text_format import from_text

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "08_repository_assembly.ipynb"
FAULTS = {"unfilled-unquoted", "ensemble-map", "decoupled-pair", "tokenizer-missing", "version-folder"}


@cache
def from_notebook(name):
    """What the notebook's cell binds to ``name``."""
    cell = next(cell for cell in read(NOTEBOOK).code if name in bound(cell) and "exercise" not in cell.tags)
    names = {"re": re, "string": string}
    function = cell.source[cell.source.index(f"def {name}(") :]
    exec(compile(function.split("\n\n")[0], cell.label, "exec"), names)
    return names[name]


@cache
def configs(**options):
    return build_configs(
        EngineConfig.model_validate(engine_json()),
        Assets("_assets/m/engines", "_assets/m/tokenizer"),
        Options(**options),
    )


@pytest.mark.parametrize("options", [{}, {"decoupled": False, "instances": 3}, {"names": "0.19", "max_queue_size": 7}])
def test_a_template_that_is_filled_gives_the_config_again(options):
    for config in configs(**options).values():
        assert from_text(templates.fill(templates.template(config), templates.pairs(config))) == config


def test_the_notebook_fills_and_fails_as_the_package_does():
    mine = from_notebook("fill")
    for config in configs().values():
        text, pairs = templates.template(config), templates.pairs(config)
        assert mine(text, pairs) == templates.fill(text, pairs)
        assert mine(text, {}) == templates.fill(text, {})
        with pytest.raises(AssertionError, match="tokenizer_type"):
            mine(text, {"tokenizer_type": "sp"})
        with pytest.raises(ParameterError, match="tokenizer_type"):
            templates.fill(text, {"tokenizer_type": "sp"})


def test_the_gate_names_a_key_too_many_and_each_key_too_few():
    gate = from_notebook("gate")
    for config in configs().values():
        text, pairs = templates.template(config), templates.pairs(config)
        assert gate(text, pairs) == ([], [])
        for key in pairs:
            assert gate(text, {**pairs, "max_queue": "1"} if key == "max_queue_size" else pairs)[1] == []
            assert gate(text, {other: value for other, value in pairs.items() if other != key}) == ([], [key])
        assert gate(text, {**pairs, "tokenizer_type": "sp"}) == (["tokenizer_type"], [])


def test_a_call_escapes_what_the_script_would_split():
    assert (
        templates.call({"gpu_device_ids": "0,1", "engine_dir": "s3://x"}) == r"gpu_device_ids:0\,1,engine_dir:s3\://x"
    )


def test_the_ensemble_s_graph_has_every_wire_and_both_ends_of_each():
    made = configs()
    graph = edges(made["ensemble"])
    assert undeclared(graph, made) == []
    assert (
        len(graph)
        == len(set(graph))
        == sum(len(s.input_map) for s in made["ensemble"].ensemble_scheduling.step) + len(made["ensemble"].output)
    )
    assert (CLIENT, "top_k", "tensorrt_llm", "runtime_top_k") in graph
    assert ("preprocessing", "INPUT_ID", "tensorrt_llm", "input_ids") in graph
    assert ("postprocessing", "OUTPUT", CLIENT, "text_output") in graph


def test_a_wire_without_an_end_is_found():
    made = {name: type(one).FromString(one.SerializeToString()) for name, one in configs().items()}
    next(entry for entry in made["preprocessing"].output if entry.name == "INPUT_ID").name = "INPUT_IDS"
    assert [edge.takes for edge in undeclared(edges(made["ensemble"]), made)] == ["input_ids"]
    del made["ensemble"].ensemble_scheduling.step[0].output_map["REQUEST_INPUT_LEN"]
    assert {edge.takes for edge in undeclared(edges(made["ensemble"]), made)} == {"input_ids", "input_lengths"}


def test_a_tree_counts_tensors_and_sees_what_is_missing(tmp_path):
    repository = good(tmp_path / "r")
    lines = tree(repository)
    assert (2, "config.pbtxt", "60 in, 19 out") in lines
    (repository / "tensorrt_llm" / "1").rmdir()
    lab08.change(repository, "ensemble", "max_batch_size: 8", "max_batch_size: ${n}")
    names = [(entry.name, entry.note) for entry in tree(repository)]
    assert ("no version folder", "") in names
    assert ("config.pbtxt", "cannot be read") in names


@pytest.mark.parametrize("text", lab08.TEXTS)
def test_placeholders_are_those_that_the_pre_flight_sees(text, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.pbtxt").write_text(text)
    seen = _read(tmp_path, None).models["m"].placeholders
    assert [(one.line, one.name, one.quoted) for one in seen] == lab08.placeholders(text)


def test_a_path_leads_where_the_pre_flight_finds_it(tmp_path):
    repository = good(tmp_path / "r")
    (engines,) = repository.glob("_assets/*/engines")
    inner = str(engines.relative_to(repository))
    repo = Repo(repository, _read(repository, None).container)
    for value in (inner, f"/models/x/{inner}"):
        assert lab08.resolve(value, repository, "/models/x") == repo.find(value) == engines
    assert lab08.resolve("/engines/nowhere", repository, "/models/x") is repo.find("/engines/nowhere") is None


@pytest.mark.parametrize("modes", [(True, True), (True, False), (False, True), (False, False)])
def test_pairs_disagree_where_the_pre_flight_says_so(modes, tmp_path):
    repository = good(tmp_path / "r")
    made = {
        name: from_text((repository / name / "config.pbtxt").read_text())
        for name in ("tensorrt_llm", "tensorrt_llm_bls")
    }
    for config, mode in zip(made.values(), modes, strict=True):
        config.model_transaction_policy.decoupled = mode
        (repository / config.name / "config.pbtxt").write_text(str(config))
    rules = {one.rule.name for one in lint(repository)}
    assert ("decoupled-pair" in rules) == bool(lab08.disagree(made))
    serves = from_notebook("serves")
    assert (rules == set()) == serves(*modes, True)
    assert ("no-streaming" in rules) == (not modes[0])


def test_five_faults_are_planted_and_each_has_a_rule(tmp_path):
    found = lint(lab08.hand_made(tmp_path))
    rules = {one.rule.name for one in found}
    assert rules >= FAULTS
    assert rules - FAULTS == {"bls-instances", "missing-tensor"}  # two of the five show twice
    lab08.mend(tmp_path / "model-repository")
    assert lint(tmp_path / "model-repository") == []


def test_a_preprocessing_without_pictures_needs_no_engine(tmp_path):
    repository = good(tmp_path / "r")
    (engines,) = repository.glob("_assets/*/engines")
    lab08.change(repository, "preprocessing", str(engines.relative_to(repository)), "${engine_dir}")
    assert {(one.rule.name, one.rule.level) for one in lint(repository)} == {("unfilled-default", "warning")}


GPU = st.lists(st.tuples(st.floats(0.5, 30), st.floats(0.01, 0.99)), min_size=1, max_size=4)


@given(memory=st.floats(1, 100), engines=GPU)
def test_shares_are_taken_in_turn_and_never_more_than_there_is(memory, engines):
    found = sharing.pools(memory, engines)
    assert from_notebook("pools")(memory, engines) == found
    used = sum(needs + pool for (needs, _), pool in zip(engines, found, strict=True) if pool is not None)
    assert used <= memory * (1 + 1e-9)
    for place, pool in enumerate(found):  # an engine's pool does not know of those that load after it
        assert sharing.pools(memory, engines[: place + 1])[-1] == pool


def test_copies_and_modes_bound_what_runs_at_once():
    mine = from_notebook("at_once")
    for case in [(False, 1, 8), (False, 4, 8), (False, 16, 8), (True, 1, 8), (True, 1, 1)]:
        assert mine(*case) == sharing.at_once(*case)
    assert [sharing.at_once(False, n, 8) for n in (1, 4, 16)] == [1, 4, 8]
    assert sharing.at_once(True, 1, 8) == 8
