"""How Triton is started: the binary that nvidia-pytriton carries, or the pinned container."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from labsupport.errors import ServerError
from labsupport.repository.launch import server_arguments
from labsupport.repository.text_format import CONFIG, read_model_config
from labsupport.serving.address import Address

PYTHON, ENGINE = "python", "tensorrtllm"
# Each call from a BLS to another model holds a thread until it is answered; with the default of 32 there is none left
# for the call that cancels one, so clients that go away would keep their slots.
PYTHON_BACKEND = {"thread-pool-size": 256}


@dataclass(frozen=True)
class Launch:
    """A command that serves a repository.

    Args:
        command: the program and its arguments.
        cwd: where it must be started; paths in the configs begin there.
        environment: what differs from this process's environment.
    """

    command: list[str]
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)


def package() -> Path | None:
    """The folder of pytriton, or None: it exists for Linux on x86-64 only."""
    found = importlib.util.find_spec("pytriton")
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def why_not_here() -> str | None:
    """Why the server cannot run on this machine, in one sentence; None where it can."""
    if package() is None:
        return "the server's binary comes with nvidia-pytriton, for Linux on x86-64 only"
    import numpy as np

    if int(np.__version__.split(".")[0]) >= 2:
        return f"numpy {np.__version__} is installed, and the server's Python backend crashes with numpy 2"
    return None


def why_no_streams() -> str | None:
    """Why no model can stream to another model here, in one sentence; None where it can."""
    if sys.version_info >= (3, 12):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return f"decoupled calls between models hang in the Python {version} stub of nvidia-pytriton 0.7.0"
    return None


def require_here() -> Path:
    """The folder of pytriton.

    Raises:
        ServerError: the server cannot run on this machine.
    """
    home, problem = package(), why_not_here()
    if home is None or problem:
        raise ServerError(
            "no Triton server can run on this machine",
            why=problem or "",
            fix="name a server elsewhere: export TRITON_URL=HOST:8000; or make setup, where nvidia-pytriton exists",
        )
    return home


def local_launch(
    repository: Path, backends: Path, engine: Path, address: Address, options: tuple[str, ...], prefix: str
) -> Launch:
    """The command for this machine; fills the folder ``backends``.

    Args:
        repository: the model repository.
        backends: an empty folder. It gets Triton's Python backend with this Python's stub, and ``engine``.
        engine: the folder of the backend ``tensorrtllm``.
        address: where to listen.
        options: more of tritonserver's options.
        prefix: what the names of its shared memory begin with.

    Raises:
        ServerError: the server cannot run here, or not this repository.
    """
    home = require_here()
    _require_streams(repository)
    fill_backends(backends, engine)
    libraries = [home.parent / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",  # the stub takes the first python3
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        # threads that spin between two steps would take the cores that the server's other processes need
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
    command = [str(home / "tritonserver" / "bin" / "tritonserver"), f"--backend-directory={backends}"]
    command += server_arguments(repository)
    command += [f"--{name}-address={address.host}" for name in ("http", "grpc", "metrics")]
    command += [f"--{name}-port={address.port + step}" for step, name in enumerate(("http", "grpc", "metrics"))]
    command += [f"--backend-config=python,{key}={value}" for key, value in PYTHON_BACKEND.items()]
    command += [f"--backend-config=python,shm-region-prefix-name={prefix}", *options]
    return Launch(command, repository, environment)


def fill_backends(folder: Path, engine: Path) -> None:
    """Triton's Python backend with this Python's stub, and ``engine`` as the backend ``tensorrtllm``.

    Copies (3 MB): the server refuses a link that leads out of its backend directory.

    Raises:
        ServerError: there is no Triton on this machine.
    """
    home = require_here()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    stub = home / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    unwanted = shutil.ignore_patterns("__pycache__")
    shutil.copytree(home / "tritonserver" / "backends" / PYTHON, folder / PYTHON, ignore=unwanted)
    shutil.copy(stub, folder / PYTHON)
    shutil.copytree(engine, folder / ENGINE, ignore=unwanted)


def _require_streams(repository: Path) -> None:
    config = repository / "tensorrt_llm_bls" / CONFIG
    problem = why_no_streams()
    if problem and config.is_file() and read_model_config(config).model_transaction_policy.decoupled:
        raise ServerError(
            "this server cannot stream from model to model",
            why=problem,
            fix="an environment of Python 3.11: make setup PYTHON=python3.11; or labs assemble --no-decoupled",
        )
