"""Two test processes share two cores: each computes with one thread, and no thread spins while it waits.

What is made for many tests is made once for all processes, and no module leaves torch's gradients off for the next.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def pytest_configure() -> None:
    """The folder that checkpoints_made.py fills; its name is in the environment before the workers start."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["LABS_TEST_HOME"] = tempfile.mkdtemp(prefix="labs-made-")


def pytest_unconfigure() -> None:
    """Remove it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["LABS_TEST_HOME"], ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """Cells of labs, run in a test's own process, turn gradients off for good; the next module finds them on."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a measured figure although the test passes."""

    def print_it(text: str) -> None:
        with capsys.disabled():
            print(text)

    return print_it
