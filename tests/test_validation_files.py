"""Prompts, responses and their comparison: schemas, variations, refusals, and what two files say of each other."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from click.testing import CliRunner
from validation_made import engine, reference

from labsupport.cli import labs
from labsupport.errors import ParameterError
from labsupport.validation import prompts as p
from labsupport.validation import responses as r
from labsupport.validation.compare import compare, counts, text_lines
from labsupport.validation.report_html import compare_html
from labsupport.validation.target import Ask, as_text, conversation
from labsupport.workspace import data_folder

FILES = ("prompts.json", "prompts-lite.json")


@pytest.mark.parametrize("name", FILES)
def test_the_committed_prompts_keep_to_the_committed_schema(name: str) -> None:
    schema = json.loads((data_folder() / "prompts.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((data_folder() / name).read_text(encoding="utf-8")), schema)


def test_the_committed_schemas_are_those_of_the_code() -> None:
    assert (data_folder() / "prompts.schema.json").read_text(encoding="utf-8") == p.schema_text()
    assert (data_folder() / "response.schema.json").read_text(encoding="utf-8") == p.schema_text(r.Response)


@pytest.mark.parametrize("name", FILES)
def test_the_prompts_have_the_promised_fields(name: str) -> None:
    raw = json.loads((data_folder() / name).read_text(encoding="utf-8"))
    assert {"top_p", "temperature", "seed", "system_prompt", "prompt"} <= raw.keys()


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 4, 3, 4, 2, 2), (5,), (7, 2)])
def test_pairwise_covers_every_pair_with_few_rows(sizes: tuple[int, ...]) -> None:
    axes = [list(range(size)) for size in sizes]
    rows = list(p.pairwise(axes))
    for i, j in itertools.combinations(range(len(axes)), 2):
        assert {(row[i], row[j]) for row in rows} == set(itertools.product(axes[i], axes[j]))
    largest = sorted(sizes)[-2:]
    assert len(rows) <= 1.5 * largest[0] * (largest[1] if len(largest) > 1 else 1) + 2


def test_all_variations_are_the_product() -> None:
    lite = p.read_prompts(data_folder() / "prompts-lite.json")
    product = p.variations(lite.model_copy(update={"design": "all"}))
    axes = [getattr(lite, name) for name in p.AXES]
    assert len(product) == len(lite.conversations) + len(list(itertools.product(*axes)))
    assert len({variation.id for variation in product}) == len(product)
    assert product[0].ask.seed == 42  # uint64 travels as text, and is a number again


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("top_p", [0.0], "top_p.0"),
        ("seed", [42], "seed.0"),
        ("temperatures", [1.0], "temperatures"),
        ("max_tokens", [0], "max_tokens.0"),
    ],
)
def test_a_wrong_field_is_named(field: str, value: Any, told: str, tmp_path: Path) -> None:
    raw = json.loads((data_folder() / "prompts-lite.json").read_text(encoding="utf-8"))
    (tmp_path / "wrong.json").write_text(json.dumps(raw | {field: value}), encoding="utf-8")
    with pytest.raises(ParameterError, match=told):
        p.read_prompts(tmp_path / "wrong.json")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for read in (p.read_prompts, r.read_responses):
        with pytest.raises(ParameterError, match="cannot be read"):
            read(tmp_path / "none")


@cache
def answered() -> tuple[r.Response, ...]:
    """The lite prompts, answered by the tiny model."""
    lite = p.read_prompts(data_folder() / "prompts-lite.json")
    return tuple(r.respond(engine(), reference().tokenizer, p.variations(lite)))


def test_responses_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "responses.jsonl"
    assert r.write_responses(path, answered()) == len(answered())
    assert tuple(r.read_responses(path)) == answered()
    schema = json.loads(p.schema_text(r.Response))
    for line in path.read_text(encoding="utf-8").splitlines():
        jsonschema.validate(json.loads(line), schema)


def test_a_response_has_its_fields_and_the_bits() -> None:
    raw = json.loads(answered()[0].model_dump_json(by_alias=True))
    assert raw["conversations"]["contents"][-1] == {"role": "model", "content": raw["text"]}
    assert raw["input"].startswith("<|im_start|>")
    assert raw["input"].endswith("assistant\n")
    assert raw["parameters"]["temperature"] == {"v": 1.0, "f32": "3f800000"}
    assert raw["parameters"]["seed"] == "42"
    streams = [response for response in answered() if response.parameters.stream]
    assert streams
    assert all(response.events[-1].final for response in streams)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"log_probs": [0.0]}, "log_probs for"),
        ({"text": "another"}, "the events, joined, are not the text"),
        ({"output_ids": [-1]}, "greater than or equal to 0"),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_a_line_that_contradicts_itself_is_told(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    stream = next(response for response in answered() if response.parameters.stream)
    raw = json.loads(stream.model_dump_json(by_alias=True)) | change
    (tmp_path / "wrong.jsonl").write_text(json.dumps(raw) + "\n", encoding="utf-8")
    with pytest.raises(ParameterError, match="line 1") as problem:
        r.read_responses(tmp_path / "wrong.jsonl")
    assert told in problem.value.why


def test_bits_that_are_not_the_numbers_own_are_refused() -> None:
    with pytest.raises(ValueError, match="3f666666"):
        r.Float(v=0.9, f32="3f666665")


def changed(response: r.Response, **fields: Any) -> r.Response:
    return response.model_copy(update=fields)


def test_compare_tells_template_and_output_apart() -> None:
    same = answered()[0]
    ids = same.output_ids
    assert same.log_probs is not None
    greedy = changed(same, parameters=same.parameters.model_copy(update={"top_k": 1}))
    other = (*ids[:3], (ids[3] + 1) % 260, *ids[4:])
    near = changed(greedy, output_ids=other, text="x" + same.text)
    far = changed(near, log_probs=tuple(value - 3 for value in same.log_probs))
    bos = changed(same, input_ids=(1, *(same.input_ids or ())), input="<|im_start|>" + same.input)
    found = [compare([a], [b])[0] for a, b in ((same, same), (greedy, near), (greedy, far), (same, bos))]
    assert [(pair.template, pair.output) for pair in found] == [
        ("same", "same"), ("same", "near-tie"), ("same", "differs"), ("differs", "same"),
    ]  # fmt: skip
    assert found[1].token == 3
    assert "≈ 1 near-tie" in counts(found)
    assert compare([same], [changed(same, id="another")]) == []


def test_the_table_has_symbols_and_the_page_is_whole() -> None:
    first, other = answered()[0], answered()[1]
    pairs = compare(
        [first, other], [first, changed(other, output_ids=(5,), text="<b>&", output="<b>&", log_probs=None, events=())]
    )
    lines = [click.unstyle(line) for line in text_lines(pairs)]
    assert "✓" in lines[1]
    assert "✗" in lines[2]
    assert "[" in lines[2]
    page = compare_html(pairs)
    assert "&lt;b&gt;&amp;" in page
    assert "http" not in page

    class Balanced(HTMLParser):
        open: list[str]

        def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balanced()
    parser.open = []
    parser.feed(page)
    assert parser.open == []


def test_the_command_compares_and_tells_by_its_exit_code(tmp_path: Path) -> None:
    one, two = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    r.write_responses(one, answered())
    r.write_responses(two, [changed(a, input_ids=(1, *(a.input_ids or ()))) for a in answered()])
    run = CliRunner()
    assert run.invoke(labs, ["compare", str(one), str(one)]).exit_code == 0
    worse = run.invoke(labs, ["compare", str(one), str(two), "--html", str(tmp_path / "page.html")])
    assert worse.exit_code == 1
    assert "template: ✗ 12 differs" in worse.output
    assert (tmp_path / "page.html").is_file()


def test_a_conversation_travels_as_json() -> None:
    assert as_text(conversation(("user", "Hé"))) == '[{"role": "user", "content": "Hé"}]'
    assert as_text("plain") == "plain"
    refused = engine().generate([replace(Ask("Hi", 1), max_tokens=0)])[0]
    assert refused.error is not None
    assert "max_tokens 0" in refused.error
