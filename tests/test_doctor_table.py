"""The doctor's table: what is read off the machine, how it is judged, and what the command prints."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from labsupport.compatibility import load_compatibility
from labsupport.doctor import machine, report, rows
from labsupport.doctor.commands import doctor
from labsupport.doctor.examine import examine, this_device
from labsupport.doctor.machine import Cpu, Gpu, Gpus

TABLE = load_compatibility()
H200 = Gpu("NVIDIA H200", 143771, "580.159.04", "9.0")
H200_SAYS = "NVIDIA H200, 143771, 580.159.04, 9.0\n"  # as an H200 answered
LABS = Path(sys.executable).with_name("labs")


def install(folder: Path, name: str, script: str) -> None:
    """Put an executable called ``name`` into ``folder``."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


# --- what is read ---


def test_nvidia_smi_lines() -> None:
    two = machine.parse_nvidia_smi(H200_SAYS + "NVIDIA GeForce RTX 4090, 24564, 535.183.01, [N/A]\n")
    assert two == (H200, Gpu("NVIDIA GeForce RTX 4090", 24564, "535.183.01", None))
    assert [gpu.data_center for gpu in two] == [True, False]
    assert machine.parse_nvidia_smi("No devices were found\n") == ()


def test_a_failing_nvidia_smi_is_a_problem_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", "nvidia-smi", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert machine.read_gpus() == Gpus(problem="NVIDIA-SMI has failed: no driver")


def test_nvidia_smi_is_asked_and_its_gpu_becomes_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", "nvidia-smi", f"printf '{H200_SAYS.strip()}'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert machine.read_gpus() == Gpus((H200,))
    assert (this_device().memory_mib, this_device().bandwidth_gb_s) == (143771, 4800)


def test_no_nvidia_smi_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.read_gpus() == Gpus()
    assert "RAM" in this_device().title


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/cpuinfo")
def test_cpu_of_this_machine() -> None:
    cpu = machine.read_cpu()
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert all(feature in flags for feature in cpu.features)
    assert 1 <= cpu.cores <= (os.cpu_count() or 1)


def test_cpuinfo_of_an_arm_machine() -> None:
    assert machine.parse_cpuinfo("processor : 0\nFeatures : fp asimd sve bf16\n") == (
        "unknown",
        ("asimd", "bf16", "sve"),
    )
    assert machine.parse_cpuinfo("") == ("unknown", ())


def test_memory_is_not_more_than_the_machine_has() -> None:
    import psutil

    assert 0 < machine.memory_bytes() <= psutil.virtual_memory().total


def test_versions_are_read_without_an_import() -> None:
    assert machine.version_of("no-such-package-at-all") is None
    assert machine.version_of("numpy") is not None


def test_triton_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "bin", "tritonserver", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert machine.find_triton() == tmp_path / "bin" / "tritonserver"


# --- how it is judged ---


@pytest.mark.parametrize(
    ("version", "state"), [((3, 9, 9), "bad"), ((3, 10, 0), "ok"), ((3, 12, 3), "ok"), ((3, 13, 0), "bad")]
)
def test_python(version: tuple[int, int, int], state: str) -> None:
    assert rows.python_row(version).state == state


@pytest.mark.parametrize(("version", "state"), [("1.26.4", "ok"), ("2.0.0", "bad"), (None, "bad")])
def test_numpy_two_is_bad(version: str | None, state: str) -> None:
    assert rows.numpy_row(version).state == state


@pytest.mark.parametrize(("gigabytes", "state"), [(16, "ok"), (3.5, "note"), (1.5, "bad")])
def test_ram(gigabytes: float, state: str) -> None:
    assert rows.ram_row(int(gigabytes * 1e9)).state == state


def test_a_fetched_model_asks_for_less_disk() -> None:
    assert rows.disk_row(10**9, "/x", model_present=True).state == "ok"
    assert rows.disk_row(10**9, "/x", model_present=False).state == "bad"


def test_a_missing_package_is_bad_and_named() -> None:
    row = rows.package_row("Jupyter", {"papermill": None, "ipykernel": "7.4.0"}, "labs")
    assert (row.state, row.found) == ("bad", "papermill missing, ipykernel 7.4.0")


def test_no_gpu_is_fine() -> None:
    assert rows.gpu_row(Gpus(), "7.5").state == "ok"
    assert rows.driver_row(Gpus(), TABLE).state == "ok"


