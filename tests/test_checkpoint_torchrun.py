"""The same network as real ranks: torchrun starts a process for each, and they talk over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_made import TOKENS, converted, original_logits, tiny
from safetensors.torch import load_file, save_file

from labsupport.workspace import repository_root


def torchrun(processes: int, checkpoint: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    save_file({"tokens": TOKENS}, scratch / "tokens.safetensors")
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d",
         "--rdzv-endpoint", "127.0.0.1:0", "-m", "labsupport.checkpoint.network.ranks", str(checkpoint),
         str(scratch / "tokens.safetensors"), str(scratch / "logits.safetensors")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=repository_root(), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("family", "cut"),
    [
        ("llama", {"tp_size": 2, "pp_size": 2}),  # sums in both stages, and hidden states between them
        (
            "gemma3",
            {"tp_size": 4},
        ),  # the embedding is cut, so its parts are summed as well, and those of the head joined
    ],
)
def test_the_ranks_together_compute_what_transformers_does(family: str, cut: dict[str, Any], tmp_path: Path) -> None:
    model = tiny(family)
    checkpoint = converted(model, **cut)
    run = torchrun(cut.get("tp_size", 1) * cut.get("pp_size", 1), checkpoint, tmp_path)
    assert run.returncode == 0, run.stderr
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    torch.testing.assert_close(logits, original_logits(model), atol=1e-4, rtol=0)


def test_more_processes_than_ranks_are_refused(tmp_path: Path) -> None:
    run = torchrun(2, converted(tiny("llama")), tmp_path)
    assert run.returncode != 0
    assert "2 processes for a checkpoint of 1 ranks" in run.stderr
    assert not (tmp_path / "logits.safetensors").exists()
