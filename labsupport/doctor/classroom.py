"""Will the room fit? What a class needs when all learners work on one server: memory, disk, ports and cores.

    memory = learners x (JupyterLab + kernel at its peak + kernel left open) + shared pages + system
    disk   = learners x (model + what the labs write)
    ports  = learners x (1 JupyterLab + 2 kernels x 5 + 3 of Triton, labs 08 on)

A kernel is counted at the peak of the heaviest lab, and a second one as its lab leaves it, since learners
forget to shut down.
Shared pages are files that every process maps, counted once: libraries, and the model's weights while they are mapped.
The terms are measured (``classroom_measure.py``); figures recorded elsewhere say where and when.
Source of the five: Jupyter's messaging protocol (shell, iopub, stdin, control, heartbeat), each a TCP port.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from labsupport.doctor.rows import Row
from labsupport.errors import ParameterError
from labsupport.workspace import Workspace, data_folder

FILE = "classroom.json"
SYSTEM_BYTES = 2_000_000_000  # what the operating system keeps for itself: a rule of thumb, not a measurement
KERNELS = 2
KERNEL_PORTS, TRITON_PORTS = 5, 3
FIRST_PORT, PORTS_TRIED = 8888, 50  # `labs lab` and Jupyter Server's port_retries
CORES_EASY = 4  # learners a core; more of them wait for each other when all run at once


@dataclass(frozen=True)
class Figures:
    """What one learner takes, in bytes, as measured.

    Args:
        where, when: the machine and the day of the measurement.
        server: private memory of a JupyterLab server.
        peaks: lab -> the largest private memory of its kernel and of what that started.
        left: the largest private memory of a kernel after its lab's clean-up.
        shared: the largest sum of file pages of one server and one kernel.
        model: the model's folder on disk.
        written: what the labs write into a workspace.
    """

    where: str
    when: str
    server: int
    peaks: Mapping[str, int]
    left: int
    shared: int
    model: int
    written: int

    @property
    def heaviest(self) -> str:
        """The lab whose kernel grows largest."""
        return max(self.peaks, key=lambda lab: self.peaks[lab])


@dataclass(frozen=True)
class Need:
    """What a class needs: bytes of memory and disk, TCP ports."""

    learners: int
    memory: int
    disk: int
    ports: int


@dataclass(frozen=True)
class Room:
    """What the server has: bytes of memory and of free disk, ports to give out, cores."""

    memory: int
    disk: int
    ports: int
    cores: int


def read_figures() -> Figures:
    """The figures of this workspace where ``--measure`` has been run, else those that the repository recorded."""
    own = Workspace.current().runs / FILE
    return figures_of(own if own.is_file() else data_folder() / FILE)


def figures_of(path: Path) -> Figures:
    """The figures in a file.

    Raises:
        ParameterError: the file holds something else.
    """
    try:
        return Figures(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise ParameterError(
            f"{path} holds no figures", why=str(problem), fix="labs doctor --classroom 20 --measure"
        ) from None


def need(learners: int, figures: Figures) -> Need:
    """What ``learners`` need together.

    Raises:
        ParameterError: fewer than one learner.
    """
    if learners < 1:
        raise ParameterError(f"{learners} learners", why="a class has at least one", fix="labs doctor --classroom 20")
    each = figures.server + figures.peaks[figures.heaviest] + (KERNELS - 1) * figures.left
    return Need(
        learners,
        memory=learners * each + figures.shared + SYSTEM_BYTES,
        disk=learners * (figures.model + figures.written),
        ports=learners * (1 + KERNELS * KERNEL_PORTS + TRITON_PORTS),
    )


def judge_room(wanted: Need, figures: Figures, room: Room) -> list[Row]:
    """One row each for memory, disk, ports and cores; ``bad`` where the class would not work."""
    count = wanted.learners
    fit = largest_class(figures, room.memory)
    link = f"ln -s <one learner's>/checkpoints $LABS_WORKSPACE/checkpoints   # saves {_gb((count - 1) * figures.model)}"
    tried = count > PORTS_TRIED
    return [
        _row(
            "Memory",
            wanted.memory <= room.memory,
            f"{_gb(wanted.memory)} needed, {_gb(room.memory)} here",
            f"{count} x (JupyterLab + kernel + kernel left open)",
            f"{fit} learners fit here; or one machine for each {max(fit, 1)} of them",
        ),
        _row("Disk", wanted.disk <= room.disk, f"{_gb(wanted.disk)} needed, {_gb(room.disk)} free", "workspaces", link),
        _row(
            "Ports",
            wanted.ports <= room.ports,
            f"{wanted.ports} needed, {room.ports} to give out",
            f"JupyterLab from {FIRST_PORT} on, kernels, Triton",
            "sysctl -w net.ipv4.ip_local_port_range='15000 60999'",
        ),
        Row(
            "First port",
            "note" if tried else "ok",
            f"JupyterLab tries {PORTS_TRIED} ports from the one it is given",
            "each learner's JupyterLab",
            f"labs lab --port {FIRST_PORT + PORTS_TRIED}   # for learner {PORTS_TRIED + 1} and on" if tried else "",
        ),
        Row(
            "Cores",
            "ok" if count <= CORES_EASY * room.cores else "note",
            f"{room.cores} cores for {count} learners",
            "running at the same time",
            "" if count <= CORES_EASY * room.cores else "export OMP_NUM_THREADS=1   # and let half the room read first",
        ),
    ]


def _row(name: str, fine: bool, found: str, needed_for: str, mend: str) -> Row:
    return Row(name, "ok" if fine else "bad", found, needed_for, "" if fine else mend)


def largest_class(figures: Figures, memory: int) -> int:
    """How many learners the memory holds."""
    one, two = need(1, figures).memory, need(2, figures).memory
    return max(0, 1 + (memory - one) // (two - one))


def formula(wanted: Need, figures: Figures) -> str:
    """The memory sum with its terms, and where they were measured."""
    peak = figures.peaks[figures.heaviest]
    return "\n".join(
        [
            f"memory = {wanted.learners} x ({_gb(figures.server)} JupyterLab + {_gb(peak)} kernel at the peak of lab "
            f"{figures.heaviest} + {_gb(figures.left)} kernel left open)",
            f"         + {_gb(figures.shared)} shared pages + {_gb(SYSTEM_BYTES)} system (a rule of thumb)",
            f"disk   = {wanted.learners} x ({_gb(figures.model)} model + {_gb(figures.written)} written by the labs); "
            "the installation is shared",
            f"ports  = {wanted.learners} x (1 JupyterLab + {KERNELS} x {KERNEL_PORTS} of kernels + {TRITON_PORTS} of "
            "Triton)",
            f"Measured on {figures.where}, {figures.when}, in labs {', '.join(sorted(figures.peaks))}; "
            "the sums are arithmetic, no class was run.",
        ]
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count < 9.995e9 else f"{count / 1e9:.1f} GB"
