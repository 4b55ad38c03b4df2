"""The real Triton server around a repository: it comes up, says why it does not, and goes without a trace."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from repositories_made import good
from triton_local import needs_triton

from labsupport.errors import ServerError
from labsupport.serving import Address, Client, Server
from labsupport.serving.address import free_address, is_free

pytestmark = needs_triton
ENGINE = Path(__file__).parent / "fixtures" / "echo_engine"
TEXT = "machine learning is a field 🦊 the é."
CHILD = """
import sys, time
from pathlib import Path
from labsupport.serving import Server
with Server(sys.argv[1], engine=Path(sys.argv[2])) as server:
    print(server.address.http, server.log.parent, server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return good(tmp_path_factory.mktemp("serving") / "repository", "sentencepiece")


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with Server(repository, engine=ENGINE) as running:
        yield running


def family(pid: int) -> list[psutil.Process]:
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def shared_memory(pid: int) -> list[str]:
    return [path.name for path in Path("/dev/shm").glob(f"labs-{pid}-*")]


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    listening = {
        connection.laddr.port: connection.laddr.ip.removeprefix("::ffff:")
        for process in family(server.pid)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    port = server.address.port
    assert listening == dict.fromkeys((port, port + 1, port + 2), "127.0.0.1")
    assert server.address.is_ready("tensorrt_llm_bls")
    assert 0 < server.ready_s < 90


def test_a_server_in_a_process_that_is_killed_leaves_nothing(server: Server, repository: Path) -> None:
    """It runs beside the first one, which does not notice."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(repository), str(ENGINE)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    address, folder, guard = child.stdout.readline().split()
    processes = family(int(guard))
    assert len(processes) >= 6, "guard, server, four stubs"
    for url in (address, server.address.http):
        with Client(url) as client:
            assert client.generate(TEXT).text == TEXT
    assert shared_memory(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    _, left = psutil.wait_procs(processes, timeout=10)
    assert left == []
    assert not Path(folder).exists()
    assert shared_memory(child.pid) == []
    assert is_free(Address.parse(address))
    with Client(server.address) as client:
        assert client.generate(TEXT).text == TEXT


def test_a_guard_that_is_killed_takes_the_server_with_it(repository: Path) -> None:
    server = Server(repository, engine=ENGINE).start()
    processes = family(server.pid)
    processes[0].kill()
    with pytest.raises(ServerError, match="the server ended"):
        server.wait()
    server.stop()
    _, left = psutil.wait_procs(processes[1:], timeout=10)
    assert left == []


def test_a_port_in_use_is_named(server: Server, repository: Path) -> None:
    port = server.address.port
    with pytest.raises(ServerError, match=f"port {port} is in use") as caught:
        Server(repository, engine=ENGINE, port=port).start()
    assert "HTTP" in caught.value.why
    with pytest.raises(ServerError, match=f"port {port} is in use") as caught:
        Server(repository, engine=ENGINE, port=port - 1).start()
    assert "gRPC" in caught.value.why


def without_tokenizer(repository: Path) -> str:
    for path in repository.glob("_assets/*/tokenizer/*"):
        path.unlink()
    return "the tokenizer cannot be loaded"


def with_a_placeholder(repository: Path) -> str:
    config = repository / "preprocessing" / "config.pbtxt"
    config.write_text(re.sub(r"max_batch_size: \d+", "max_batch_size: ${triton_max_batch_size}", config.read_text()))
    return "a config.pbtxt cannot be read"


def without_backend(repository: Path) -> str:
    config = repository / "preprocessing" / "config.pbtxt"
    config.write_text(config.read_text().replace('backend: "python"', 'backend: "nobody"'))
    return "a backend that is not there"


@pytest.mark.parametrize("damage", [without_tokenizer, with_a_placeholder, without_backend])
def test_a_server_that_does_not_come_up_says_why(
    damage: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "work"))
    repository = good(tmp_path / "repository", "sentencepiece")
    for other in ("postprocessing", "tensorrt_llm", "tensorrt_llm_bls", "ensemble"):
        shutil.rmtree(repository / other)
    cause = damage(repository)
    with pytest.raises(ServerError, match="ended before it was ready") as caught:
        Server(repository, engine=ENGINE).start()
    assert cause in caught.value.why
    assert "    | " in caught.value.why
    kept = tmp_path / "work" / "runs" / "server-failed.log"
    assert str(kept) in caught.value.why
    assert kept.stat().st_size > 1000


def test_triton_url_names_a_server_that_runs_already(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_URL", server.address.http)
    with Server("nowhere") as remote, Client() as client:
        assert remote.address == server.address
        assert client.generate(TEXT).text == TEXT
        with pytest.raises(ServerError, match="no process"):
            _ = remote.pid
    assert server.is_alive
    monkeypatch.setenv("TRITON_URL", free_address().http)
    with pytest.raises(ServerError, match="is not ready"):
        Server("nowhere").start()


def test_ctrl_c_while_it_loads_leaves_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(repository, engine=ENGINE)
    processes: list[psutil.Process] = []

    def interrupted(*_: object, **__: object) -> bool:
        while len(processes) < 3:
            processes[:] = family(server.pid)
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(Address, "is_ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert [one for one in processes if one.is_running()] == []
