"""What went wrong, read off a server's log."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """Why a server did not start.

    Args:
        why: one sentence.
        fix: what to try next.
    """

    why: str
    fix: str


# What stands in the log, the cause in our words, and its mend. The first that is found counts.
_KNOWN = (
    (r"Address already in use|failed to bind|No address added|failed to start \w+ (?:service|server)",
     "another program listens on one of the server's ports", "another port, or end that program: ss -ltnp"),
    (r"built (?:for|on) (?:another|a different)|another machine",
     "the engine was built for another machine", "labs build CHECKPOINT --force, then labs assemble"),
    (r"Engine deserialization|Version tag does not match",
     "the engine was built with another TensorRT", "build it in the container that serves it"),
    (r"output tensor shape does not match size of output|cannot be run in\s+NumPy 2|numpy\.dtype size changed",
     "the server's Python has numpy 2, and the Python backend needs numpy 1", "pip install 'numpy<2'"),
    (r"tokenizer",
     "the tokenizer cannot be loaded", "labs assemble ENGINE --tokenizer FOLDER --force"),
    (r"unable to find '.*backend|unable to find backend|no backend library",
     "a model asks for a backend that is not there", "labs lint-repo REPOSITORY"),
    (r"Error parsing text-format|failed to read text proto|Expected (?:integer|identifier)",
     "a config.pbtxt cannot be read", "labs lint-repo REPOSITORY --fix"),
    (r"No space left on device|Unable to initialize shared memory|Bus error",
     "shared memory is full", "free /dev/shm; in a container: --shm-size 2g"),
    (r"error while loading shared libraries|cannot open shared object file",
     "a library that the server needs is not found", "labs doctor"),
    (r"ModuleNotFoundError|ImportError", "a package is missing in the server's Python", "make setup"),
    (r"MemoryError|bad_alloc|Cannot allocate memory", "the machine's memory is full", "labs memory MODEL"),
)  # fmt: skip
CAUSES = tuple((re.compile(pattern, re.IGNORECASE), Cause(why, fix)) for pattern, why, fix in _KNOWN)
PORT_IN_USE = CAUSES[0][1]
HARMLESS = re.compile(r"CudaDriverHelper|stream for ensemble|CUDA memory pool|pinned_memory|no CUDA|CUDA driver")
PROBLEM = re.compile(r"[EF]\d{4} |\s*[\w.]*(?:Error|Exception)\b|.*error while loading|.*failed", re.IGNORECASE)
STAMP = re.compile(r"^[EWIF]\d{4} [\d:.]+ \d+ \S+\] ?")


def cause_in(text: str) -> Cause | None:
    """The cause of a failed start that ``text``, a log, names; None where it names none."""
    lines = [line for line in text.splitlines() if PROBLEM.match(line) and not HARMLESS.search(line)]
    for pattern, cause in CAUSES:
        if any(pattern.search(line) for line in lines):
            return cause
    return None


def tail(text: str, most: int = 12) -> str:
    """The last lines of a log that speak of a problem; where there are none, its last lines."""
    lines = [line for line in text.splitlines() if line.strip() and not HARMLESS.search(line)]
    kept = [line for line in lines if PROBLEM.match(line)] or lines
    return "\n".join(_short(line) for line in kept[-most:])


def _short(line: str, most: int = 300) -> str:
    plain = STAMP.sub("", line).strip()
    return plain if len(plain) <= most else plain[:most] + " ..."
