"""Quantized checkpoints for tests: tiny models, each made once, calibrated on a text of their own."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints_made import _home, _named, tiny

from labsupport.checkpoint.quantize.quantize import quantize_model
from labsupport.checkpoint.quantize.recipes import QuantizeOptions

SENTENCE = "Each of the nineteen boats in the harbor has a number, a name and an owner who talks about selling it. "


@cache
def text() -> Path:
    path = _home() / "calibration.txt"
    path.write_text(SENTENCE * 12)  # the tiny tokenizer makes about a token a character
    return path


def quantized(model: Path, recipe: str, **options: Any) -> Path:
    """A checkpoint of ``model`` in float32, so that only the recipe rounds; made once."""
    settings = {"dtype": "float32"} | options
    folder = _home() / _named(model.name, recipe, settings)
    if not folder.exists():
        quantize_model(model, QuantizeOptions(recipe, **settings), output=folder, text=text())
    return folder


def llama() -> Path:
    """Wide enough for two ranks with inputs in groups of 64."""
    return tiny("llama", hidden_size=128, num_hidden_layers=2)


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target
