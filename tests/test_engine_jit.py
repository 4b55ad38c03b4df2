"""Graphs that are kept with the compiler's cache, the way of a GPU, made and loaded on the CPU.

No GPU is needed for what can go wrong here: which tensors the compiled function takes, and what its cache holds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_made import converted, tiny
from engines_made import BLOCK

from labsupport.checkpoint.config import read_config
from labsupport.engine import jit
from labsupport.engine.build_config import build_config, resolve
from labsupport.engine.export import export_graphs, products
from labsupport.engine.parts import take_apart

COMPILE = """
import json, sys, torch
from pathlib import Path
from labsupport.engine.jit import compile_program
job = Path(sys.argv[1])
asked = json.loads((job / "inputs").read_text())
zeros = [torch.zeros(shape, dtype=getattr(torch, dtype)) for shape, dtype, _device in asked]
compile_program(torch.export.load(job / "program.pt2"), zeros, job / "made.pt2", {})
"""


def test_a_kept_graph_computes_what_was_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = converted(tiny("llama"), dtype="float32")
    model = read_config(checkpoint)
    config, _ = resolve(build_config(max_batch_size=1, tokens_per_block=BLOCK, max_input_len=64), model)
    parts = take_apart(checkpoint, model, products("cpu", model.dtype), "cpu")
    (layer,) = [graph for graph in export_graphs(parts, config) if graph.name == "layer.1"]
    (tmp_path / "program.pt2").write_bytes(layer.program)
    (tmp_path / "inputs").write_text(json.dumps(layer.inputs))
    own = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILE, str(tmp_path)], check=True, env=own)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "fresh"))  # nothing but what the package holds
    kept = jit.load(tmp_path / "made.pt2")
    torch.manual_seed(0)
    given = [some(shape, getattr(torch, dtype)) for shape, dtype, _ in layer.inputs]
    again = [one.clone() for one in given]  # the pools of keys and values are written in place
    got = kept.run(given)[0]
    exported = torch.export.load(tmp_path / "program.pt2")
    expected = torch.utils._pytree.tree_leaves(exported.module()(*tree(exported, again)))[0]
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(given, again, strict=True))
    assert (tmp_path / "fresh").exists()


def some(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Random numbers, or the index 1: the second token of a sequence whose keys lie in block 1."""
    return torch.randn(shape) if dtype.is_floating_point else torch.ones(shape, dtype=dtype)


def tree(program: torch.export.ExportedProgram, given: list[torch.Tensor]) -> tuple[Any, ...]:
    """The inputs as the exported module takes them."""
    assert program.call_spec.in_spec is not None
    (arguments, _) = torch.utils._pytree.tree_unflatten(given, program.call_spec.in_spec)
    return tuple(arguments)
