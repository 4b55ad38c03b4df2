"""The room as a whole: its examples are true, and entering it does not load torch."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import labsupport.decoding

MODULES = [f"labsupport.decoding.{module.name}" for module in pkgutil.iter_modules(labsupport.decoding.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_entering_the_room_does_not_load_torch() -> None:
    script = "import sys, labsupport.decoding; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_exported_name_exists() -> None:
    for name in labsupport.decoding.__all__:
        assert getattr(labsupport.decoding, name) is not None
