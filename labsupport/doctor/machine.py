"""The facts of this machine, read without judging them. What cannot be read is None or empty, never an error."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

# What matters for inference on a CPU, under the names that Linux gives it.
X86_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8")
ARM_FEATURES = ("asimd", "bf16", "i8mm", "sve")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
COMPILERS = ("cc", "gcc", "clang")
WORKSTATION = re.compile("geforce|titan|quadro|rtx", re.IGNORECASE)


@dataclass(frozen=True)
class Cpu:
    """The processor: ``cores`` are those that this process may use."""

    model: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True)
class Gpu:
    """One GPU as nvidia-smi reports it; ``memory_mib`` is its total memory."""

    name: str
    memory_mib: int
    driver: str
    compute_capability: str | None

    @property
    def data_center(self) -> bool:
        """False for GeForce, TITAN, Quadro and RTX boards, which the compatibility package does not serve."""
        return WORKSTATION.search(self.name) is None


@dataclass(frozen=True)
class Gpus:
    """All GPUs; ``problem`` is what nvidia-smi said where it is installed and failed."""

    found: tuple[Gpu, ...] = ()
    problem: str | None = None


def read_cpu() -> Cpu:
    """Model, usable cores and features. Off Linux the features are not read."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    model, features = parse_cpuinfo(text)
    return Cpu(model, usable_cores(), features)


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Model name and the listed features in the text of ``/proc/cpuinfo``.

    Example:
        >>> parse_cpuinfo("model name : Some CPU\\nflags : fpu avx2 amx_int8\\n")
        ('Some CPU', ('avx2', 'amx_int8'))
    """
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    present = set(flags.group(1).split()) if flags else set()
    return (name.group(1).strip() if name else "unknown"), tuple(f for f in X86_FEATURES + ARM_FEATURES if f in present)


def usable_cores() -> int:
    """Cores that this process may run on: its affinity, and its control group's share where that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _control_group("cpu.max").partition(" ")
    return max(1, min(cores, int(quota) // int(period))) if quota.isdigit() and period.isdigit() else cores


def memory_bytes() -> int:
    """RAM in bytes: the machine's, or the limit of the control group (a container's) where that is less."""
    total = int(psutil.virtual_memory().total)
    limit = _control_group("memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def _control_group(file: str) -> str:
    try:
        return (Path("/sys/fs/cgroup") / file).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def ports_to_give() -> int:
    """TCP ports that the system gives to programs that ask for any: Linux's range, elsewhere the one of RFC 6335."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    except (OSError, ValueError):
        first, last = 49152, 65535
    return last - first + 1


def read_gpus() -> Gpus:
    """Ask nvidia-smi. None installed: no GPU; installed and failing: its own words as the problem."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Gpus()
    query = [tool, "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Gpus(problem=str(problem))
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
        return Gpus(problem=said[0] if said else f"exit code {done.returncode}")
    return Gpus(parse_nvidia_smi(done.stdout))


def parse_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """The lines of ``nvidia-smi --query-gpu=name,memory.total,driver_version,compute_cap`` as GPUs.

    Example:
        >>> parse_nvidia_smi("NVIDIA H200, 143771, 580.159.04, 9.0")[0].memory_mib
        143771
    """
    gpus = []
    for line in text.strip().splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 4 and fields[1].isdigit():
            capability = fields[3] if re.fullmatch(r"\d+\.\d+", fields[3]) else None
            gpus.append(Gpu(fields[0], int(fields[1]), fields[2], capability))
    return tuple(gpus)


def read_container() -> str | None:
    """What kind of container this process runs in, or None. NVIDIA's images say their release in the environment."""
    release = os.environ.get("NVIDIA_TRITON_SERVER_VERSION")
    if release:
        return f"NVIDIA Triton {release}"
    return "a container" if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() else None


def version_of(distribution: str) -> str | None:
    """The installed version of a package, read from its metadata: nothing is imported."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def find_triton() -> Path | None:
    """The Triton server binary: on PATH, in NVIDIA's image, or inside the installed nvidia-pytriton."""
    places = [shutil.which("tritonserver"), "/opt/tritonserver/bin/tritonserver"]
    spec = importlib.util.find_spec("pytriton")
    if spec is not None and spec.submodule_search_locations:
        places.append(str(Path(next(iter(spec.submodule_search_locations))) / "tritonserver/bin/tritonserver"))
    return next((Path(place) for place in places if place and Path(place).is_file()), None)


def find_program(*names: str) -> Path | None:
    """The first of ``names`` on PATH."""
    return next((Path(path) for path in map(shutil.which, names) if path), None)


def python_version() -> tuple[int, int, int]:
    """Major, minor and micro of the running Python."""
    return sys.version_info[0], sys.version_info[1], sys.version_info[2]
