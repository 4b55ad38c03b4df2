"""Models of a hub: the real client against a small hub on this machine, which speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from labsupport.models.tiny import make_tiny

REVISION = "0123456789abcdef0123456789abcdef01234567"
SECRET = "hf_this_is_a_secret_token_for_the_test"


class Hub(http.server.ThreadingHTTPServer):
    """A hub with one model, ``lab/tiny``; ``rule`` says how it behaves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.folder, self.rule, self.asked = folder, "open", list[str]()

    def files(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted(self.folder.iterdir()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            entry: dict[str, Any] = {"rfilename": path.name, "path": path.name, "type": "file", "oid": digest[:40]}
            entry["size"] = path.stat().st_size
            if path.suffix in (".safetensors", ".bin"):
                entry["lfs"] = {"sha256": digest, "oid": digest, "size": entry["size"], "pointerSize": 130}
            found.append(entry)
        return found


class HubHandler(http.server.BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        if "lab/tiny" not in path:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/api/"):
            self.answer(200, json.dumps(self.listing(path)).encode(), {"Content-Type": "application/json"})
        elif self.server.rule == "gated" and self.headers.get("Authorization") != f"Bearer {SECRET}":
            self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            self.file(self.server.folder / path.rsplit("/", 1)[1])

    def listing(self, path: str) -> Any:
        if "/tree/" in path:
            return self.server.files()
        card = {"license": "apache-2.0"}
        return {"id": "lab/tiny", "sha": REVISION, "siblings": self.server.files(), "cardData": card}

    def file(self, path: Path) -> None:
        content = path.read_bytes()
        if self.server.rule == "damaged" and path.suffix == ".safetensors":
            content = content[:-1] + bytes([content[-1] ^ 1])
        entry = next(entry for entry in self.server.files() if entry["path"] == path.name)
        tag = entry["lfs"]["sha256"] if "lfs" in entry else entry["oid"]
        self.answer(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": REVISION})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub(make_tiny("llama", tmp_path / "tiny", num_hidden_layers=1))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def labs(*arguments: str, workspace: Path, hub: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own: the hub's client reads its settings once, at import."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"LABS_WORKSPACE": str(workspace), "HF_ENDPOINT": hub, "HF_HOME": str(workspace / "home")}
    environment |= {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", **({"HF_TOKEN": token} if token else {})}
    command = [sys.executable, "-c", "from labsupport.cli import main; main()", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def address(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_port}"


def test_a_hub_model_arrives_and_pickles_stay_there(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (hub.folder / "run_me.py").write_text("raise SystemExit")
    done = labs("fetch", "-q", "lab/tiny", workspace=tmp_path / "work", hub=address(hub))
    assert (done.returncode, done.stderr) == (0, "")
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "work" / "checkpoints" / "lab--tiny"
    names = {"config.json", "generation_config.json", "labs.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == names | {"tokenizer.json", "tokenizer_config.json"}
    assert json.loads((folder / "labs.json").read_text())["hub"] == {"id": "lab/tiny", "revision": REVISION}
    assert list((tmp_path / "work" / "downloads").iterdir()) == []

    asked = len(hub.asked)
    again = labs("fetch", "lab/tiny", workspace=tmp_path / "work", hub=address(hub))
    assert again.stdout == done.stdout
    assert len(hub.asked) == asked  # present: nobody is asked
    assert "lab/tiny" in labs("models", workspace=tmp_path / "work", hub=address(hub)).stdout


def test_terms_are_asked_for_and_no_token_is_written(hub: Hub, tmp_path: Path) -> None:
    hub.rule = "gated"
    refused = labs("fetch", "-q", "lab/tiny", workspace=tmp_path / "work", hub=address(hub))
    assert refused.returncode == 1
    assert "terms that you have to accept on the hub" in refused.stderr
    assert "HF_TOKEN" in refused.stderr
    accepted = labs("fetch", "-q", "lab/tiny", workspace=tmp_path / "work", hub=address(hub), token=SECRET)
    assert accepted.returncode == 0, accepted.stderr
    written = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert SECRET not in accepted.stdout + accepted.stderr


def test_a_damaged_file_is_a_checksum_error_and_the_next_try_is_whole(hub: Hub, tmp_path: Path) -> None:
    hub.rule = "damaged"
    done = labs("fetch", "-q", "lab/tiny", workspace=tmp_path / "work", hub=address(hub))
    assert done.returncode == 1
    assert "was published" in done.stderr
    assert not (tmp_path / "work" / "checkpoints" / "lab--tiny").exists()
    hub.rule = "open"
    assert labs("fetch", "-q", "lab/tiny", workspace=tmp_path / "work", hub=address(hub)).returncode == 0


def test_pickles_only_are_refused_with_the_way_out(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    done = labs("fetch", "lab/tiny", workspace=tmp_path / "work", hub=address(hub))
    assert done.returncode == 1
    assert "only as pickle (pytorch_model.bin)" in done.stderr
    assert "save_pretrained" in done.stderr


@pytest.mark.parametrize(
    ("name", "port", "what"),
    [("lab/none", None, "the hub has no model lab/none"), ("lab/tiny", 9, "could not be fetched from the hub")],
)
def test_no_such_model_and_no_network(name: str, port: int | None, what: str, hub: Hub, tmp_path: Path) -> None:
    where = f"http://127.0.0.1:{port}" if port else address(hub)
    done = labs("fetch", name, workspace=tmp_path / "work", hub=where)
    assert done.returncode == 1
    assert what in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "work").rglob("config.json"))
