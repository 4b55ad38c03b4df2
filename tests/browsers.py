"""A real browser for the tests: Chromium through Playwright, a JupyterLab of its own, and axe-core."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from labsupport.labs.jupyter import jupyter_command

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
SHOTS = Path(__file__).resolve().parents[1] / "build" / "screenshots"
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
ALL_CELLS = '{"windowingMode": "none"}'  # JupyterLab renders only what is in view; the tests look at every cell


@contextmanager
def chromium() -> Iterator:
    """A running Chromium; pages of it are closed with it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@contextmanager
def jupyterlab(folder: Path, own: Path) -> Iterator[str]:
    """JupyterLab on ``folder`` as `labs lab` starts it, with settings in ``own``; yields its address with the token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = {**os.environ, **{name: str(own / name) for name in (*homes, "IPYTHONDIR")}}
    tracker = own / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    tracker.parent.mkdir(parents=True)
    tracker.write_text(ALL_CELLS)
    command = jupyter_command(folder, own / "settings", port=port, browser=False)
    with (own / "server.log").open("w") as log:
        server = subprocess.Popen([*command, "--IdentityProvider.token=t"], env=environment, stdout=log, stderr=log)
        try:
            _await(f"http://127.0.0.1:{port}/api/status?token=t", own / "server.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def end_kernels(address: str) -> None:
    """Shut all kernels of a JupyterLab down, so that the next lab has the machine's memory."""
    token = {"Authorization": "token t"}
    with urlopen(Request(f"{address}/api/kernels", headers=token)) as answer:
        kernels = json.load(answer)
    for kernel in kernels:
        urlopen(Request(f"{address}/api/kernels/{kernel['id']}", headers=token, method="DELETE")).close()


def _await(address: str, log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urlopen(address):
                return
        except OSError:
            if time.monotonic() > end:
                raise RuntimeError(f"JupyterLab does not answer:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.3)


def serious_findings(page, within: str | None = None) -> list[str]:
    """What axe-core finds on a page, or in one element of it, that is serious or critical: rule, element, mend."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context=within).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"][:3]
    ]


def shot(page, name: str, **options) -> None:
    """Keep a screenshot as build/screenshots/NAME.png."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", **options)
