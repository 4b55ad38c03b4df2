"""What an engine is bound to: compiled code runs where it was made for, and says so anywhere else."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from labsupport.errors import EngineError

_INSTRUCTIONS = ("sse", "ssse", "avx", "fma", "f16c", "bmi", "amx", "abm", "movbe", "popcnt", "xop", "gfni", "sve",
                 "asimd", "vaes", "vpclmul")  # fmt: skip


def fingerprint(device: str) -> dict[str, Any]:
    """This machine as compiled code sees it: the torch that it links with, and the processor's instructions or GPU."""
    import torch

    found: dict[str, Any] = {"torch": torch.__version__, "device": device, "machine": platform.machine()}
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        return found | {
            "gpu": torch.cuda.get_device_name(),
            "capability": f"{major}.{minor}",
            "cuda": torch.version.cuda,
        }
    return found | {"instructions": instructions()}


def instructions() -> list[str]:
    """The vector instructions of this processor, as Linux names them; empty where that is not told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    line = next((line for line in lines if line.startswith(("flags", "Features"))), ":")
    return sorted(flag for flag in line.partition(":")[2].split() if flag.startswith(_INSTRUCTIONS))


def require_same(built: dict[str, Any], folder: Path) -> None:
    """Check that the engine in ``folder``, built for ``built``, runs here.

    Raises:
        EngineError: another torch, another kind of machine, a missing instruction, another GPU.
    """
    import torch

    again = f"build it here: labs build, or labs build --force --output {folder}"
    if built["device"] == "cuda" and not torch.cuda.is_available():
        raise EngineError(
            f"{folder} was built for {built['gpu']}, and torch sees no GPU here",
            why="its code runs on that kind of GPU alone",
            fix=again,
        )
    here = fingerprint(built["device"])
    for what in ("torch", "machine", "capability"):
        if built.get(what) != here.get(what):
            raise EngineError(
                f"{folder} was built with {what} {built.get(what)}, and this is {what} {here.get(what)}",
                why="compiled code links with one torch and runs on one kind of processor, as a TensorRT engine does",
                fix=again,
            )
    if missing := sorted(set(built.get("instructions", [])) - set(here.get("instructions", []))):
        raise EngineError(
            f"{folder} was built for a processor with {', '.join(missing)}, and this one has not got them",
            why="the compiler used every instruction of the machine that it ran on",
            fix=again,
        )
