"""The ladder and the trace against the real Triton server, on the tiny engine; one server for all tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints_made import converted
from engines_made import built
from triton_local import needs_triton
from validation_made import SMALL, model_folder, reference

from labsupport.decoding import Settings
from labsupport.repository.assemble import assemble
from labsupport.serving import Client, Sampling
from labsupport.validation.ladder import climb
from labsupport.validation.levels.l0_parameters import received
from labsupport.validation.material import Material
from labsupport.validation.target import Ask
from labsupport.validation.targets.triton import TritonTarget
from labsupport.validation.trace import changed, stages, table, traced_server

pytestmark = needs_triton
LITTLE = replace(SMALL, greedy=4, greedy_tokens=8, sampled=5, sampled_tokens=16, flat=3, flat_tokens=34, mmd=0, tasks=2)
SENT = {"temperature": 0.9, "top_p": 0.95, "top_k": 50, "repetition_penalty": 1.1, "seed": 2**63 + 1, "max_tokens": 3}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    place = tmp_path_factory.mktemp("validation")
    engine = shutil.copytree(built(converted(model_folder(), dtype="float32")), place / "tiny" / "engine")
    config = json.loads((engine / "config.json").read_text(encoding="utf-8"))
    config["build_config"] |= {"max_input_len": 400, "max_num_tokens": 512, "gather_generation_logits": True}
    (engine / "config.json").write_text(json.dumps(config), encoding="utf-8")  # limits: no graph knows them
    repository = assemble(engine, model_folder(), output=place / "repository").folder
    with traced_server(repository, seconds=120) as (server, log):
        yield f"{server.address.host}:{server.address.port}", log


@pytest.fixture(scope="module")
def target(served: tuple[str, Path]) -> Iterator[TritonTarget]:
    made = TritonTarget(served[0], reference().tokenizer, trace=served[1])
    yield made
    made.close()


def test_a_healthy_server_passes_the_ladder(target: TritonTarget) -> None:
    report = climb(Material(target, reference(), LITTLE), every=True)
    told = [(level.name, v.test, v.detail, v.evidence) for level in report.levels for v in level.verdicts]
    assert [one for one, v in zip(told, (v for level in report.levels for v in level.verdicts), strict=True)
            if v.decision == "fail"] == []  # fmt: skip
    assert report.decision == "pass"


def test_every_bit_of_a_request_reaches_the_sampler(target: TritonTarget) -> None:
    assert received(Material(target, reference(), LITTLE)).decision == "pass"


def test_the_trace_shows_each_model_and_the_sampler(served: tuple[str, Path]) -> None:
    before = len(stages(served[1]))
    with Client(served[0], protocol="http") as client:
        client.generate("Hi", Sampling(**SENT))
    found = stages(served[1])[before:]
    assert [stage.name for stage in found] == ["tensorrt_llm_bls", "preprocessing", "tensorrt_llm", "sampler"]
    assert changed(SENT, found) == []
    rows = {row[0]: row for row in table(SENT, found)}
    assert rows["temperature"][1] == "0.9 0x3f666666"
    assert rows["temperature"][2] == "0.8999999761581421 0x3f666666 ✓"
    assert rows["seed"][-1] == "9223372036854775809 ✓"
    assert changed({**SENT, "temperature": 0.8999999}, found) != []


def test_text_and_ids_come_from_the_same_answer(target: TritonTarget) -> None:
    ask = Ask("one two", 12, Settings(temperature=0.8, top_k=20), 5)
    [answer] = target.generate([ask])
    assert answer.logits is not None
    assert answer.logits.shape == (len(answer.output_ids), 260)
    assert target.stream(ask).text == answer.text
    assert target.generate([replace(ask, max_tokens=0)])[0].error is not None
