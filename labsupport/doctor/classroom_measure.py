"""Measure what one learner takes: run the labs in fresh kernels, watch their memory, and start a JupyterLab.

Memory is told apart as Linux does: pages of a process's own (``RssAnon``) are its alone, pages of files (``RssFile``)
are shared by all processes that map the same file. Source: proc(5), /proc/pid/status.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

from labsupport.doctor.classroom import FILE, Figures
from labsupport.doctor.machine import memory_bytes, read_cpu
from labsupport.errors import NotebookError, ParameterError
from labsupport.models import DEFAULT_MODEL, fetch
from labsupport.workspace import Workspace, atomic_text

POLL_SECONDS = 0.1
CELL_SECONDS = 900  # a build in a fresh workspace, on a busy machine
SERVER_SECONDS = 60


def measure(labs: Sequence[Path]) -> Figures:
    """Run ``labs`` one after the other and read what their kernels take; minutes, on Linux only.

    Raises:
        ParameterError: the system does not tell a process's own pages from shared ones.
        NotebookError: a lab did not run, or JupyterLab did not start.
    """
    if not Path("/proc/self/status").is_file():
        raise ParameterError(
            "--measure works on Linux only", why="it reads /proc", fix="leave it out: recorded figures are used"
        )
    model = fetch(DEFAULT_MODEL)
    peaks, left, files = {}, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "checkpoints").mkdir()
        (root / "checkpoints" / model.name).symlink_to(model)  # so that only what the labs write is counted
        for lab in labs:
            environment = {**os.environ, "LABS_WORKSPACE": folder, "OMP_WAIT_POLICY": "PASSIVE"}  # as in `labs lab`
            peak, last, mapped = _run(lab, environment)
            peaks[lab.name[:2]] = peak
            left, files = max(left, last), max(files, mapped)
        written = _bytes_in(root)
    server, server_files = _server()
    return Figures(
        where=f"{read_cpu().model}, {read_cpu().cores} cores, {memory_bytes() / 1e9:.0f} GB",
        when=datetime.date.today().isoformat(),
        server=server,
        peaks=peaks,
        left=left,
        shared=files + server_files,
        model=_bytes_in(model),
        written=written,
    )


def keep(figures: Figures) -> Path:
    """Write figures into the workspace, where the next ``labs doctor --classroom`` finds them."""
    target = Workspace.current().runs / FILE
    atomic_text(target, json.dumps(asdict(figures), indent=2) + "\n")
    return target


def pages(pid: int) -> tuple[int, int]:
    """A process's own bytes and its bytes of mapped files; (0, 0) once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0, 0
    found = {name: int(size) * 1024 for name, size in re.findall(r"^(Rss\w+):\s+(\d+) kB", status, re.MULTILINE)}
    return found.get("RssAnon", 0), found.get("RssFile", 0)


def family_pages(pid: int) -> tuple[int, int]:
    """The own bytes of a process and of all that it started, such as a Triton server; the largest bytes of files."""
    import psutil

    try:
        below = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        below = []
    each = [pages(one) for one in (pid, *below)]
    return sum(own for own, _ in each), max(files for _, files in each)


@contextmanager
def _watched(pid: int) -> Iterator[list[tuple[int, int]]]:
    """Collect ``family_pages(pid)`` while the block runs."""
    seen: list[tuple[int, int]] = [family_pages(pid)]
    done = Event()

    def watch() -> None:
        while not done.wait(POLL_SECONDS):
            seen.append(family_pages(pid))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _run(lab: Path, environment: dict[str, str]) -> tuple[int, int, int]:
    """The peak of a kernel and all that it started, the kernel after the last cell, the peak of file pages: bytes."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    node: Any = nbformat.read(lab, as_version=4)
    client = NotebookClient(node, timeout=CELL_SECONDS, kernel_name="python3")
    client.create_kernel_manager()
    with client.setup_kernel(cwd=str(lab.parent.resolve()), env=environment):
        pid = client.km.provisioner.pid
        with _watched(pid) as seen:
            try:
                for index, cell in enumerate(node.cells):
                    client.execute_cell(cell, index)
            except CellExecutionError as problem:
                said = str(problem).strip().splitlines()[-1]
                raise NotebookError(f"{lab.stem} did not run", why=said, fix=f"labs run {lab.name[:2]}") from None
        last, _ = pages(pid)
    return max(own for own, _ in seen), last, max(mapped for _, mapped in seen)


def _server() -> tuple[int, int]:
    """A JupyterLab server's own bytes and bytes of files, once it listens."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root"]
        environment = {**os.environ, "JUPYTER_CONFIG_DIR": folder, "JUPYTER_DATA_DIR": folder}
        log = Path(folder) / "log"
        with log.open("wb") as out:
            server = subprocess.Popen(
                [*command, f"--ServerApp.root_dir={folder}"], env=environment, stdout=out, stderr=out
            )
        waiting = Event()
        try:
            for _ in range(int(SERVER_SECONDS / POLL_SECONDS)):
                if "is running at" in log.read_text(encoding="utf-8", errors="replace"):
                    waiting.wait(2)  # extensions load after the first line
                    return pages(server.pid)
                if server.poll() is not None:
                    break
                waiting.wait(POLL_SECONDS)
        finally:
            server.terminate()
            server.wait(timeout=20)
    raise NotebookError("JupyterLab did not start", why=f"nothing in {SERVER_SECONDS} s", fix="labs lab --no-browser")


def _bytes_in(folder: Path) -> int:
    """Bytes of the files in a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
