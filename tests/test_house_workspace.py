"""Whole or not at all: after an error, an interrupt, a kill signal or a full disk nothing half-written is left."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from labsupport.errors import SpaceError
from labsupport.workspace import (
    RECORD,
    Workspace,
    atomic_folder,
    atomic_text,
    read_record,
    repository_root,
    require_space,
    sha256,
    write_record,
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stop_halfway(target: Path, problem: BaseException) -> None:
    with atomic_folder(target) as making:
        (making / "half").write_bytes(b"x" * 1000)
        raise problem


# --- folders ---


def test_a_folder_appears_whole_at_the_end_of_the_block(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with atomic_folder(target) as making:
        (making / "config.json").write_text("{}", encoding="utf-8")
        assert not target.exists()
        assert making.parent == target.parent  # the same disk, so that the rename is one step
    assert names(target) == ["config.json"]
    assert names(target.parent) == ["model"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755


def test_a_new_folder_replaces_the_old_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "model") as making:
            (making / text).touch()
    assert names(tmp_path / "model") == ["new"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("before", [True, False])
def test_after_an_error_or_an_interrupt_nothing_is_left_and_the_old_stands(
    problem: type[BaseException], before: bool, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    if before:
        target.mkdir()
        (target / "old").touch()
    with pytest.raises(problem):
        stop_halfway(target, problem("stop"))
    assert names(tmp_path) == (["model"] if before else [])
    assert not before or names(target) == ["old"]


def test_ctrl_c_in_a_real_process_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from labsupport.workspace import atomic_folder\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background job begins deaf to it
        "with atomic_folder(Path(sys.argv[1]) / 'model') as making:\n"
        "    (making / 'half').write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "writing\n"
    assert len(names(tmp_path)) == 1
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.wait(timeout=20)
    process.stdout.close()
    assert time.monotonic() - started < 20
    assert names(tmp_path) == []


def test_a_disk_that_really_fills_up(small_disk: Path) -> None:
    target = small_disk / "model"
    with atomic_folder(target) as making:
        (making / "old").write_bytes(b"x" * 1000)
    with pytest.raises(SpaceError) as caught, atomic_folder(target) as making:
        (making / "weights").write_bytes(b"x" * (2 << 20))
    assert str(target) in caught.value.what
    assert "LABS_WORKSPACE" in caught.value.fix
    assert names(small_disk) == ["model"]
    assert names(target) == ["old"]
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), SpaceError)


def write_with_safetensors(making: Path) -> None:
    save_file({"weight": np.zeros(1 << 20, np.float32)}, making / "model.safetensors")


def copy_a_tree(making: Path) -> None:
    with tempfile.TemporaryDirectory() as elsewhere:
        (Path(elsewhere) / "weights").write_bytes(b"x" * (2 << 20))
        shutil.copytree(elsewhere, making / "copy")


@pytest.mark.parametrize("write", [write_with_safetensors, copy_a_tree])
def test_a_full_disk_is_recognized_whoever_writes(write: Callable[[Path], None], small_disk: Path) -> None:
    """safetensors raises no OSError, and shutil.copytree one without a number."""
    with pytest.raises(SpaceError), atomic_folder(small_disk / "model") as making:
        write(making)
    assert names(small_disk) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_the_old_folder_comes_back_when_the_swap_fails(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first rename takes the old folder away, the second puts the new one in its place; either may fail."""
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename, count = Path.rename, itertools.count(1)

    def sometimes(self: Path, other: Path) -> Path:
        if next(count) == failing:
            raise PermissionError("in use")
        return rename(self, other)

    monkeypatch.setattr(Path, "rename", sometimes)
    with pytest.raises(PermissionError), atomic_folder(target) as making:
        (making / "new").touch()
    assert names(tmp_path) == ["model"]
    assert names(target) == ["old"]


def test_other_system_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "model"):
        (tmp_path / "nowhere" / "file").read_text(encoding="utf-8")


# --- files ---


def test_a_text_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "note.txt"
    atomic_text(target, "one")
    atomic_text(target, "zwei — drei")
    assert target.read_text(encoding="utf-8") == "zwei — drei"
    assert names(target.parent) == ["note.txt"]


def test_a_text_that_does_not_fit_leaves_the_old_one(small_disk: Path) -> None:
    target = small_disk / "note.txt"
    atomic_text(target, "old")
    with pytest.raises(SpaceError):
        atomic_text(target, "x" * (2 << 20))
    assert target.read_text(encoding="utf-8") == "old"
    assert names(small_disk) == ["note.txt"]


def test_space_is_asked_for_before_a_long_step(small_disk: Path) -> None:
    require_space(small_disk / "not" / "yet" / "there", 1000)
    with pytest.raises(SpaceError, match=r"needs 8\.00 GB, and 0\.00 GB are free"):
        require_space(small_disk / "not" / "yet" / "there", 8 * 10**9)


# --- records, digests, the place ---


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record = {"inputs": {"model.gguf": "ab12"}, "options": {"dtype": "float32", "tp": 2}, "note": "Größe"}
    assert read_record(tmp_path) is None
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    assert names(tmp_path) == [RECORD]


def test_sha256_of_nothing_and_of_more_than_a_block(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "big").write_bytes(b"a" * 1_000_000 + b"b" * 1_000_000)
    assert sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert sha256(tmp_path / "big") == hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()


def test_labs_workspace_moves_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABS_WORKSPACE", raising=False)
    assert Workspace.current().root == repository_root() / "work"
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "elsewhere"))
    workspace = Workspace.current()
    places = (workspace.checkpoints, workspace.downloads, workspace.trt_checkpoints, workspace.runs)
    assert all(place.parent == tmp_path / "elsewhere" for place in places)
    assert not workspace.root.exists()  # asking for a place does not make it


def test_the_home_sign_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", "~/labs-work")
    assert Workspace.current().root == (Path.home() / "labs-work").resolve()
