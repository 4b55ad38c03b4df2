"""Where the real Triton server cannot run, and why; and the server for tests that bring backends of their own.

Other tests take ``labsupport.serving.Server``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from labsupport.serving import Server
from labsupport.serving.local import fill_backends, why_no_streams, why_not_here

WHY_NOT = why_not_here() or why_no_streams()
needs_triton = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@dataclass(frozen=True)
class Local:
    """A running server."""

    http: str
    grpc: str
    log: Path


def backends(folder: Path, engine: Path) -> Path:
    """A backend folder: Triton's Python backend with this Python's stub, and ``engine`` as backend ``tensorrtllm``."""
    fill_backends(folder, engine)
    return folder


@contextmanager
def serving(repository: Path, backend_folder: Path, *options: str) -> Iterator[Local]:
    """Run the server in ``repository`` until the end of the block. The last of two options of one name counts."""
    chosen = (f"--backend-directory={backend_folder}", *options)
    with Server(repository, engine=backend_folder / "tensorrtllm", seconds=100, options=chosen) as server:
        assert server.log
        yield Local(server.address.http, server.address.grpc, server.log)
