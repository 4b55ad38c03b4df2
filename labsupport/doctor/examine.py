"""The doctor's round: gather the facts of this machine and judge each."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from labsupport.compatibility import load_compatibility
from labsupport.doctor import machine, rows
from labsupport.doctor.classroom import Room
from labsupport.doctor.rows import Row
from labsupport.doctor.shapes import Device, known_gpus
from labsupport.models import DEFAULT_MODEL, is_present, model_folder
from labsupport.workspace import Workspace


def examine() -> list[Row]:
    """All rows of the table, from the machine up to the browser. Writes and fetches nothing."""
    table, gpus = load_compatibility(), machine.read_gpus()
    system, processor = platform.system(), platform.machine()
    root, present = Workspace.current().root, is_present(DEFAULT_MODEL)
    system_row = rows.system_row(system, processor)
    return [
        rows.python_row(machine.python_version()),
        system_row,
        rows.cpu_row(machine.read_cpu()),
        rows.ram_row(machine.memory_bytes()),
        rows.disk_row(_free(root), str(root), present),
        rows.package_row("PyTorch", _versions("torch", "transformers", "safetensors"), "the models"),
        rows.numpy_row(machine.version_of("numpy")),
        rows.package_row("Jupyter", _versions("jupyterlab", "ipykernel", "papermill", "nbconvert"), "running the labs"),
        rows.model_row(DEFAULT_MODEL, present, str(model_folder(DEFAULT_MODEL))),
        rows.chromium_row(_text(machine.find_program(*machine.CHROMIUM))),
        rows.compiler_row(_text(machine.find_program(*machine.COMPILERS))),
        rows.triton_row(_text(machine.find_triton()), system_row.state == "ok"),
        rows.gpu_row(gpus, table.compute_capability),
        rows.driver_row(gpus, table),
        rows.container_row(machine.read_container()),
        rows.tensorrt_llm_row(machine.version_of("tensorrt_llm"), table),
    ]


def this_room() -> Room:
    """This machine as the server of a class: all its memory, what is free on the disk, and the ports it gives out."""
    return Room(
        memory=machine.memory_bytes(),
        disk=_free(Workspace.current().root),
        ports=machine.ports_to_give(),
        cores=machine.usable_cores(),
    )


def this_device() -> Device:
    """The first GPU of this machine, or its RAM where it has none."""
    gpus = machine.read_gpus().found
    if not gpus:
        return Device(f"{machine.memory_bytes() / 1e9:.1f} GB RAM", machine.memory_bytes() // 1024**2, None, None)
    gpu = gpus[0]
    twins = [known for known in known_gpus().values() if known.memory_mib == gpu.memory_mib]
    bandwidth = twins[0].bandwidth_gb_s if twins else None
    return Device(gpu.name, gpu.memory_mib, bandwidth, gpu.compute_capability, gpu.data_center)


def _free(root: Path) -> int:
    existing = next(folder for folder in [root, *root.parents] if folder.exists())
    return shutil.disk_usage(existing).free


def _versions(*packages: str) -> dict[str, str | None]:
    return {package: machine.version_of(package) for package in packages}


def _text(path: Path | None) -> str | None:
    return str(path) if path else None
