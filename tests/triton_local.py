"""The real Triton server on this machine, for tests of a repository: binary and Python backend of nvidia-pytriton."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labsupport.repository.launch import server_arguments

READY_LIMIT_S = 100


@dataclass(frozen=True)
class Local:
    """A running server."""

    http: str
    grpc: str
    log: Path


def package() -> Path | None:
    """The folder of pytriton, or None: it exists for Linux on x86-64 only."""
    found = importlib.util.find_spec("pytriton")
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def backends(folder: Path, engine: Path) -> Path:
    """A backend folder: Triton's Python backend with this Python's stub, and ``engine`` as backend ``tensorrtllm``."""
    home = package()
    assert home is not None
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    shutil.copytree(home / "tritonserver" / "backends" / "python", folder / "python")
    stub = home / "tritonserver" / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "python" / stub.name)
    shutil.copytree(engine, folder / "tensorrtllm")
    return folder


@contextmanager
def serving(repository: Path, backend_folder: Path, *options: str) -> Iterator[Local]:
    """Run the server in ``repository`` until the end of the block."""
    home = package()
    assert home is not None
    ports = free_ports(3)
    names = ("--http-port", "--grpc-port", "--metrics-port")
    log = backend_folder.parent / "server.log"
    libraries = [home.parent / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR"))]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
    }
    command = [home / "tritonserver" / "bin" / "tritonserver", f"--backend-directory={backend_folder}"]
    command += ["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]
    command += server_arguments(repository)
    command += [f"{name}={port}" for name, port in zip(names, ports, strict=True)]
    for attempt in (1, 2):  # a stub of 2.51 now and then never reports that it has loaded, on a busy machine
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [*command, *options], env=environment, cwd=repository, stdout=sink, stderr=sink, start_new_session=True
            )
        if is_ready(process, ports[0]):
            break
        end(process)
        assert attempt == 1, f"the server is not ready:\n{log.read_text(errors='replace')[-6000:]}"
    try:
        yield Local(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", log)
    finally:
        end(process)


def is_ready(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + READY_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=1):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
