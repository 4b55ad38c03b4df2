"""Other targets: transformers and the endpoint handlers answer alike; what is no target is told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from validation_made import SMALL, model_folder, reference

from labsupport.cli import labs
from labsupport.decoding import Settings
from labsupport.errors import EngineError, ParameterError
from labsupport.validation.ladder import climb
from labsupport.validation.material import Material
from labsupport.validation.opening import open_target
from labsupport.validation.reference import Reference
from labsupport.validation.target import Ask, Facts, conversation
from labsupport.validation.targets.endpoint import ENDPOINTS, EndpointTarget
from labsupport.validation.targets.huggingface import open_huggingface
from labsupport.validation.targets.trtllm import TensorRTLLMTarget

FAMILIES = sorted(path.parent.name for path in ENDPOINTS.glob("*/handler.py"))


def test_transformers_passes_the_ladder_in_its_own_dialect() -> None:
    target = open_target(f"hf:{model_folder()}", str(model_folder()))
    report = climb(Material(target, reference(), SMALL), only=("L0", "L1", "L2", "L4"))
    failed = [(v.test, v.detail, v.evidence) for level in report.levels for v in level.verdicts if v.decision == "fail"]
    assert failed == []
    replay = next(v for v in report.levels[-1].verdicts if v.test == "seed replay")
    assert replay.decision == "pass"
    assert replay.n > 100


def test_bfloat16_is_held_against_the_noise_of_bfloat16() -> None:
    """An honest model in half the bits passes because its twin is as far off; weights that are 5 % off do not."""
    twinned = Reference(model_folder(), "bfloat16")
    target = open_huggingface(model_folder(), "bfloat16")
    few = replace(SMALL, greedy=3, sampled=4)
    report = climb(Material(target, twinned, few), only=("L2", "L3"))
    assert report.decision == "pass"
    assert {v.source for v in report.levels[0].verdicts} == {"noise floor"}
    target.model.lm_head.weight.data *= 1.05
    assert climb(Material(target, twinned, few), only=("L2",)).decision == "fail"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_handler_answers_as_transformers_does(family: str) -> None:
    handler = EndpointTarget(family, str(model_folder()))
    hf = open_target(f"hf:{model_folder()}", str(model_folder()))
    ask = Ask(conversation(("user", "Hi")), 8, Settings(do_sample=True, temperature=0.7, top_k=20, top_p=0.9), 42)
    [one], [other] = handler.generate([ask]), hf.generate([ask])
    assert one.error is None
    assert (one.output_ids, one.text, one.input_ids) == (other.output_ids, other.text, other.input_ids)
    assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
    assert handler.stream(ask).events[-1].text == one.text


def test_gemma_gets_its_system_prompt_before_the_first_turn() -> None:
    handler = EndpointTarget("gemma", str(model_folder()))
    terse = conversation(("system", "Be terse."), ("user", "Hi"))
    assert handler.tokenize(terse) == handler.tokenize(conversation(("user", "Be terse.\n\nHi")))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_handler_stands_alone(family: str) -> None:
    """It is copied beside weights: nothing of ours is imported, and all that is imported is required."""
    source = (ENDPOINTS / family / "handler.py").read_text(encoding="utf-8")
    assert "labsupport" not in source
    required = (ENDPOINTS / family / "requirements.txt").read_text(encoding="utf-8")
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    foreign = {name for name in imported if name not in sys.stdlib_module_names}
    assert all(name in required for name in foreign)


def test_handlers_differ_in_what_a_family_differs_in() -> None:
    """Each is one file, as an endpoint wants it; what they share is the same text."""
    shared = set()
    for family in FAMILIES:
        lines = (ENDPOINTS / family / "handler.py").read_text(encoding="utf-8").splitlines()
        shared.add(tuple(lines[1 : lines.index(next(line for line in lines if line.startswith("    def turns"))) + 1]))
    assert len(shared) == 1


class Runner:
    """The shapes that ``ModelRunnerCpp.generate`` is documented to return; the prompt stands before the output."""

    def generate(self, batch: Any, **how: Any) -> dict[str, Any]:
        self.how = how
        [ids] = batch
        output = torch.tensor([*ids.tolist(), 5, 6, 2, 0])
        return {
            "output_ids": output[None, None],
            "sequence_lengths": torch.tensor([[len(ids) + 3]]),
            "log_probs": torch.tensor([[[-0.5, -0.25, -0.125, 0.0]]]),
        }


def test_tensorrt_llm_is_asked_for_one_request_with_its_own_seed() -> None:
    runner = Runner()
    target = TensorRTLLMTarget(runner, reference().tokenizer, [2, 0], Facts("double", "trtllm"))
    ask = Ask("Hi", 8, Settings(temperature=0.5, top_k=3, min_length=1, end_ids=(2,)), 2**63, ("stop",))
    [answer] = target.generate([ask])
    assert (answer.output_ids, answer.finish, answer.log_probs) == ((5, 6, 2), "end", (-0.5, -0.25, -0.125))
    assert runner.how["random_seed"] == 2**63
    assert runner.how["end_id"] == 2
    assert runner.how["stop_words_list"] == [[reference().tokenizer.encode("stop"), [0]]]
    assert runner.how["min_tokens"] == 1


def test_tensorrt_llm_is_not_here_and_that_is_told() -> None:
    with pytest.raises(EngineError, match="no tensorrt_llm here"):
        open_target("trtllm:engine", str(model_folder()))


@pytest.mark.parametrize("name", ["ftp://host", "nothing", "handler:opt"])
def test_what_is_no_target_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError):
        open_target(name, str(model_folder()))


def test_the_command_decides_by_its_exit_code(tmp_path: Path) -> None:
    """A healthy target passes two levels, and both reports say so; what is no target is an error."""
    name, run = str(model_folder()), CliRunner()
    found = run.invoke(
        labs,
        ["validate", f"hf:{name}", "--reference", name, "--fast", "-q", "--level", "L1", "--level", "L3",
         "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "L3 greedy choices" in found.output
    told = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (told["decision"], told["guilty"]) == ("pass", None)
    assert "✓ pass" in (tmp_path / "a.html").read_text(encoding="utf-8")
    unknown = run.invoke(labs, ["validate", "nothing", "--reference", name])
    assert isinstance(unknown.exception, ParameterError)
