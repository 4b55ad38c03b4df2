"""Run labs headless: each in a fresh kernel, in its own process, within its time, and say how it went."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from labsupport.errors import ParameterError
from labsupport.labs.notebook import Notebook, read
from labsupport.workspace import repository_root

Status = Literal["passed", "failed", "timed out", "no alt text"]
THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """How one lab went.

    Args:
        lab: its file name without the ending.
        status: "passed", or what went wrong.
        seconds: wall time, kernel start and handouts included.
        executed: the executed notebook; after a failure it holds the outputs up to there.
        problem: for a person: the failed cell and its traceback; "" when passed.
        handouts: the HTML files that were written.
    """

    lab: str
    status: Status
    seconds: float
    executed: Path
    problem: str = ""
    handouts: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Job:
    """What one process needs to know to run one lab.

    Args:
        source: the lab.
        executed: where the executed notebook goes.
        handouts: the folder of the handouts, or None for none.
        parameters: values for the parameters cell.
        timeout: seconds that the cells together may take.
        threads: how many threads the kernel's numeric libraries may use.
        ipython: the kernel's own IPython folder.
    """

    source: Path
    executed: Path
    handouts: Path | None
    parameters: Mapping[str, object]
    timeout: float
    threads: int
    ipython: Path


def build_folder() -> Path:
    """Where executed notebooks and handouts go."""
    return repository_root() / "build"


def run_labs(
    labs: Sequence[Path],
    *,
    build: Path,
    jobs: int = 2,
    parameters: Mapping[str, object] | None = None,
    timeout: float = 600,
    handouts: bool = False,
) -> Iterator[Outcome]:
    """Run labs, ``jobs`` at a time, and yield each outcome as soon as it is there.

    All parameters are checked before the first kernel starts.

    Args:
        labs: the notebooks.
        build: executed notebooks go to ``build/executed``, handouts to ``build/handouts``.
        jobs: how many labs run at the same time; the cores are shared out between them.
        parameters: values for the parameters cells.
        timeout: seconds that one lab's cells together may take.
        handouts: write the HTML handouts of each lab that passed.

    Raises:
        ParameterError: a lab does not know one of the parameters, or ``jobs`` or ``timeout`` is not positive.
        NotebookError: a lab cannot be read.
    """
    if jobs < 1 or timeout <= 0:
        raise ParameterError(
            f"jobs={jobs}, timeout={timeout}", why="both must be positive", fix="--jobs 2 --timeout 600"
        )
    given = dict(parameters or {})
    for lab in labs:
        check_parameters(read(lab), given)
    jobs = min(jobs, len(labs)) or 1
    queue = [
        Job(
            source=lab.resolve(),
            executed=build / "executed" / lab.name,
            handouts=build / "handouts" if handouts else None,
            parameters=given,
            timeout=timeout,
            threads=max(1, (os.cpu_count() or 1) // jobs),
            ipython=quiet_ipython(build),
        )
        for lab in labs
    ]
    return _run(queue, jobs)


def _run(queue: Sequence[Job], jobs: int) -> Iterator[Outcome]:
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_one, job) for job in queue]):
            yield done.result()


def check_parameters(notebook: Notebook, given: Mapping[str, object]) -> None:
    """Hold values against a lab's parameters cell; papermill alone would pass over a misspelt name.

    Raises:
        ParameterError: the lab has no such parameter, or its default is of another type.
    """
    known = notebook.parameters
    for name, value in given.items():
        if name not in known:
            raise ParameterError(
                f"{notebook.path.name} has no parameter {name!r}",
                why=f"its parameters are {', '.join(known) or 'none'}",
                fix="name one of them, as in `labs run 02 -p SEED 1`",
            )
        if not _fits(value, known[name]):
            raise ParameterError(
                f"{name} = {value!r} is {type(value).__name__}",
                why=f"{notebook.path.name} has {name} = {known[name]!r}, {type(known[name]).__name__}",
                fix="give a value of that type",
            )


def _fits(value: object, default: object) -> bool:
    if default is None or value is None:
        return True
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is type(default)


def parse_value(text: str) -> object:
    """A parameter as a person types it: a Python literal, ``true`` or ``false``, else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value


