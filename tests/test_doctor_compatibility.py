"""The table of what goes with what: it is whole, and it answers the questions that the labs ask."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labsupport.compatibility import FILE, load_compatibility, read_compatibility, version_key
from labsupport.errors import ParameterError
from labsupport.workspace import data_folder

TABLE = load_compatibility()


def test_the_pinned_container_is_the_seeds_image() -> None:
    pinned = TABLE.container()
    assert (pinned.tag, pinned.tensorrt_llm, pinned.driver) == ("25.06", "0.20.0", "575.51.03")
    assert pinned.image == "nvcr.io/nvidia/tritonserver:25.06-trtllm-python-py3"
    assert pinned.engines


def test_rows_are_in_order_and_only_grow() -> None:
    keys = [version_key(row.tag) for row in TABLE.containers]
    assert keys == sorted(set(keys))
    for older, newer in zip(TABLE.containers, TABLE.containers[1:], strict=False):
        for field in ("tensorrt_llm", "tensorrt", "cuda", "driver"):
            assert version_key(getattr(older, field)) <= version_key(getattr(newer, field)), (newer.tag, field)


def test_every_row_holds_versions_and_a_size() -> None:
    for row in TABLE.containers:
        for text in (row.tensorrt_llm, row.tensorrt, row.cuda, row.driver, row.python):
            assert re.fullmatch(r"\d+(\.\d+)+(\.post\d+)?", text), (row.tag, text)
        assert 5 < row.image_gb < 50
        assert not set(TABLE.older) & {row.tag}


def test_the_workflow_ends_where_the_rows_say() -> None:
    flow = TABLE.workflow
    assert TABLE.container(flow.last_container).tensorrt_llm == flow.last
    assert all(version_key(row.tensorrt_llm) <= version_key(flow.last) for row in TABLE.containers if row.engines)
    assert version_key(flow.first) < version_key(flow.legacy_since) < version_key(flow.last)
    assert all(need.what and need.why for need in flow.needs)


@pytest.mark.parametrize(
    ("driver", "data_center", "runs"),
    [
        ("575.51.03", False, True),
        ("580.159.04", False, True),
        ("575.51.02", False, False),
        ("570.124.06", True, False),  # not among the branches that the release notes name
        ("535.86", True, True),
        ("535.85", True, False),
        ("535.183.01", False, False),  # a workstation board has no compatibility package
        ("545.23.08", True, True),
    ],
)
def test_driver_against_the_pinned_container(driver: str, data_center: bool, runs: bool) -> None:
    assert TABLE.container().runs_on(driver, data_center=data_center) is runs


def test_newest_container_for_a_driver() -> None:
    newest = {driver: TABLE.newest_for(driver) for driver in ("300.1", "570.124.06", "580.159.04", "999")}
    assert newest["300.1"] is None
    assert {driver: row.tag for driver, row in newest.items() if row} == {
        "570.124.06": "25.05",
        "580.159.04": "26.02",
        "999": "26.07",
    }


def test_containers_that_hold_a_version() -> None:
    assert [row.tag for row in TABLE.holding("0.20.0")] == ["25.06", "25.07"]
    assert TABLE.holding("7.7.7") == ()


@pytest.mark.parametrize(
    ("name", "version", "called"),
    [
        ("random_seed", "0.20.0", "seed"),
        ("seed", "0.20.0", "seed"),
        ("seed", "0.19.0", "random_seed"),
        ("min_length", "1.2.1", "min_tokens"),
        ("min_tokens", "0.14.0", "min_length"),
        ("top_p", "0.14.0", "top_p"),
    ],
)
def test_renamed_tensors(name: str, version: str, called: str) -> None:
    assert TABLE.tensor_name(name, version) == called


@pytest.mark.parametrize(
    ("family", "version", "path"),
    [
        ("llama", "0.20.0", "examples/models/core/llama/convert_checkpoint.py"),
        ("MistralForCausalLM", "0.20.0", "examples/models/core/llama/convert_checkpoint.py"),
        ("llama", "0.14.0", "examples/llama/convert_checkpoint.py"),
        ("OPTForCausalLM", "0.20.0", "examples/models/contrib/opt/convert_checkpoint.py"),
        ("opt", "0.17.0.post1", "examples/opt/convert_checkpoint.py"),
        ("GPT2LMHeadModel", "1.2.1", "examples/models/core/gpt/convert_checkpoint.py"),
        ("Gemma3ForCausalLM", "0.20.0", "examples/models/core/gemma/convert_checkpoint.py"),
        ("Qwen3ForCausalLM", "1.0.0rc4", "examples/models/core/qwen/convert_checkpoint.py"),
    ],
)
def test_where_the_conversion_script_stands(family: str, version: str, path: str) -> None:
    assert TABLE.convert_script(family, version).path == path


def test_scripts_speak_their_own_flags() -> None:
    gemma, opt = TABLE.convert_script("gemma", "0.20.0"), TABLE.convert_script("opt", "0.20.0")
    assert (gemma.tp_flag, gemma.pp_flag) == ("--world-size", None)
    assert (opt.tp_flag, opt.pp_flag) == ("--tp_size", None)


def test_every_container_has_one_script_for_each_family_of_its_time() -> None:
    for row in TABLE.containers:
        for family in {script.family for script in TABLE.convert_scripts}:
            serving = [s for s in TABLE.convert_scripts if s.family == family and s.serves(row.tensorrt_llm)]
            first = min(version_key(s.since) for s in TABLE.convert_scripts if s.family == family)
            assert len(serving) == (1 if version_key(row.tensorrt_llm) >= first else 0), (row.tag, family)


def test_questions_without_an_answer_say_what_there_is() -> None:
    with pytest.raises(ParameterError, match=r"99\.01"):
        TABLE.container("99.01")
    with pytest.raises(ParameterError, match="T5ForConditionalGeneration"):
        TABLE.convert_script("T5ForConditionalGeneration", "0.20.0")
    with pytest.raises(ParameterError) as error:
        TABLE.convert_script("gemma3", "0.14.0")
    assert "0.19.0 to 1.2.1" in error.value.why


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"workflow": {}, "default": "25.06"}'])
def test_a_broken_table_is_named(text: str, tmp_path: Path) -> None:
    broken = tmp_path / FILE
    broken.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match="is not a compatibility table"):
        read_compatibility(broken)


def test_a_row_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    text = (data_folder() / FILE).read_text(encoding="utf-8").replace('"server"', '"sever"', 1)
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError) as error:
        read_compatibility(tmp_path / FILE)
    assert "sever" in error.value.why
