"""A peer at work: its process, one question and one answer at a time."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from labsupport.errors import BenchmarkError

_TAIL = 600  # characters of a dying worker's stderr
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker:
    """A process that answers each line of JSON with one.

    Args:
        name: for messages.
        command: program and arguments.
        threads: what OpenMP and the BLAS libraries are told; each script tells its engine too.

    Raises:
        BenchmarkError: from ``ask``, where the process has ended or does not speak the protocol.
    """

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        environment = {**os.environ, **dict.fromkeys(_THREADS, str(threads))}
        environment.pop("OPENBLAS_CORETYPE", None)  # a choice made for another library would slow this one
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment,
            text=True, encoding="utf-8",
        )  # fmt: skip
        self.peak = 0

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send one question, wait for its answer, and note the memory that it took."""
        process = self._process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            answer = json.loads(line) if line else None
        except (BrokenPipeError, json.JSONDecodeError):
            answer = None
        if not isinstance(answer, dict):
            raise self._broken()
        self.peak = max(self.peak, _peak_bytes(process.pid))
        return answer

    def cpu_seconds(self) -> float:
        """Processor time of the process so far, all its threads together."""
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    def _broken(self) -> BenchmarkError:
        self._process.kill()
        code = self._process.wait()
        self._said.seek(0)
        tail = self._said.read()[-_TAIL:].strip() or f"it said nothing, exit code {code}"
        return BenchmarkError(
            f"the worker of {self.name} ended, or did not answer in JSON",
            why=tail,
            fix="leave it out with --peers; or remove its venv in work/peers, and --install makes it anew",
        )

    def close(self) -> None:
        """End the process: first by closing its input, which it takes as the end."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def busy_seconds() -> float:
    """Processor time of all programs since the machine started, with what a virtual machine's host took away."""
    times = psutil.cpu_times()
    waiting = times.idle + getattr(times, "iowait", 0.0)
    return float(sum(times[:8]) - waiting)  # beyond, guests are counted a second time


def _peak_bytes(pid: int) -> int:
    """The most resident memory of a process so far, with pages of mapped files; off Linux what it has now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return int(psutil.Process(pid).memory_info().rss)
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
