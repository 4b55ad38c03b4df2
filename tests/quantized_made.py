"""Quantized checkpoints for tests: tiny models, each made once in a test run, calibrated on a text of their own."""

from __future__ import annotations

import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from checkpoints_made import home, made, tiny

from labsupport.checkpoint.quantize.quantize import quantize_model
from labsupport.checkpoint.quantize.recipes import QuantizeOptions

SENTENCE = "Each of the nineteen boats in the harbor has a number, a name and an owner who talks about selling it. "


@cache
def text() -> Path:
    path = home() / f"calibration-{os.getpid()}.txt"
    path.write_text(SENTENCE * 12)  # the tiny tokenizer makes about a token a character
    return path


def quantized(model: Path, recipe: str, **options: Any) -> Path:
    """A checkpoint of ``model`` in float32, so that only the recipe rounds; made once."""
    settings = {"dtype": "float32"} | options
    asked = QuantizeOptions(recipe, **settings)
    return made(lambda folder: quantize_model(model, asked, output=folder, text=text()), model, recipe, settings)


def llama() -> Path:
    """Wide enough for two ranks with inputs in groups of 64."""
    return tiny("llama", hidden_size=128, num_hidden_layers=2)


def copy(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target
