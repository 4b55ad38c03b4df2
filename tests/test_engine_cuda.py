"""Engines that are built for a GPU, on a GPU: every family against transformers, many rows, int8, and the kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints_made import ALL_FAMILIES, converted, original_logits, tiny
from engines_made import BLOCK, built, check_a_shared_step, run
from quantized_made import llama as wide_llama
from quantized_made import quantized

from labsupport.engine.eager import EagerModel
from labsupport.engine.loaded import Engine

HERE = torch.cuda.is_available()
on_a_gpu = pytest.mark.skipif(not HERE, reason="torch sees no GPU here; data/recordings/ says where these ran")
TRITON = "triton==3.6.0"  # the one that the recordings were made with
KERNELS = """
import torch
from labsupport.checkpoint.network.attention import Heads
from labsupport.engine import paged
from labsupport.engine.gpu import attend_blocks, multiply
torch.manual_seed(0)
for cap, window, width, group, size in ((None, None, 4, 3, 16), (5.0, None, 4, 4, 32), (None, 37, 70, 1, 16)):
    heads = Heads(2 * group, 2, size, 0.25, cap, window)
    keys, values, q = torch.randn(20, 8, 2, size), torch.randn(20, 8, 2, size), torch.randn(3, 2 * group, size)
    table, positions = torch.randint(1, 20, (3, width)), torch.tensor([5, 17, 8 * width - 1])
    at = paged.look_back(positions, table, 8, window)
    loops = paged._each_its_own(q, keys[table].flatten(1, 2), values[table].flatten(1, 2), at.bias, heads)
    mixed = attend_blocks(q, keys, values, table, at.bias, heads.scale, cap or 0.0)
    assert (loops - mixed).abs().max() < 1e-5, (cap, window)
for rows, columns in ((13, 48), (16, 1500), (5, 5000)):
    one, other, x = torch.randn(rows, columns), torch.randn(rows, columns), torch.randn(columns)
    both = multiply(x, one, other)
    assert torch.allclose(both, torch.stack([one @ x, other @ x]), atol=1e-3), (rows, columns)
    assert torch.equal(multiply(x, one, None)[0], both[0])
"""


def engine(checkpoint: Path, **options: int) -> Engine:
    return Engine(built(checkpoint, device="cuda", **options))


@on_a_gpu
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_gives_the_logits_of_transformers(family: str) -> None:
    model = tiny(family)
    compiled = engine(converted(model, dtype="float32"))
    tokens = np.random.default_rng(11).integers(3, 260, (8, 60))
    expected = original_logits(model, torch.from_numpy(tokens)).numpy()
    for prompt, row, other in zip((1, 2, 5, 9, 16, 25, 33, 40), tokens.tolist(), expected, strict=True):
        assert np.abs(run(compiled, row, prompt) - other[prompt - 1 :]).max() < 1e-3


@on_a_gpu
def test_several_sequences_share_a_recorded_step() -> None:
    checkpoint = converted(tiny("qwen2"), dtype="float32")
    compiled, plain = engine(checkpoint, max_batch_size=10), EagerModel(checkpoint, tokens_per_block=BLOCK)
    check_a_shared_step(compiled, plain, 1e-3)


@on_a_gpu
def test_int8_weights_run_as_the_network_runs_them() -> None:
    checkpoint = quantized(wide_llama(), "int8_wo")
    tokens = list(range(5, 50))
    plain = run(EagerModel(checkpoint, tokens_per_block=BLOCK), tokens, 40)  # type: ignore[arg-type]
    assert np.abs(run(engine(checkpoint), tokens, 40) - plain).max() < 1e-3


@pytest.mark.skipif(HERE, reason="on a GPU the tests above run the kernels themselves")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton, the language, comes for Linux only")
def test_the_kernels_compute_what_the_loops_do_in_triton_s_interpreter(tmp_path: Path) -> None:
    """The language comes with builds of torch for a GPU; elsewhere it is installed for this test, and only here."""
    if find_spec("triton") is None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
        subprocess.run([*pip, TRITON], check=True)
    interpreted = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", KERNELS], check=True, env=interpreted)
