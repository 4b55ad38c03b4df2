"""JupyterLab on learner copies: on this machine only, opened on the page of the labs, without the news pop-up."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from labsupport.errors import NotebookError
from labsupport.labs.launcher import PAGE
from labsupport.workspace import atomic_text

SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension:plugin": {"defaultViewers": {"markdown": "Markdown Preview"}},
}


def jupyter_command(folder: Path, settings: Path, *, port: int = 8888, browser: bool = True) -> list[str]:
    """The command that opens JupyterLab on ``folder``; ``settings`` is a folder of our own for its defaults.

    Raises:
        NotebookError: JupyterLab is not installed.
    """
    from importlib.util import find_spec

    if find_spec("jupyterlab") is None:
        raise NotebookError(
            "JupyterLab is not installed", why="it is part of the extra `labs`", fix="pip install -e '.[labs]'"
        )
    atomic_text(settings / "overrides.json", json.dumps(SETTINGS, indent=2) + "\n")
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={port}"]
    command += [f"--ServerApp.root_dir={folder}", f"--LabApp.app_settings_dir={settings}", "--LabApp.news_url=None"]
    command.append(f"--LabApp.default_url=/lab/tree/{PAGE}")
    if not browser:
        command.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container the learner is root
    return command
