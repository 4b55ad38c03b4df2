"""A checkpoint -> an engine folder: check, take apart, export, compile, write; what ``trtllm-build`` does, anywhere."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labsupport.checkpoint.config import CONFIG, CheckpointConfig
from labsupport.checkpoint.config import read_config as read_checkpoint
from labsupport.checkpoint.convert_record import key
from labsupport.checkpoint.structure import check_structure
from labsupport.engine.build_config import BuildConfig, resolve
from labsupport.engine.folder import REPORT, Manifest, write_config, write_engine
from labsupport.engine.machine import fingerprint
from labsupport.errors import EngineError, ParameterError
from labsupport.workspace import Workspace, atomic_folder, atomic_text, read_record, require_space, write_record

STEP, RECIPE = "build", 6


@dataclass(frozen=True)
class Phase:
    """One phase of a build.

    Args:
        name: ``read``, ``export layer.1``, ``compile layer.1``, ``write`` ...
        began, seconds: after the build's start, and how long.
    """

    name: str
    began: float
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a build did; ``build_report.json``.

    Args:
        phases: in the order of their ends; compilations overlap.
        bytes: of each file.
        peak_memory: bytes that the process and its compilers held at most.
        kernels: for each graph, the kernels that it runs, in order, with the operations that each fuses.
        notes: what was changed of the options.
    """

    phases: list[Phase]
    bytes: dict[str, int]
    peak_memory: int
    kernels: dict[str, list[str]]
    notes: list[str]


@dataclass(frozen=True)
class Built:
    """An engine on disk.

    Args:
        folder: where it lies.
        skipped: it was there already, built from the same files with the same options for this machine.
        seconds: how long it took.
        report: of the build that wrote it.
    """

    folder: Path
    skipped: bool
    seconds: float
    report: Report


def build(
    checkpoint: Path,
    options: BuildConfig | None = None,
    *,
    output: Path | None = None,
    device: str = "cpu",
    workers: int = 2,
    force: bool = False,
    progress: Callable[[str], object] = lambda name: None,  # noqa: ARG005
) -> Built:
    """Build an engine.

    Args:
        checkpoint: a TensorRT-LLM checkpoint.
        options: limits and layouts.
        output: the folder to write; ``work/engines/<model>/<recipe>`` where missing.
        device: ``cpu`` or ``cuda``.
        workers: compilers that run at once.
        force: build again, and replace ``output`` even if it was not written by this function.
        progress: called with the name of each phase as it ends.

    Raises:
        CheckpointError: the checkpoint's structure is wrong.
        ParameterError: the options contradict each other or the model, or ``output`` holds something else.
        EngineError: there is no compiler, or no such device.
        SpaceError: the disk cannot hold the engine. In every case nothing half-written is left.

    Example:
        >>> build(Path("work/trt_checkpoints/smollm2-135m-instruct/float32-tp1")).folder.name  # doctest: +SKIP
        'float32-tp1'
    """
    began = time.perf_counter()
    checkpoint = checkpoint.expanduser().resolve()
    model = read_checkpoint(checkpoint)
    chosen, notes = resolve(options or BuildConfig(), model)
    folder = (output or default_output(checkpoint, device)).expanduser().resolve()
    wanted = {
        "step": STEP,
        "recipe": RECIPE,
        "options": chosen.model_dump(mode="json"),
        "bound_to": fingerprint_for(device),
        "inputs": {path.name: key(path) for path in inputs_of(checkpoint, model)},
    }
    with _alone(folder):
        if not force and (read_record(folder) or {}) == wanted:
            return Built(folder, True, time.perf_counter() - began, read_report(folder))
        _require_ours(folder, force=force)
        _require_sound(checkpoint)
        _require_compiler(device)
        require_space(folder, int(1.2 * sum(path.stat().st_size for path in checkpoint.glob("rank*.safetensors"))))
        with atomic_folder(folder) as making:
            report = _Build(checkpoint, model, chosen, device, making, progress).run(workers, notes)
            write_record(making, wanted)
    return Built(folder, False, time.perf_counter() - began, report)


