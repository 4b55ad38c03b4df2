"""Runs a command, and ends it with all that it started when it is told to, or when whoever asked for it is gone.

A notebook's kernel that is killed cannot clean up after itself. So this file is run as a process of its own, in a
session of its own: it looks for its parent, takes in the orphans of its child, and removes what the child leaves.
It knows the standard library only and is run by path, so that it starts in a few hundredths of a second.

    python guard.py PARENT_PID GRACE_SECONDS FOLDER SHARED_MEMORY_PREFIX HOST:PORT COMMAND...

Triton 2.51 never replaces the process of a Python model that was killed: it calls itself ready, refuses what comes, and
leaves what was running without an answer for ever. So the guard starts the command again, a few times at most: clients
see the connection break at once, and can ask again when HOST:PORT says that it is ready.

At the end, shared memory whose name begins with the prefix is removed; so is FOLDER, where the parent cannot.
Linux only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOOK_S = 0.25
STARTS = 4
WAKING = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
libc = ctypes.CDLL(None)


def main() -> int:
    """Guard the command until it ends."""
    parent, grace, folder, prefix, address, *command = sys.argv[1:]
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKING)  # from here on they are fetched, one by one
    for left in reversed(range(STARTS)):
        child = start(command)
        lost = watch(child, int(parent), address)
        code = end(child, 0 if lost else float(grace))
        for path in Path("/dev/shm").glob(f"{prefix}*"):
            path.unlink(missing_ok=True)
        if not lost:
            break
        after = "the server starts again" if left else "the server ends, because it was not the first time"
        os.write(1, f"guard: the process of a model was killed ({lost}); {after}\n".encode())
    if os.getppid() != int(parent):
        shutil.rmtree(folder, ignore_errors=True)
    return code


def start(command: list[str]) -> subprocess.Popen[bytes]:
    """Start the command. Should the guard itself be killed, its child gets SIGKILL from the kernel."""

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAKING)

    return subprocess.Popen(command, preexec_fn=prepare)


def watch(child: subprocess.Popen[bytes], parent: int, address: str) -> str | None:
    """Return when the child or the parent has ended, or a signal came: None. Or a process of the child was killed."""
    ready, before = False, set[int]()
    while child.poll() is None and os.getppid() == parent:
        told = signal.sigtimedwait(WAKING, LOOK_S)
        if told and told.si_signo != signal.SIGCHLD:
            return None
        ready = ready or is_ready(address)
        dead = zombies(child.pid) if ready else set()
        if dead & before and child.poll() is None:  # seen twice: one that ends in order is fetched by the child
            return ", ".join(map(str, sorted(dead)))
        before = dead
    return None


def is_ready(address: str) -> bool:
    """Whether the server says that all its models are loaded."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=LOOK_S) as one:
            one.sendall(b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
            return b" 200 " in one.recv(64)
    except OSError:
        return False


def zombies(pid: int) -> set[int]:
    """Children of a process that have ended, and that it did not fetch."""
    found = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            for one in path.read_text().split():
                if Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    found.add(int(one))
    return found


def end(child: subprocess.Popen[bytes], grace: float) -> int:
    """Ask the child to end and wait ``grace`` seconds; then kill it, and everything below it."""
    if grace:
        child.terminate()
    try:
        code = child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    while below := children():
        for pid in below:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return code


def children() -> list[int]:
    """Processes below this one; orphans of a child come here, because this process is their reaper."""
    reap()
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def reap() -> None:
    """Take the exit codes of what has ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    sys.exit(main())
