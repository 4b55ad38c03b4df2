"""A checkpoint -> an engine folder, and what runs it: graphs compiled ahead of time, a paged KV cache, an executor.

The way of a build: :mod:`build_config`, :mod:`parts`, :mod:`products`, :mod:`export`, :mod:`compiler`,
:mod:`weights`, :mod:`folder`, :mod:`build`. The way of a token: :mod:`loaded`, :mod:`paged`, :mod:`blocks`,
:mod:`scheduler`, :mod:`batch`, :mod:`executor`, :mod:`runner`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.engine.build import Built
    from labsupport.engine.build_config import BuildConfig
    from labsupport.engine.eager import EagerModel
    from labsupport.engine.executor import Executor
    from labsupport.engine.limits import CapacitySchedulerPolicy, ExecutorConfig, KvCacheConfig, Limits
    from labsupport.engine.loaded import Engine
    from labsupport.engine.requests import Request, Result
    from labsupport.engine.runner import Runner

_HOMES = {
    "BuildConfig": "build_config", "Built": "build", "CapacitySchedulerPolicy": "limits", "EagerModel": "eager",
    "Engine": "loaded", "Executor": "executor", "ExecutorConfig": "limits", "KvCacheConfig": "limits",
    "Limits": "limits", "Request": "requests", "Result": "requests", "Runner": "runner",
}  # fmt: skip
__all__ = [
    "BuildConfig",
    "Built",
    "CapacitySchedulerPolicy",
    "EagerModel",
    "Engine",
    "Executor",
    "ExecutorConfig",
    "KvCacheConfig",
    "Limits",
    "Request",
    "Result",
    "Runner",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
