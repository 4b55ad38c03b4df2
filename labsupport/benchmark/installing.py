"""A peer's Python and its model files: ``work/peers/<name>/venv``, and ``models/<model>/<precision>`` beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from labsupport.benchmark.catalogue import OURS, WORKER, Peer
from labsupport.checkpoint.convert_record import key
from labsupport.errors import BenchmarkError
from labsupport.workspace import Workspace, atomic_folder, read_record, write_record

_TAIL = 1200  # characters of what a failed command said
NATIVE = {"CMAKE_ARGS": "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF", "CMAKE_BUILD_PARALLEL_LEVEL": "2"}
STRAY = ("torchvision", "torchaudio", "torchcodec")  # builds for another torch, which break the import of transformers


def home(peer: Peer) -> Path:
    """The peer's folder in the workspace."""
    return Workspace.current().root / "peers" / peer.name


def python_of(peer: Peer) -> Path:
    """The Python that runs the peer: its own, or that of the labs for one that needs no packages."""
    return home(peer) / "venv" / "bin" / "python" if peer.pip else Path(sys.executable)


def installed(peer: Peer) -> bool:
    """Whether the last step of ``install`` was reached, for this very list of packages."""
    ready = not peer.pip or (read_record(home(peer) / "venv") or {}).get("pip") == _wanted(peer)
    return ready and (peer.script.is_file() or not peer.precisions)  # a tool that runs no model needs no script


def _wanted(peer: Peer) -> list[list[str]]:
    return [*map(list, peer.pip), *([[peer.sdist]] if peer.sdist else [])]


def install(peer: Peer) -> None:
    """Make the peer's virtual environment, unless it is there. Needs a package index, for ``sdist`` a C++ compiler.

    Raises:
        BenchmarkError: with the last words of the step that failed.
    """
    if not peer.pip or installed(peer):
        return
    venv = home(peer) / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    _run(peer, [sys.executable, "-m", "venv", str(venv)])
    pip = [str(python_of(peer)), "-m", "pip", "--disable-pip-version-check", "-q"]
    for packages in peer.pip:
        _run(peer, [*pip, "install", *packages])
    if peer.sdist:
        _run(peer, [*pip, "install", str(_source(peer, pip))], NATIVE)
    _run(peer, [*pip, "uninstall", "-y", *STRAY])
    write_record(venv, {"step": "install", "pip": _wanted(peer)})


def _source(peer: Peer, pip: list[str]) -> Path:
    """The unpacked source of ``sdist``: it holds tools that its wheel leaves out."""
    with atomic_folder(home(peer) / "source") as making:
        package = str(peer.sdist)
        _run(
            peer, [*pip, "download", "--no-deps", "--no-binary", package.partition("==")[0], "-d", str(making), package]
        )
        (archive,) = making.glob("*.tar.gz")
        shutil.unpack_archive(archive, making)
        (unpacked,) = (path for path in making.iterdir() if path.is_dir())
        for path in unpacked.iterdir():
            path.rename(making / path.name)
        archive.unlink()
    return home(peer) / "source"


def files_of(peer: Peer, model: Path, precision: str) -> Path:
    """The peer's files of the Hugging Face folder ``model``, made by the peer's own tools where they are missing.

    Raises:
        BenchmarkError: the peer is not installed, or its tools failed.
    """
    require_installed(peer)
    if peer.name == OURS:
        from labsupport.benchmark.ours import engine_of

        return engine_of(model, precision)
    if not peer.pip:
        return model
    target = home(peer) / "models" / model.name / precision
    made_from = {path.name: key(path) for path in sorted(model.glob("*.safetensors"))}
    record = {"step": "peer files", "inputs": made_from, "pip": _wanted(peer)}
    if read_record(target) != record:
        with atomic_folder(target) as making:
            _run(
                peer,
                [str(python_of(peer)), str(WORKER), str(peer.script), "prepare", str(model), str(making), precision],
            )
            write_record(making, record)
    return target


def require_installed(peer: Peer) -> None:
    """Raises a BenchmarkError where the peer is not installed."""
    if not installed(peer):
        raise BenchmarkError(
            f"{peer.title} is not installed",
            why=f"it has a Python of its own, and {python_of(peer)} is not there or has other packages",
            fix=f"labs bench engines --install --peers {peer.name}, or name other engines with --peers",
        )


def _run(peer: Peer, command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
        raise BenchmarkError(
            f"{' '.join(Path(word).name if '/' in word else word for word in command)} failed for {peer.title}",
            why=said or f"exit code {done.returncode}, without a word",
            fix="mend what it names and try again, or leave this engine out with --peers",
        )
