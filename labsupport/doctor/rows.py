"""The judgments of the doctor's table: each function takes plain facts and returns one row."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from labsupport.compatibility import Compatibility, version_key
from labsupport.doctor.machine import Cpu, Gpus

State = Literal["ok", "note", "bad"]

PYTHONS = ((3, 10), (3, 12))
RAM_LEAST, RAM_EASY = 3e9, 4e9  # a kernel with torch and the model in float32 took 1.0 GB; two run at a time
DISK_LEAST = {True: 0.5e9, False: 2e9}  # with the model in place only runs and handouts are written
APT = "apt-get install --yes --no-install-recommends"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        state: ``ok``; ``note`` where something other than ``make run`` misses it; ``bad`` where ``make run`` does.
        needed_for: what it is for.
        mend: a line to copy, empty where there is nothing to mend.
    """

    name: str
    state: State
    found: str
    needed_for: str
    mend: str = ""

    def as_dict(self) -> dict[str, str]:
        """The row for ``--json``."""
        return asdict(self)


def python_row(version: tuple[int, int, int]) -> Row:
    """Python 3.10 to 3.12: what requirements.lock was made for."""
    fine = PYTHONS[0] <= version[:2] <= PYTHONS[1]
    mend = "" if fine else "rm -rf .venv && make run PYTHON=python3.12"
    return Row("Python", "ok" if fine else "bad", ".".join(map(str, version)), "everything (3.10 to 3.12)", mend)


def system_row(system: str, machine: str) -> Row:
    """Linux on x86-64 runs everything; elsewhere the Triton binary does not run."""
    full = (system, machine.lower()) in {("Linux", "x86_64"), ("Linux", "amd64")}
    mend = "" if full else "export TRITON_URL=<host>:8001   # a Triton server on another machine, for labs 08 on"
    return Row("System", "ok" if full else "note", f"{system} {machine}", "Triton binary (Linux x86-64)", mend)


def cpu_row(cpu: Cpu) -> Row:
    """Any CPU will do; vector instructions decide how long the labs take."""
    quick = not cpu.features or "avx2" in cpu.features or "asimd" in cpu.features
    features = " ".join(cpu.features) or "features not read"
    found = f"{cpu.model}, {cpu.cores} core{'s' if cpu.cores > 1 else ''}, {features}"
    return Row("CPU", "ok" if quick else "note", found, "speed", "" if quick else "make run JOBS=1   # no AVX2: slow")


def ram_row(total: int) -> Row:
    """RAM for the model in float32, in two labs at a time."""
    state: State = "ok" if total >= RAM_EASY else "note" if total >= RAM_LEAST else "bad"
    mend = {"ok": "", "note": "make run JOBS=1", "bad": "give the machine or the container 3 GB or more"}[state]
    return Row("RAM", state, f"{total / 1e9:.1f} GB", "the model in float32, two labs at a time", mend)


def gpu_row(gpus: Gpus, least_capability: str) -> Row:
    """No GPU is fine; one that is too old or does not answer is worth a note."""
    use = "profiles gpu and trtllm; the labs run without"
    if gpus.problem:
        return Row(
            "GPU", "note", f"nvidia-smi: {gpus.problem}", use, "nvidia-smi   # mend the driver until this answers"
        )
    if not gpus.found:
        return Row("GPU", "ok", "none: profile cpu", use)
    found = "; ".join(f"{gpu.name}, {gpu.memory_mib} MiB, sm {gpu.compute_capability or '?'}" for gpu in gpus.found)
    old = [g for g in gpus.found if g.compute_capability and _older(g.compute_capability, least_capability)]
    if old:
        mend = f"labs run all   # profile cpu: TensorRT-LLM needs compute capability {least_capability}"
        return Row("GPU", "note", found, use, mend)
    return Row("GPU", "ok", found, use)


def _older(capability: str, least: str) -> bool:
    return version_key(capability) < version_key(least)


