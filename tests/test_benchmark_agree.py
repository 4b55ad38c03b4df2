"""An independent tool, AIPerf, measures the same server with the same load: both must find the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from repositories_made import good
from triton_local import needs_triton

from labsupport.benchmark.aiperf import AIPERF, CLOSE, agree
from labsupport.benchmark.installing import install
from labsupport.serving import Server

ECHO = Path(__file__).parent / "fixtures" / "echo_engine" / "model.py"

pytestmark = needs_triton


@pytest.fixture(scope="module", autouse=True)
def aiperf() -> None:
    """In a Python of its own, kept in the workspace; two or three minutes where it is not there."""
    install(AIPERF)


def test_the_two_agree_on_a_server_with_a_pace_of_its_own(tmp_path: Path) -> None:
    """A token each 100 ms: beside it, what a busy machine adds is little, and what the two add is seen."""
    paced = tmp_path / "engine"
    paced.mkdir()
    source = ECHO.read_text()
    assert 'value.get("min_tokens", 0)' in source
    (paced / "model.py").write_text(source.replace('value.get("min_tokens", 0)', 'value.get("min_tokens", 100)'))
    repository = good(tmp_path / "repository", "sentencepiece")
    words = next(repository.glob("_assets/*/tokenizer/tokenizer.json")).parent
    with Server(repository, engine=paced, seconds=120) as server:
        (found,) = agree(server.address, "ensemble", words, users=2, requests=12, given=64, new=24)
    for one in found.metrics:
        assert one.ratio.value == pytest.approx(1.0, abs=CLOSE), one