def test_an_old_gpu_is_a_note() -> None:
    assert rows.gpu_row(Gpus((Gpu("Tesla P100", 16384, "580.1", "6.0"),)), "7.5").state == "note"
    assert rows.gpu_row(Gpus((H200,)), "7.5").state == "ok"


def test_driver_names_the_container_that_it_can_run() -> None:
    assert rows.driver_row(Gpus((H200,)), TABLE).state == "ok"
    row = rows.driver_row(Gpus((Gpu("NVIDIA GeForce RTX 4090", 24564, "570.124.06", "8.9"),)), TABLE)
    assert row.state == "note"
    assert row.mend == (
        "install driver 575.51.03 or newer, or docker pull nvcr.io/nvidia/tritonserver:25.05-trtllm-python-py3"
    )


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        (None, "ok", ""),
        ("0.20.0", "ok", ""),
        ("1.0.0", "note", "v1.0.0"),
        ("1.3.0rc5", "note", "engines ended with 1.2.1"),
    ],
)
def test_tensorrt_llm_version(version: str | None, state: str, said: str) -> None:
    row = rows.tensorrt_llm_row(version, TABLE)
    assert row.state == state
    assert said in row.mend


def test_away_from_linux_a_remote_server_is_the_mend() -> None:
    assert "TRITON_URL" in rows.system_row("Darwin", "arm64").mend
    assert "TRITON_URL" in rows.triton_row(None, linux_x86=False).mend
    assert rows.system_row("Linux", "x86_64").state == "ok"


def test_a_slow_cpu_is_a_note_and_an_unread_one_is_not() -> None:
    assert rows.cpu_row(Cpu("old", 2, ("f16c",))).state == "note"
    assert rows.cpu_row(Cpu("M1", 8, ())).state == "ok"


# --- the table and the command ---


def test_every_row_that_is_not_ok_has_a_mend_here() -> None:
    found = examine()
    assert len({row.name for row in found}) == len(found) >= 16
    for row in found:
        assert row.found
        assert row.needed_for
        assert (row.state == "ok") == (row.mend == ""), row


def test_the_table_as_text_shows_the_mend_under_its_row() -> None:
    text = report.table([rows.python_row((3, 9, 1)), rows.gpu_row(Gpus(), "7.5")]).splitlines()
    assert text[0].startswith("BAD   Python")
    assert text[1].split() == ["mend:", "rm", "-rf", ".venv", "&&", "make", "run", "PYTHON=python3.12"]
    assert text[-1] == "`make run` lacks: Python."


def test_the_exit_code_says_whether_a_row_is_bad() -> None:
    done = subprocess.run([LABS, "doctor", "--json"], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert set(found[0]) == {"name", "state", "found", "needed_for", "mend"}
    assert done.returncode == (1 if any(row["state"] == "bad" for row in found) else 0)


def test_a_bad_row_makes_the_exit_code_1(tmp_path: Path) -> None:
    """A disk that is really too small for the model: a workspace on a small tmpfs."""
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {mount.stderr.decode().strip()}")
    try:
        environment = {**os.environ, "LABS_WORKSPACE": str(tmp_path)}
        done = subprocess.run([LABS, "doctor"], capture_output=True, text=True, env=environment, check=False)
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert done.returncode == 1
    assert "BAD   Disk" in done.stdout
    assert "`make run` lacks: Disk" in done.stdout


def test_the_memory_verdict_of_the_command() -> None:
    asked = CliRunner().invoke(doctor, ["--model", "llama-2-7b", "--gpu", "4090", "--batch", "12"])
    assert asked.exit_code == 0
    assert "does not fit 24 GB RTX 4090" in asked.output
    short = CliRunner().invoke(doctor, ["--model", "gpt2", "--gpu", "l4", "--json"])
    assert json.loads(short.output)["length"] == 1024  # GPT-2 knows no longer sequence


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpu", "4090"], "without a model"),
        (["--model", "llama-2-7b", "--gpu", "voodoo"], "no GPU 'voodoo'"),
        (["--model", "nothing-of-that-name"], "no shape is known"),
        (["--model", "gpt2", "--dtype", "int3"], "dtype 'int3'"),
        (["--model", "gpt2", "--length", "0"], "length 0"),
    ],
)
def test_bad_questions_end_in_a_block_and_exit_code_1(words: list[str], said: str) -> None:
    done = subprocess.run([LABS, "doctor", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "try: " in done.stderr
    assert "Traceback" not in done.stderr
