"""``labs serve`` and ``labs chat`` with the real model: from a model's name to a conversation, and Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from test_serving_server import family, shared_memory
from triton_local import needs_triton

from labsupport.errors import ParameterError
from labsupport.serving.address import Address, free_address, is_free
from labsupport.serving.container import container_command
from labsupport.serving.log import PORT_IN_USE, cause_in, tail
from labsupport.serving.making import repository_for

pytestmark = needs_triton
LABS = Path(sys.executable).with_name("labs")


def labs(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([LABS, *words], input=text, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.real_model
def test_from_a_model_to_a_conversation_and_ctrl_c() -> None:
    port = free_address().port
    serving = subprocess.Popen([LABS, "serve", "--port", str(port)], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        lines = [serving.stdout.readline() for _ in range(4)]
        assert re.match(rf"ready after [\d.]+ s: HTTP 127.0.0.1:{port}, gRPC 127.0.0.1:{port + 1}", lines[0])
        curl = subprocess.run(lines[1], shell=True, capture_output=True, text=True, check=True)
        assert "Paris" in curl.stdout
        chat = lines[2].split()[1:]
        answer = labs(*chat, "--max-tokens", "24", text="What is the capital of France?\nAnd of which country is it?\n")
        assert answer.returncode == 0, answer.stderr
        assert "Paris" in answer.stdout
        assert answer.stdout.count("\n") >= 2
        taken = labs("serve", "--port", str(port))
        assert taken.returncode == 1
        assert f"port {port} is in use" in taken.stderr
        processes = family(serving.pid)
        assert len(processes) >= 7, "labs, guard, server, four stubs"
        serving.send_signal(signal.SIGINT)
        assert serving.wait(timeout=30) == 0
        _, left = psutil.wait_procs(processes[1:], timeout=5)
        assert left == []
        assert shared_memory(serving.pid) == []
        assert is_free(Address(port))
    finally:
        serving.kill()
        serving.wait()


def test_a_folder_that_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="cannot be served"):
        repository_for(str(tmp_path))


def test_a_server_that_runs_elsewhere_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", "127.0.0.1:8000")
    done = labs("serve")
    assert done.returncode == 1
    assert "TRITON_URL names a server that runs already" in done.stderr


def test_the_call_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble" / "config.pbtxt").touch()
    call = " ".join(container_command(tmp_path, Address(9000)))
    assert "nvcr.io/nvidia/tritonserver:25.06-trtllm-python-py3 bash " in call
    assert "--publish 127.0.0.1:9000:8000 --publish 127.0.0.1:9001:8001 --publish 127.0.0.1:9002:8002" in call
    assert f"--volume {tmp_path}:/opt/tritonserver/projects/repository:ro" in call
    script = Path(__file__).parents[1] / "docker" / "scripts" / "serve_repository.sh"
    assert call.endswith("/opt/tritonserver/projects/scripts/serve_repository.sh /opt/tritonserver/projects/repository")
    inside = subprocess.run(["bash", script, "--dry-run", tmp_path], capture_output=True, text=True, check=True)
    assert "--load-model=ensemble" in inside.stdout


@pytest.mark.parametrize("text", ["", "host:", "host:port", "host:70000", "http://host/v2", "a:1:2"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ParameterError, match="is no server's address"):
        Address.parse(text)


def test_addresses() -> None:
    assert Address.parse("gpu7") == Address(8000, "gpu7")
    assert Address.parse("http://gpu7:9000/").grpc == "gpu7:9001"
    assert Address.parse("gpu7:9000").metrics == "gpu7:9002"


def test_causes_are_read_off_problems_alone() -> None:
    harmless = 'E1127 04:56:15 1 server.cc:241] "CudaDriverHelper has not been initialized."'
    stamp = "E1127 04:56:15.445707 30962 main.cc:1] "
    assert cause_in(harmless) is None
    assert cause_in("I1127 04:56:15 1 x.cc:1] tokenizer loaded") is None
    assert cause_in(f"{stamp}Address already in use") is PORT_IN_USE
    found = cause_in(f"{harmless}\nLabError: the engine was built for another machine")
    assert found is not None
    assert "another machine" in found.why
    assert tail(f"{harmless}\n{stamp}failed to load") == "failed to load"
