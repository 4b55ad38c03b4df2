"""LLM Serving Labs: from logits to a validated, benchmarked, streaming server.

The rooms, along the way that the data takes; each imports only from the rooms before it::

    errors, workspace -> models -> decoding -> checkpoint -> engine -> repository -> benchmark -> figures -> labs -> cli

Importing this package is instant: a name below is looked up in its room when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from labsupport.errors import LabError

if TYPE_CHECKING:
    from labsupport.labs.checks import check
    from labsupport.labs.guide import hint, solution
    from labsupport.labs.session import start

__version__ = "0.1.0"
__all__ = ["LabError", "check", "hint", "solution", "start"]

_HOMES = {
    "check": "labsupport.labs.checks",
    "hint": "labsupport.labs.guide",
    "solution": "labsupport.labs.guide",
    "start": "labsupport.labs.session",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'labsupport' has no attribute {name!r}")
