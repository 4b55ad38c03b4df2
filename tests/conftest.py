"""Two test processes share two cores: each computes with one thread, and no thread spins while it waits.

And no test module leaves torch's gradients switched off for the next one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="module", autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """Cells of labs, run in a test's own process, turn gradients off for good; the next module finds them on."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)
