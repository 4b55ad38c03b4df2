"""Runs a command, and ends it with all that it started when it is told to, or when whoever asked for it is gone.

A notebook's kernel that is killed cannot clean up after itself. So this file is run as a process of its own, in a
session of its own: it looks for its parent, takes in the orphans of its child, and removes what the child leaves.
It knows the standard library only and is run by path, so that it starts in a few hundredths of a second.

    python guard.py PARENT_PID GRACE_SECONDS FOLDER SHARED_MEMORY_PREFIX COMMAND...

At the end, shared memory whose name begins with the prefix is removed; so is FOLDER, where the parent cannot.
Linux only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
LOOK_S = 0.25


def main() -> int:
    """Guard the command until it ends."""
    parent, grace, folder, prefix, *command = sys.argv[1:]
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    child = subprocess.Popen(  # should the guard itself be killed, its child gets SIGKILL from the kernel
        command, preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    )
    waking = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, waking)  # from here on they are fetched, one by one
    while child.poll() is None and os.getppid() == int(parent):
        told = signal.sigtimedwait(waking, LOOK_S)
        if told and told.si_signo != signal.SIGCHLD:
            break
    code = end(child, float(grace))
    if os.getppid() != int(parent):
        shutil.rmtree(folder, ignore_errors=True)
    for path in Path("/dev/shm").glob(f"{prefix}*"):
        path.unlink(missing_ok=True)
    return code


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
