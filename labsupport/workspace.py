"""Where things live, and how they are written: whole or not at all.

The workspace is ``work/`` beside this repository, or wherever ``LABS_WORKSPACE`` points::

    work/checkpoints/<model>/                 Hugging Face folders
    work/trt_checkpoints/<model>/<recipe>/    TensorRT-LLM checkpoints
    work/engines/<model>/<recipe>/            engines
    work/model_repositories/<model>/<recipe>/ Triton model repositories
    work/runs/                                responses, verdicts, measurements

Each folder holds a ``labs.json`` that says what it was made from, so that a finished step is skipped.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.errors import SpaceError

RECORD = "labs.json"


def repository_root() -> Path:
    """The folder that holds ``notebooks/`` and ``data/``."""
    return Path(__file__).resolve().parents[1]


def data_folder() -> Path:
    """The data that the repository ships: compatibility table, prompts, recordings."""
    return repository_root() / "data"


@dataclass(frozen=True)
class Workspace:
    """The folders that a model passes through.

    Args:
        root: the workspace folder; it need not exist yet.
    """

    root: Path

    @classmethod
    def current(cls) -> Workspace:
        """The workspace of this process: ``$LABS_WORKSPACE``, else ``work/`` in the repository."""
        chosen = os.environ.get("LABS_WORKSPACE")
        return cls(Path(chosen).expanduser().resolve() if chosen else repository_root() / "work")

    @property
    def checkpoints(self) -> Path:
        """Hugging Face folders, one a model."""
        return self.root / "checkpoints"

    @property
    def downloads(self) -> Path:
        """Files on their way in; emptied once a model is in place."""
        return self.root / "downloads"

    @property
    def trt_checkpoints(self) -> Path:
        """TensorRT-LLM checkpoints, ``<model>/<recipe>``."""
        return self.root / "trt_checkpoints"

    @property
    def engines(self) -> Path:
        """Engines, ``<model>/<recipe>``."""
        return self.root / "engines"

    @property
    def model_repositories(self) -> Path:
        """Triton model repositories, ``<model>/<recipe>``."""
        return self.root / "model_repositories"

    @property
    def runs(self) -> Path:
        """Responses, verdicts and measurements."""
        return self.root / "runs"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``target`` and rename it to ``target`` when the block ends well.

    After an error, or an interrupt, nothing is left behind and an older ``target`` stands untouched.

    Raises:
        SpaceError: the disk filled up while the block wrote.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield making
        making.chmod(0o755)  # mkdtemp makes a private folder; a workspace may be shared
        if target.exists():
            _replace(target, making)
        else:
            making.rename(target)
    except Exception as problem:
        if _disk_is_full(problem):
            raise full_disk(target) from problem
        raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _replace(target: Path, making: Path) -> None:
    """Put ``making`` where ``target`` is; should that fail, ``target`` comes back."""
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    try:
        target.rename(retired / "was")
        try:
            making.rename(target)
        except BaseException:
            (retired / "was").rename(target)
            raise
    finally:
        shutil.rmtree(retired, ignore_errors=True)


def atomic_text(target: Path, text: str) -> None:
    """Write ``text`` to ``target``, whole or not at all."""
    atomic_bytes(target, text.encode())


def atomic_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target``, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    making = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        making.write_bytes(content)
        making.replace(target)
    except OSError as problem:
        if _disk_is_full(problem):
            raise full_disk(target) from problem
        raise
    finally:
        making.unlink(missing_ok=True)


def _disk_is_full(problem: Exception) -> bool:
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    said = str(problem)  # safetensors and shutil.copytree keep the reason in the text only
    return os.strerror(errno.ENOSPC) in said or os.strerror(errno.EDQUOT) in said


def full_disk(target: Path) -> SpaceError:
    """The error for a disk that filled up while ``target`` was written."""
    return SpaceError(
        f"no space left on the disk while writing {target}",
        why=f"{_gigabytes(_free(target))} are free; what was half-written has been removed",
        fix="free some space, or point LABS_WORKSPACE at a larger disk, and run the command again",
    )


def require_space(target: Path, needed: int) -> None:
    """Check, before a long step, that ``needed`` bytes fit where ``target`` will be written.

    Raises:
        SpaceError: less than ``needed`` bytes are free.
    """
    if _free(target) < needed:
        raise SpaceError(
            f"{target} needs {_gigabytes(needed)}, and {_gigabytes(_free(target))} are free",
            why="the step would fill the disk before its end, so it was not begun",
            fix="free some space, or point LABS_WORKSPACE at a larger disk",
        )


def _free(target: Path) -> int:
    existing = next(parent for parent in [target, *target.parents] if parent.exists())
    return shutil.disk_usage(existing).free


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Say in ``folder/labs.json`` what the folder was made from (inputs with sha256, options, versions)."""
    atomic_text(folder / RECORD, json.dumps(record, indent=2, sort_keys=True) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of ``folder``, or None where there is none (then the step has not been done)."""
    path = folder / RECORD
    if not path.is_file():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
