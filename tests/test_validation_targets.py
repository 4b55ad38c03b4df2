"""Other targets: transformers and the endpoint handlers answer alike; what is no target is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from validation_made import SMALL, model_folder, reference

from labsupport.decoding import Settings
from labsupport.errors import ParameterError
from labsupport.validation.ladder import climb
from labsupport.validation.material import Material
from labsupport.validation.opening import open_target
from labsupport.validation.target import Ask, conversation
from labsupport.validation.targets.endpoint import ENDPOINTS, EndpointTarget

FAMILIES = sorted(path.parent.name for path in ENDPOINTS.glob("*/handler.py"))


def test_transformers_passes_the_ladder_in_its_own_dialect() -> None:
    target = open_target(f"hf:{model_folder()}", str(model_folder()))
    report = climb(Material(target, reference(), SMALL), only=("L0", "L1", "L2", "L4"))
    failed = [(v.test, v.detail, v.evidence) for level in report.levels for v in level.verdicts if v.decision == "fail"]
    assert failed == []
    replay = next(v for v in report.levels[-1].verdicts if v.test == "seed replay")
    assert replay.decision == "pass"
    assert replay.n > 100


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


@pytest.mark.parametrize("name", ["ftp://host", "nothing", "handler:opt"])
def test_what_is_no_target_is_told(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError):
        open_target(name, str(model_folder()))
