"""What serving costs, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from labsupport.benchmark.overhead import Overhead, Run, measure
from labsupport.errors import BenchmarkError

ENGINE = (Run(0.10, 50.0), Run(0.20, 40.0), Run(0.10, 50.0))
SERVED = (Run(0.11, 45.0), Run(0.25, 40.0), Run(0.10, 30.0))


def test_medians_of_differences_within_a_prompt() -> None:
    found = Overhead(ENGINE, SERVED, "tensorrt_llm_bls")
    assert found.kept.value == pytest.approx(0.9)
    assert (found.kept.low, found.kept.high) == pytest.approx((0.6, 1.0))
    assert found.added.value == pytest.approx(0.01)
    lines = found.lines()
    assert lines[1].split()[-2:] == ["100.0", "50.0"]
    assert "90.0 %   [60.0, 100.0]" in lines[3]
    assert "10.0 ms  [0.0, 50.0]" in lines[4]


def test_a_repository_without_an_engine(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="holds no engine"):
        measure(tmp_path)
