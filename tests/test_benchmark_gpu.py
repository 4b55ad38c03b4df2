"""What `labs bench gpu` does besides timing a GPU's steps: the same code puts an engine of this machine under users."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints_made import converted, tiny
from engines_made import built
from triton_local import needs_triton

from labsupport.benchmark import gpu_users
from labsupport.benchmark.gpu_decode import config_of


@pytest.fixture(scope="module")
def engine() -> Path:
    return built(converted(tiny("qwen2"), dtype="float32"), max_batch_size=10)  # another test builds it too


def test_an_engine_serves_users_in_this_process(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_users, "NEW", 8)
    said: list[str] = []
    rows = gpu_users.in_process("tiny", engine, (1, 2), said.append)
    assert [(row.way, row.users) for row in rows] == [("engine", 1), ("engine", 2)]
    assert all(row.tokens_per_second > 0 and row.ttft > 0 and row.itl > 0 for row in rows)
    assert len(said) == 2


@needs_triton
def test_the_same_engine_serves_them_behind_triton(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_users, "NEW", 8)
    [row] = gpu_users.behind_triton("tiny", engine, (2,), lambda line: None)  # noqa: ARG005
    assert (row.way, row.users) == ("Triton", 2)
    assert row.tokens_per_second > 0


def test_a_shape_s_checkpoint_is_that_of_the_published_model() -> None:
    config = config_of("llama-3.1-8b")
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (4096, 32, 128256)