def quiet_ipython(build: Path) -> Path:
    """An IPython folder of our own: a kernel that does not chat, keeps no history and reads no start-up files."""
    folder = build / "ipython"
    config = folder / "profile_default" / "ipython_kernel_config.py"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("c.IPKernelApp.log_level = 50\nc.HistoryManager.enabled = False\n", encoding="utf-8")
    return folder


def run_one(job: Job) -> Outcome:
    """Run one lab in this process; whatever happens becomes an outcome."""
    os.environ.update({name: str(job.threads) for name in THREAD_LIMITS}, IPYTHONDIR=str(job.ipython))
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # threads that spin while they wait make a busy machine five times slower
    began = monotonic()
    handouts: tuple[Path, ...] = ()
    try:
        status, problem = execute(job)
        if status == "passed" and job.handouts is not None:
            handouts = _handouts(job.executed, job.handouts)
    except Exception as error:  # one lab must not take the others down
        status, problem = "failed", f"it could not be run: {type(error).__name__}: {error}"
    return Outcome(job.source.stem, status, monotonic() - began, job.executed, problem, handouts)


def _handouts(executed: Path, folder: Path) -> tuple[Path, ...]:
    from labsupport.labs.handout import render

    return tuple(render(executed, folder))


def execute(job: Job) -> tuple[Status, str]:
    """Run the cells with papermill and look at what came out."""
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    job.executed.parent.mkdir(parents=True, exist_ok=True)
    try:
        _papermill(job)
    except PapermillExecutionError as error:
        return "failed", _failed_cell(error)
    except CellTimeoutError:
        return "timed out", f"{_last_cell(job)} still ran when the lab's {job.timeout:g} s were over"
    except DeadKernelError:
        return "failed", f"{_last_cell(job)} ended the kernel: out of memory, or a crash in a library"
    bare = images_without_alt(read(job.executed))
    return ("no alt text", "\n".join(bare)) if bare else ("passed", "")


def _papermill(job: Job) -> None:
    import logging

    import papermill

    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    papermill.execute_notebook(
        job.source,
        job.executed,
        parameters=dict(job.parameters),
        engine_name="labs",
        kernel_name="python3",
        language="python",
        progress_bar=False,
        cwd=job.source.parent,
        lab_timeout=job.timeout,
    )


def _failed_cell(error: Any) -> str:
    source = "\n".join(f"    {line}" for line in error.source.splitlines())
    trace = "\n".join(error.traceback) or f"{error.ename}: {error.evalue}"
    return f"cell [{error.exec_count}] failed:\n{source}\n{trace}"


def _last_cell(job: Job) -> str:
    running = [cell for cell in read(job.executed).code if cell.node.metadata.get("papermill", {}).get("start_time")]
    if not running:
        return "the kernel's start"
    source = "\n".join(f"    {line}" for line in running[-1].source.splitlines())
    return f"cell {running[-1].label}\n{source}\n"


def images_without_alt(executed: Notebook) -> list[str]:
    """One line for each picture in the outputs, as image data or in HTML, that carries no alt text."""
    found = []
    for cell in executed.code:
        for output in cell.node.get("outputs", []):
            data, metadata = output.get("data", {}), output.get("metadata", {})
            bare = [kind for kind in data if kind.startswith("image/") and not metadata.get(kind, {}).get("alt")]
            bare += ["<img>"] if re.search(r"<img\b(?![^>]*\balt=)", "".join(data.get("text/html", ""))) else []
            found += [f"{cell.label}: {kind} has no alt text; show it with LabFigure(..., alt=...)" for kind in bare]
    return found