def _alone(folder: Path) -> Any:
    """Two labs that need one engine at once build it once: the second waits, and finds it done."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.parent / f".{folder.name}.lock")


def default_output(checkpoint: Path, device: str) -> Path:
    """``work/engines/<model>/<recipe>``, with ``-cuda`` for a GPU."""
    recipe = checkpoint.name if device == "cpu" else f"{checkpoint.name}-{device}"
    return Workspace.current().engines / checkpoint.parent.name / recipe


def inputs_of(checkpoint: Path, model: CheckpointConfig) -> list[Path]:
    """The files that an engine is made from."""
    return [checkpoint / CONFIG, *(checkpoint / f"rank{rank}.safetensors" for rank in range(model.mapping.files))]


def fingerprint_for(device: str) -> dict[str, Any]:
    """See :func:`labsupport.engine.machine.fingerprint`.

    Raises:
        EngineError: there is no such device here.
    """
    import torch

    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise EngineError(
            f"device {device!r} is not here",
            why="engines are built on the machine that runs them, for cpu or cuda, and torch sees no GPU",
            fix="--device cpu",
        )
    return fingerprint(device)


def read_report(folder: Path) -> Report:
    """``build_report.json`` of an engine."""
    raw = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    return Report(**{**raw, "phases": [Phase(**phase) for phase in raw["phases"]]})


class _Build:
    """One build on its way; keeps the clock."""

    def __init__(
        self, checkpoint: Path, model: CheckpointConfig, options: BuildConfig, device: str, making: Path,
        progress: Callable[[str], object],
    ) -> None:  # fmt: skip
        self.checkpoint, self.model, self.options, self.device = checkpoint, model, options, device
        self.making, self.progress = making, progress
        self.start, self.phases = time.perf_counter(), list[Phase]()

    def run(self, workers: int, notes: tuple[str, ...]) -> Report:
        from labsupport.engine.compiler import compile_graphs
        from labsupport.engine.export import export_graphs, products
        from labsupport.engine.kernels import kernels_of
        from labsupport.engine.parts import take_apart
        from labsupport.engine.weights import write_weights

        many = products(self.device, self.model.dtype)
        parts = self._timed("read", lambda: take_apart(self.checkpoint, self.model, many, self.device))
        exported = self._timed("export", lambda: export_graphs(parts, self.options))
        same = self._timed("write weights", lambda: write_weights(parts, self.making))
        graphs_folder = self.making / "graphs"
        graphs_folder.mkdir()
        compiled = compile_graphs(
            exported, graphs_folder, device=self.device, workers=workers,
            progress=lambda one: self._end(f"compile {one.name}", one.began, one.seconds),
        )  # fmt: skip
        manifest = Manifest(
            fingerprint(self.device),
            [one.name for one in compiled],
            [{"kind": part.kind, "window": part.window, "pools": [[pool.heads, pool.size] for pool in part.pools]}
             for part in parts.layers],
            {part.kind: list(part.names) for part in (*parts.layers, parts.head)},
            same,
        )  # fmt: skip
        for rank in range(self.model.mapping.files):
            graphs = {one.name: one.path for one in compiled} if rank == 0 else {}
            self._timed(f"write rank{rank}.engine", lambda rank=rank, graphs=graphs: write_engine(
                self.making / f"rank{rank}.engine", manifest, graphs))  # type: ignore[misc]  # fmt: skip
        kernels = {one.name: kernels_of(one.path) for one in compiled}
        shutil.rmtree(graphs_folder)
        write_config(self.making, self.model, self.options)
        sizes = {path.name: path.stat().st_size for path in sorted(self.making.iterdir())}
        peak = 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        report = Report(self.phases, sizes, peak, kernels, list(notes))
        atomic_text(self.making / REPORT, json.dumps(asdict(report), indent=2) + "\n")
        return report

    def _timed(self, name: str, step: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = step()
        self._end(name, began, time.perf_counter() - began)
        return result

    def _end(self, name: str, began: float, seconds: float) -> None:
        self.phases.append(Phase(name, began - self.start, seconds))
        self.progress(name)


def _require_ours(folder: Path, *, force: bool) -> None:
    if force or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or (read_record(folder) or {}).get("step") != STEP:
        raise ParameterError(
            f"{folder} exists, and labs build did not write it",
            why="building replaces the whole folder",
            fix="name another --output, or add --force if nothing in it is needed",
        )


def _require_sound(checkpoint: Path) -> None:
    for finding in check_structure(checkpoint):
        raise EngineError(
            f"{checkpoint} does not verify: {finding.what}",
            why=finding.why,
            fix=f"{finding.fix}; all of it: labs verify",
        )


def _require_compiler(device: str) -> None:
    from torch._inductor import config, cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as problem:
        raise EngineError(
            "there is no C++ compiler",
            why=f"an engine is compiled ahead of time, for {device} too; looked for {config.cpp.cxx}",
            fix="apt-get install g++ (an engine that is built runs without one)",
        ) from problem
