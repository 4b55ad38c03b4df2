"""Triton backends on our engines: what lies in a folder here serves every model whose config names the folder.

Triton's Python-based backends: ``<name>/model.py`` runs in the Python stub, one process for each model instance.
"""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """The folder that holds ``tensorrtllm/``: what goes beside ``python/`` in a ``--backend-directory``."""
    return Path(__file__).resolve().parent