def driver_row(gpus: Gpus, table: Compatibility) -> Row:
    """The driver against the pinned container, and the newest container that it can run where that is another."""
    pinned = table.container()
    use = f"container {pinned.tag} (driver {pinned.driver})"
    if not gpus.found:
        return Row("GPU driver", "ok", "none", use)
    gpu = gpus.found[0]
    if pinned.runs_on(gpu.driver, data_center=gpu.data_center):
        return Row("GPU driver", "ok", gpu.driver, use)
    newest = table.newest_for(gpu.driver, data_center=gpu.data_center)
    other = f", or docker pull {newest.image}" if newest else ""
    return Row("GPU driver", "note", gpu.driver, use, f"install driver {pinned.driver} or newer{other}")


def container_row(kind: str | None) -> Row:
    """Where this process runs."""
    return Row("Container", "ok", kind or "none", "profile trtllm")


def tensorrt_llm_row(version: str | None, table: Compatibility) -> Row:
    """TensorRT-LLM against the table: the pinned one, another with engines, or one past them."""
    pinned, use = table.container(), "profile trtllm: trtllm-build"
    if version is None:
        return Row("TensorRT-LLM", "ok", "none: it lives in its container", use)
    if version_key(version) > version_key(table.workflow.last):
        mend = (
            f"docker pull {pinned.image}   # engines ended with {table.workflow.last}; then: {table.workflow.successor}"
        )
        return Row("TensorRT-LLM", "note", version, use, mend)
    if version_key(version) != version_key(pinned.tensorrt_llm):
        mend = f"git clone --branch v{version} ...   # the scripts of this version; the labs pin {pinned.tensorrt_llm}"
        return Row("TensorRT-LLM", "note", version, use, mend)
    return Row("TensorRT-LLM", "ok", version, use)


def triton_row(place: str | None, linux_x86: bool) -> Row:
    """The server binary: on PATH, in NVIDIA's image, or from the nvidia-pytriton wheel."""
    use = "labs 08 on: the Triton server"
    if place:
        return Row("Triton", "ok", place, use)
    mend = ".venv/bin/python -m pip install nvidia-pytriton==0.7.0" if linux_x86 else "export TRITON_URL=<host>:8001"
    return Row("Triton", "note", "none", use, mend)


def compiler_row(place: str | None) -> Row:
    """A C compiler, which torch.compile calls."""
    mend = "" if place else f"{APT} gcc libc6-dev   # macOS: xcode-select --install"
    return Row("C compiler", "ok" if place else "note", place or "none", "the compiled engine (labs 04 on)", mend)


def package_row(name: str, versions: dict[str, str | None], needed_for: str) -> Row:
    """Packages that ``make run`` installs; each missing one is bad."""
    missing = [package for package, version in versions.items() if version is None]
    found = ", ".join(f"{package} {version or 'missing'}" for package, version in versions.items())
    mend = "rm -f .venv/.ready && make setup" if missing else ""
    return Row(name, "bad" if missing else "ok", found, needed_for, mend)


def numpy_row(version: str | None) -> Row:
    """numpy below 2: with numpy 2 Triton's Python stub returns broken string tensors."""
    fine = version is not None and version_key(version) < (2,)
    mend = "" if fine else '.venv/bin/python -m pip install "numpy<2"'
    return Row("numpy < 2", "ok" if fine else "bad", version or "missing", "all labs; Triton's Python stub", mend)


def model_row(name: str, present: bool, folder: str) -> Row:
    """The default model. Not there is only a note: ``make run`` fetches it."""
    found = folder if present else f"{name} is not in the workspace"
    return Row("Model", "ok" if present else "note", found, "all labs", "" if present else f"labs fetch {name}")


def disk_row(free: int, root: str, model_present: bool) -> Row:
    """Free space where the workspace is."""
    fine = free >= DISK_LEAST[model_present]
    mend = "" if fine else f"export LABS_WORKSPACE=<folder with {DISK_LEAST[model_present] / 1e9:.1f} GB free>"
    return Row("Disk", "ok" if fine else "bad", f"{free / 1e9:.1f} GB free at {root}", "models, runs, handouts", mend)


def chromium_row(place: str | None) -> Row:
    """A browser without a window, for PDF and browser tests."""
    mend = "" if place else f"{APT} chromium fonts-dejavu-core fonts-wqy-zenhei"
    return Row("Chromium", "ok" if place else "note", place or "none", "PDF handouts, browser tests", mend)
