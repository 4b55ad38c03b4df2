"""One exported program -> machine code, in a process of its own: ``python -m labsupport.engine.compiler JOB``.

A job is a folder with ``program.pt2`` (what ``torch.export.save`` wrote) and ``job.json`` (the target, the device, and
shape and type of each input). Processes, since the compiler runs on one core; and not of ``multiprocessing``, which
would run the caller's script a second time.

For a CPU the result is a library (AOTInductor). For a GPU it is what :mod:`labsupport.engine.jit` keeps: libraries for
CUDA that torch 2.11 makes ended the process that loaded them with a segmentation fault, of two-line models too.

Source: PyTorch 2.13, ``torch._inductor.aoti_compile_and_package``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from labsupport.errors import EngineError

OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "aot_inductor.package_constants_in_so": False,
        "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum may be one instruction
    },
    "cuda": {"coordinate_descent_tuning": True},
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
    made = []
    with ThreadPoolExecutor(max(1, min(workers, len(exported)))) as pool:
        for one in pool.map(partial(_in_a_process, folder=folder, device=device), exported):
            made.append(one)
            progress(one)
    return made


def _in_a_process(exported: Exported, folder: Path, device: str) -> Compiled:
    began, job, target = time.perf_counter(), folder / exported.name, folder / f"{exported.name}.pt2"
    job.mkdir()
    (job / "program.pt2").write_bytes(exported.program)
    asked = {"target": str(target), "device": device, "inputs": exported.inputs}
    (job / "job.json").write_text(json.dumps(asked), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "labsupport.engine.compiler", str(job)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(job / "cache")} if device == "cuda" else None,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise EngineError(
            f"the graph {exported.name} did not compile",
            why=last,
            fix="labs doctor tells about the compiler; a full disk or too little memory ends it too (--workers 1)",
        )
    return Compiled(exported.name, target, began, time.perf_counter() - began)


def main(job: Path) -> None:
    """Compile one job; what the process does."""
    import torch
    from torch.utils._pytree import tree_unflatten

    asked = json.loads((job / "job.json").read_text(encoding="utf-8"))
    program = torch.export.load(job / "program.pt2")
    zeros = [torch.zeros(shape, dtype=getattr(torch, dtype), device=device) for shape, dtype, device in asked["inputs"]]
    if asked["device"] == "cuda":
        from labsupport.engine.jit import compile_program

        return compile_program(program, zeros, Path(asked["target"]), OPTIONS["cuda"])
    (arguments, _keywords) = tree_unflatten(zeros, program.call_spec.in_spec)
    program.example_inputs = (arguments, {})
    torch._inductor.aoti_compile_and_package(
        program, package_path=asked["target"], inductor_configs=OPTIONS[asked["device"]]
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
