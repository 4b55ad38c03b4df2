"""docker/: checked by tools and by the calls that its scripts print. No container is started."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from repositories_made import good

from labsupport.compatibility import load_compatibility
from labsupport.repository.contract import MODELS

DOCKER = Path(__file__).resolve().parents[1] / "docker"
START, SERVE = DOCKER / "start_triton_container.sh", DOCKER / "scripts" / "serve_repository.sh"
PROJECTS = "/opt/tritonserver/projects"
MOUNTED = ("checkpoints", "trt_checkpoints", "engines", "model_repositories")


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def call(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", *map(str, words)], capture_output=True, text=True, check=False)


def printed(*words: object) -> list[str]:
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_hadolint(name: str) -> None:
    done = subprocess.run([tool("hadolint"), DOCKER / name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [START, SERVE], ids=lambda path: path.name)
def test_shellcheck(path: Path) -> None:
    done = subprocess.run([tool("shellcheck"), path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert path.stat().st_mode & 0o111


def test_the_tag_is_the_pinned_one_everywhere() -> None:
    tag = load_compatibility().default
    found = {}
    for path in (DOCKER / "Dockerfile", DOCKER / "compose.yaml", START, DOCKER / "README.md"):
        found[path.name] = set(re.findall(r"\b2\d\.\d\d\b", path.read_text()))
    assert all(tags == {tag} for tags in found.values()), found
    base = re.search(r"^FROM (\S+)", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    assert base
    assert base[1].replace("${TRITON_TAG}", tag) == load_compatibility().container().image


def test_the_compose_file_mounts_and_publishes_as_the_script_does() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    mounts = dict(line.split("}", 1)[-1].split(":")[:2] for line in services["triton"]["volumes"][:-1])
    assert mounts == {f"/{name}": f"{PROJECTS}/{name}" for name in MOUNTED}
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service["ports"])
    assert {tuple(service["profiles"]) for service in services.values()} == {("gpu",), ("cpu",)}


def test_docker_compose_reads_it() -> None:
    plugin = [shutil.which("docker") or "false", "compose"]
    there = subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0
    compose = plugin if there else [tool("docker-compose")]
    for profile in ("gpu", "cpu"):
        line = [*compose, "--file", DOCKER / "compose.yaml", "--profile", profile, "config", "--quiet"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_container_gets_every_folder() -> None:
    words = printed(START, "--dry-run", "--world-size", "2", "llama/float16-tp2")
    assert words[:3] == ["docker", "run", "--rm"]
    volumes = [words[at + 1] for at, word in enumerate(words) if word == "--volume"]
    assert [volume.split(":")[1] for volume in volumes] == [f"{PROJECTS}/{name}" for name in (*MOUNTED, "scripts")]
    assert words[-5:] == [
        "bash", "scripts/serve_repository.sh", "--world-size", "2", "model_repositories/llama/float16-tp2"
    ]  # fmt: skip
    assert printed(START, "--dry-run", "--shell")[-1] == "bash"


def test_the_script_serves_every_model_and_nothing_else(tmp_path: Path) -> None:
    words = printed(SERVE, "--dry-run", good(tmp_path / "r"))
    assert words[0] == "tritonserver"
    loaded = [word.split("=")[1] for word in words if word.startswith("--load-model")]
    assert sorted(loaded) == sorted(MODELS)


def test_several_ranks_are_one_server_each(tmp_path: Path) -> None:
    line = " ".join(printed(SERVE, "--dry-run", "--world-size", "3", good(tmp_path / "r")))
    first, *others = line.split(" : ")
    assert first.startswith("mpirun ")
    assert len(others) == 2
    assert all(other.count("--load-model=tensorrt_llm") == other.count("--load-model=") == 1 for other in others)
    assert all("--allow-grpc=false" in other for other in others)
    assert len(set(re.findall(r"shm-region-prefix-name=\w+", line))) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([SERVE, "--world-size", "two", "."], "number of GPUs"),
        ([SERVE, "--world-size", "2", "--multi-model", "."], "leave --world-size out"),
        ([SERVE, DOCKER], "no model in"),
        ([START], "name a repository"),
        ([START, "--gpu"], "unknown option --gpu"),
        ([START, "no/such"], "labs assemble"),
    ],
)
def test_a_wrong_call_is_explained(words: list[object], message: str) -> None:
    done = call(*words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
