"""Exported programs -> machine code, each in a process of its own: ``python -m labsupport.engine.compiler FOLDER ...``.

A job is a folder with ``program.pt2`` (what ``torch.export.save`` wrote) and ``job.json`` (the target, the device, and
shape and type of each input). Processes, since the compiler runs on one core. They are forked from one that has
imported the compiler, which takes as long as compiling a small graph; and not by ``multiprocessing``, which would run
the caller's script a second time.

For a CPU the result is a library (AOTInductor). For a GPU it is what :mod:`labsupport.engine.jit` keeps: libraries for
CUDA that torch 2.11 makes ended the process that loaded them with a segmentation fault, of two-line models too.

Source: PyTorch 2.13, ``torch._inductor.aoti_compile_and_package``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.errors import EngineError

PROGRAM, JOB, SAID = "program.pt2", "job.json", "said.txt"
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "aot_inductor.package_constants_in_so": False,
        "aot_inductor.enable_line_tables": False,  # for debuggers: two thirds of the file
        # a loop over packed weights reads eleven arrays; by default its numbers would be stored before they are summed
        "realize_acc_reads_threshold": 64,
        "realize_opcount_threshold": 400,
        "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum may be one instruction
    },
    "cuda": {},
}


@dataclass(frozen=True)
class Exported:
    """One graph before it is compiled.

    Args:
        name: ``layer.context``, ``layer.1``, ``head.8`` ...
        program: what ``torch.export.save`` wrote.
        inputs: shape, type and device of each example input.
    """

    name: str
    program: bytes
    inputs: list[tuple[list[int], str, str]]


@dataclass(frozen=True)
class Compiled:
    """One graph.

    Args:
        name: as it was exported.
        path: the package.
        began: when the compilation began, by ``time.perf_counter``.
        seconds: how long it took.
    """

    name: str
    path: Path
    began: float
    seconds: float


def compile_graphs(
    exported: Sequence[Exported],
    folder: Path,
    *,
    device: str,
    workers: int,
    progress: Callable[[Compiled], object],
) -> list[Compiled]:
    """Compile every program to ``folder/<name>.pt2``, ``workers`` at a time.

    Raises:
        EngineError: the compiler failed.
    """
    for one in exported:
        job = folder / one.name
        job.mkdir()
        (job / PROGRAM).write_bytes(one.program)
        asked = {"target": str(folder / f"{one.name}.pt2"), "device": device, "inputs": one.inputs}
        (job / JOB).write_text(json.dumps(asked), encoding="utf-8")
    made = {}
    command = [sys.executable, "-W", "ignore", "-m", "labsupport.engine.compiler", str(folder), str(workers)]
    process = subprocess.Popen(
        [*command, *(one.name for one in exported)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        for line in process.stdout:
            name, began, seconds, code = json.loads(line)
            if code != 0:
                raise _failed(name, folder / name / SAID, code)
            made[name] = Compiled(name, folder / f"{name}.pt2", began, seconds)
            progress(made[name])
        if len(made) < len(exported):
            assert process.stderr is not None
            raise _died("the compiler", process.stderr.read(), process.wait())
    finally:
        if process.poll() is None:
            _end(process)
        process.communicate()
    return [made[one.name] for one in exported]


def _end(process: subprocess.Popen[str]) -> None:
    """End it and what it forked; a process that has handed out its last job ends by itself."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _failed(name: str, said: Path, code: int) -> EngineError:
    return _died(f"the graph {name}", said.read_text(encoding="utf-8", errors="replace") if said.exists() else "", code)


def _died(what: str, said: str, code: int) -> EngineError:
    last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
    return EngineError(
        f"{what} did not compile",
        why=last,
        fix="labs doctor tells about the compiler; a full disk or too little memory ends it too (--workers 1)",
    )


def main(folder: Path, workers: int, names: Sequence[str]) -> None:
    """Run the jobs in ``folder``; print a line of JSON for each as it ends: name, when it began, seconds, exit code."""

    waiting, running = list(names), dict[int, tuple[str, float]]()
    while waiting or running:
        while waiting and len(running) < workers:
            name = waiting.pop(0)
            running[_fork(folder / name)] = name, time.perf_counter()
        pid, status = os.wait()
        name, began = running.pop(pid)
        ended = [name, began, time.perf_counter() - began, os.waitstatus_to_exitcode(status)]
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()


def _fork(job: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        said = os.open(job / SAID, os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        _compile(job)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _compile(job: Path) -> None:
    import torch
    from torch.utils._pytree import tree_unflatten

    import labsupport.engine.gpu  # noqa: F401  # programs for a GPU name its operations

    asked = json.loads((job / JOB).read_text(encoding="utf-8"))
    program = torch.export.load(job / PROGRAM)
    zeros = [torch.zeros(shape, dtype=getattr(torch, dtype), device=device) for shape, dtype, device in asked["inputs"]]
    if asked["device"] == "cuda":
        from labsupport.engine.jit import compile_program

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(job / "cache")  # goes into the package, whole
        compile_program(program, zeros, Path(asked["target"]), OPTIONS["cuda"])
        return
    # with all cores here, loops ask for their threads as they run; under a limit of one they would never have two
    torch.set_num_threads(os.cpu_count() or 1)
    (arguments, _keywords) = tree_unflatten(zeros, program.call_spec.in_spec)
    program.example_inputs = (arguments, {})
    torch._inductor.aoti_compile_and_package(
        program, package_path=asked["target"], inductor_configs=OPTIONS[asked["device"]]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
