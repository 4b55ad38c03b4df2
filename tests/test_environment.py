"""Two ways in, one set: environment.yml (conda), the Makefile (venv), the lock and pyproject.toml agree."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12")


def requirements(path: Path) -> list[str]:
    """The requirement lines of a pip file, without comments."""
    lines = (line.split("#", maxsplit=1)[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def makefile_torch() -> str:
    found = re.search(r"^TORCH\s*:=\s*(\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found.group(1)


def makefile_set() -> set[str]:
    """What `make setup` installs: the lock, torch on a line of its own, and the package itself."""
    return {*requirements(ROOT / "requirements.lock"), makefile_torch(), "-e ."}


def conda_pip_lines() -> list[str]:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    return list(pip)


def conda_set() -> set[str]:
    """What environment.yml installs: `-r FILE` stands for the lines of FILE, beside the yml."""
    expanded: set[str] = set()
    for line in conda_pip_lines():
        expanded |= set(requirements(ROOT / line[3:])) if line.startswith("-r ") else {line}
    return expanded


def pins(python: str) -> dict[str, Version]:
    """Package -> pinned version, of the lock and torch, on Linux x86-64 with this Python."""
    environment = {
        **default_environment(),
        **{"python_version": python, "python_full_version": f"{python}.7", "sys_platform": "linux"},
        **{"platform_machine": "x86_64", "os_name": "posix", "platform_python_implementation": "CPython"},
        **{"implementation_name": "cpython"},
    }
    found: dict[str, Version] = {}
    for line in [*requirements(ROOT / "requirements.lock"), makefile_torch()]:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(environment):
            (pin,) = wanted.specifier
            assert pin.operator == "==", line
            name = canonicalize_name(wanted.name)
            assert name not in found, f"{name} is pinned twice on Python {python}"
            found[name] = Version(pin.version)
    return found


def declared(python: str) -> list[Requirement]:
    """What requirements.in and pyproject.toml ask for, on this Python."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    arrays = re.findall(r"^(?:dependencies|labs|dev) = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert len(arrays) == 3
    lines = [line for array in arrays for line in re.findall(r'"([^"]+)"', array)]
    wanted = [Requirement(line) for line in [*lines, *requirements(ROOT / "requirements.in")]]
    return [one for one in wanted if one.marker is None or one.marker.evaluate({"python_version": python})]


def test_conda_and_make_install_the_same_set() -> None:
    assert conda_set() == makefile_set()


def test_conda_brings_only_python_and_pip() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["channels"] == ["conda-forge"]
    python, pip, rest = environment["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert python.split("=")[1] in PYTHONS
    assert (pip, list(rest)) == ("pip", ["pip"])


def test_torch_stands_outside_the_lock() -> None:
    """A lock made with torch in it would pull CUDA packages onto every laptop."""
    for file in ("requirements.in", "requirements.lock"):
        names = {canonicalize_name(Requirement(line).name) for line in requirements(ROOT / file)}
        assert "torch" not in names
        assert not {name for name in names if name == "triton" or name.startswith(("nvidia-cu", "nvidia-nccl"))}
    assert makefile_torch() in conda_pip_lines()


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_pins_everything_that_is_asked_for(python: str) -> None:
    pinned = pins(python)
    for wanted in declared(python):
        name = canonicalize_name(wanted.name)
        assert name in pinned, f"{wanted} is not in requirements.lock on Python {python}"
        assert wanted.specifier.contains(pinned[name], prereleases=True), f"{wanted}, but the lock has {pinned[name]}"


@pytest.mark.parametrize("python", PYTHONS)
def test_numpy_stays_below_two(python: str) -> None:
    assert pins(python)["numpy"] < Version("2")


def test_this_environment_is_the_locked_one() -> None:
    """Every pin for this Python is what is installed, and every pinned package's own needs are pinned too."""
    pinned = pins(f"{sys.version_info[0]}.{sys.version_info[1]}")
    if sys.platform != "linux":
        pytest.skip("the pins above are those of Linux")
    wrong, loose = {}, set()
    for name, pin in pinned.items():
        try:
            if Version(version(name)).public != pin.public:
                wrong[name] = f"{version(name)} installed, {pin} locked"
        except PackageNotFoundError:
            wrong[name] = "not installed"
            continue
        for line in metadata(name).get_all("Requires-Dist") or []:
            need = Requirement(line)
            if (need.marker is None or need.marker.evaluate({"extra": ""})) and canonicalize_name(
                need.name
            ) not in pinned:
                loose.add(f"{name} needs {need.name}")
    assert wrong == {}
    assert loose - cuda_of_torch(loose) == set()


def cuda_of_torch(loose: set[str]) -> set[str]:
    """torch's own CUDA packages, where the index served its CUDA build."""
    return {line for line in loose if re.match(r"torch needs (nvidia-|triton|cuda-)", line)}


def test_no_address_in_any_of_them() -> None:
    for file in ("environment.yml", "requirements.in", "requirements.lock", "pyproject.toml", "Makefile"):
        assert "//" not in (ROOT / file).read_text(encoding="utf-8"), file
