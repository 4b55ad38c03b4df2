"""What goes with what: container, Triton, TensorRT-LLM, CUDA, driver; scripts and names by version.

The table is ``data/compatibility.json``; this module reads it and answers questions. Versions are compared by their
numbers only: ``0.17.0.post1`` counts as 0.17.0, and ``1.0.0rc4`` as 1.0.0.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from labsupport.errors import ParameterError
from labsupport.workspace import data_folder

FILE = "compatibility.json"


def version_key(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, to compare by.

    Example:
        >>> version_key("0.17.0.post1") == version_key("0.17.0") < version_key("0.18.2")
        True
        >>> version_key("575.51.03")
        (575, 51, 3)
    """
    numbers: list[int] = []
    for field in version.strip().lstrip("v").split("."):
        digits = re.match(r"\d+", field)
        if digits is None:
            break
        numbers.append(int(digits.group()))
    return tuple(numbers)


@dataclass(frozen=True)
class Container:
    """One row: a Triton container with TensorRT-LLM inside.

    Args:
        tag: year and month, ``25.06``.
        server: Triton server; None where it was not read.
        driver: the driver that the container was released with.
        image_gb: size of the image in GB.
        engines: True where the container builds and serves TensorRT engines.
        data_center_drivers: branch -> oldest driver that also serves, on data-center GPUs; empty where not read.
    """

    tag: str
    server: str | None
    tensorrt_llm: str
    tensorrt: str
    cuda: str
    driver: str
    python: str
    image_gb: float
    engines: bool
    data_center_drivers: dict[str, str]

    @property
    def image(self) -> str:
        """The name that ``docker pull`` takes."""
        return f"nvcr.io/nvidia/tritonserver:{self.tag}-trtllm-python-py3"

    def runs_on(self, driver: str, *, data_center: bool = False) -> bool:
        """True where ``driver`` is new enough, or is of a branch that data-center GPUs may keep."""
        found = version_key(driver)
        if found >= version_key(self.driver):
            return True
        oldest = self.data_center_drivers.get(str(found[0])) if data_center else None
        return oldest is not None and found >= version_key(oldest)


@dataclass(frozen=True)
class Rename:
    """A request tensor that changed its name. ``where`` says in which model folders."""

    old: str
    new: str
    since: str
    where: str


@dataclass(frozen=True)
class ConvertScript:
    """Where ``convert_checkpoint.py`` of a family stands, in the versions ``since`` to ``until``, and its flags.

    ``pp_flag`` is None where the script cannot split a model over pipeline stages.
    """

    family: str
    architectures: tuple[str, ...]
    since: str
    until: str
    path: str
    model_flag: str
    output_flag: str
    tp_flag: str
    pp_flag: str | None

    def serves(self, version: str) -> bool:
        """True where the script stands at ``path`` in TensorRT-LLM ``version``."""
        return version_key(self.since) <= version_key(version) <= version_key(self.until)


@dataclass(frozen=True)
class Need:
    """Something that the engine workflow cannot do without."""

    what: str
    why: str


@dataclass(frozen=True)
class Workflow:
    """The life of convert_checkpoint -> trtllm-build, in TensorRT-LLM versions."""

    first: str
    legacy_since: str
    last: str
    last_container: str
    successor: str
    needs: tuple[Need, ...]


@dataclass(frozen=True)
class Compatibility:
    """The whole table. ``default`` is the tag that the labs pin; ``older`` maps tags to TensorRT-LLM versions."""

    default: str
    containers: tuple[Container, ...]
    older: dict[str, str]
    renames: tuple[Rename, ...]
    compute_capability: str
    workflow: Workflow
    convert_scripts: tuple[ConvertScript, ...]

    def container(self, tag: str | None = None) -> Container:
        """The row of ``tag``, or of the pinned default.

        Raises:
            ParameterError: the table has no such row.
        """
        wanted = tag or self.default
        for row in self.containers:
            if row.tag == wanted:
                return row
        raise ParameterError(
            f"no container {wanted!r} in the compatibility table",
            why=f"the table holds {self.containers[0].tag} to {self.containers[-1].tag}, and {self.default} is pinned",
            fix=f"take {self.default}, or add the row to data/{FILE}",
        )

    def holding(self, tensorrt_llm: str) -> tuple[Container, ...]:
        """The containers that hold this TensorRT-LLM version, oldest first."""
        return tuple(row for row in self.containers if version_key(row.tensorrt_llm) == version_key(tensorrt_llm))

    def newest_for(self, driver: str, *, data_center: bool = False) -> Container | None:
        """The newest engine-capable container that runs on ``driver``, or None."""
        fitting = [row for row in self.containers if row.engines and row.runs_on(driver, data_center=data_center)]
        return fitting[-1] if fitting else None

    def tensor_name(self, name: str, tensorrt_llm: str) -> str:
        """The request tensor ``name``, old or new, as TensorRT-LLM ``tensorrt_llm`` calls it.

        Example:
            >>> load_compatibility().tensor_name("random_seed", "0.20.0")
            'seed'
            >>> load_compatibility().tensor_name("seed", "0.19.0")
            'random_seed'
        """
        for rename in self.renames:
            if name in (rename.old, rename.new):
                renamed = version_key(tensorrt_llm) >= version_key(rename.since)
                return rename.new if renamed else rename.old
        return name

    def convert_script(self, architecture: str, tensorrt_llm: str) -> ConvertScript:
        """The conversion script for a Hugging Face ``architecture`` (or a family name) in one version.

        Raises:
            ParameterError: the family is not in the table, or that version has no script for it.
        """
        known = [s for s in self.convert_scripts if architecture in (s.family, *s.architectures)]
        if not known:
            families = ", ".join(sorted({script.family for script in self.convert_scripts}))
            raise ParameterError(
                f"no conversion script is known for {architecture!r}",
                why=f"the compatibility table holds these families: {families}",
                fix=f"add the family's script to data/{FILE}",
            )
        for script in known:
            if script.serves(tensorrt_llm):
                return script
        raise ParameterError(
            f"TensorRT-LLM {tensorrt_llm} has no conversion script for {architecture!r}",
            why=f"the script exists from {known[0].since} to {known[-1].until}",
            fix=f"use a version in between, such as {self.container().tensorrt_llm} (container {self.default})",
        )


def read_compatibility(path: Path) -> Compatibility:
    """Read a compatibility table.

    Raises:
        ParameterError: the file is missing, is not JSON, or lacks a field.
    """
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        flow = raw["workflow"]
        return Compatibility(
            default=raw["default"],
            containers=tuple(Container(**row) for row in raw["containers"]),
            older=raw["older"],
            renames=tuple(Rename(**row) for row in raw["renames"]),
            compute_capability=raw["compute_capability"],
            workflow=Workflow(**{**flow, "needs": tuple(Need(**need) for need in flow["needs"])}),
            convert_scripts=tuple(
                ConvertScript(**{**row, "architectures": tuple(row["architectures"])}) for row in raw["convert_scripts"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ParameterError(
            f"{path} is not a compatibility table",
            why=f"{type(problem).__name__}: {problem}",
            fix=f"restore the file: git checkout -- data/{FILE}",
        ) from problem


@cache
def load_compatibility() -> Compatibility:
    """The table that the repository ships, read once."""
    return read_compatibility(data_folder() / FILE)
