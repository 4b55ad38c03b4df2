"""Checkpoints for tests: tiny models converted, each made once in a run, and copies that were spoiled on purpose."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from torch import Tensor

from labsupport.checkpoint.convert import convert
from labsupport.checkpoint.convert_plan import Options
from labsupport.models.quiet import quiet_transformers
from labsupport.models.tiny import make_tiny

ALL_FAMILIES = ("llama", "mistral", "gemma", "gemma2", "gemma3", "opt", "gpt2", "qwen2", "qwen3")
TOKENS = torch.randint(0, 260, (2, 40), generator=torch.Generator().manual_seed(7))
Tensors = dict[str, Tensor]


def home() -> Path:
    """The folder of this test run, which conftest.py makes and removes; all test processes share it."""
    return Path(os.environ["LABS_TEST_HOME"])


def made(make: Callable[[Path], object], *parts: object) -> Path:
    """The folder that ``make`` makes, named after ``parts``: the first process makes it, the others wait."""
    named = (part.name if isinstance(part, Path) and part.parent == home() else str(part) for part in parts)
    folder = home() / "-".join(named).translate(str.maketrans("", "", " '(){}[]:,/"))
    with FileLock(home() / f".{folder.name}.made"):
        if not folder.exists():
            make(folder)
    return folder


def tiny(family: str, **overrides: Any) -> Path:
    """The folder of a tiny random model; made once."""
    return made(lambda folder: make_tiny(family, folder, **overrides), family, overrides)


def converted(model: Path, **options: Any) -> Path:
    """A checkpoint of ``model``; made once."""
    return made(lambda folder: convert(model, Options(**options), output=folder), model, "as", options)


def spoiled(
    checkpoint: Path,
    folder: Path,
    rank: int = 0,
    tensors: Callable[[Tensors], object] | None = None,
    config: Callable[[dict[str, Any]], object] | None = None,
) -> Path:
    """A copy of ``checkpoint`` in ``folder``: ``tensors`` changes those of one rank, ``config`` the parsed JSON."""
    shutil.copytree(checkpoint, folder)
    if tensors is not None:
        path = folder / f"rank{rank}.safetensors"
        held = {name: tensor.clone() for name, tensor in load_file(path).items()}
        tensors(held)
        save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in held.items()}, path)
    if config is not None:
        raw = json.loads((folder / "config.json").read_text())
        config(raw)
        (folder / "config.json").write_text(json.dumps(raw))
    return folder


def original_logits(model: Path, tokens: Tensor = TOKENS) -> Tensor:
    """What transformers computes, in float32."""
    from transformers import AutoModelForCausalLM

    with quiet_transformers(), torch.no_grad():
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
        logits: Tensor = network.eval()(tokens).logits
    return logits
