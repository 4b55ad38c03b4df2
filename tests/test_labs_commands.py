"""The verbs run, learner, lint, handout and lab, as a person types them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from click.testing import CliRunner
from labs_notebooks import PARAMETERS, SAMPLE, write_notebook

from labsupport.cli import labs
from labsupport.errors import LintError, NotebookError, ParameterError
from labsupport.labs.jupyter import jupyter_command


def typed(*words):
    return CliRunner().invoke(labs, [str(word) for word in words])


def test_run_prints_a_table_and_fails_when_a_lab_did(tmp_path):
    good = write_notebook(tmp_path / "01_good.ipynb", PARAMETERS, "print(SEED)")
    bad = write_notebook(tmp_path / "02_bad.ipynb", PARAMETERS, "1 / SEED")
    done = typed("run", good, bad, "-p", "SEED", "0", "--build", tmp_path / "build", "--timeout", "60")
    assert isinstance(done.exception, NotebookError)
    assert "1 of 2 labs did not pass: 02_bad" in str(done.exception)
    assert "ZeroDivisionError" in done.output
    table = [line.split()[:2] for line in done.output.splitlines()[-3:]]
    assert table == [["lab", "status"], ["01_good", "passed"], ["02_bad", "failed"]]
    assert (tmp_path / "build" / "executed" / "01_good.ipynb").is_file()


def test_run_writes_handouts(tmp_path):
    good = write_notebook(tmp_path / "01_good.ipynb", PARAMETERS, "print(SEED)")
    done = typed("run", good, "--handouts", "--build", tmp_path / "build")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "build" / "handouts").glob("01_good*.html"))) == 2
    again = typed("handout", good, "--build", tmp_path / "build")
    assert again.exit_code == 0, again.output
    assert len(again.output.splitlines()) == 2


def test_a_handout_needs_an_executed_notebook(tmp_path):
    lab = write_notebook(tmp_path / "01_good.ipynb", PARAMETERS)
    done = typed("handout", lab, "--build", tmp_path)
    assert isinstance(done.exception, NotebookError)
    assert "not executed yet: 01_good" in str(done.exception)


def test_an_unknown_lab_is_said_so():
    assert isinstance(typed("run", "77").exception, ParameterError)


def test_learner_writes_copies_and_says_what_became_of_each(tmp_path):
    done = typed("learner", tmp_path / "mine", SAMPLE)
    assert done.exit_code == 0
    assert done.output == f"{tmp_path / 'mine' / SAMPLE.name}: written\n"


def test_learner_takes_a_lab_for_a_lab_and_not_for_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "work"))
    assert typed("learner", "00").output == f"{tmp_path / 'work' / 'learner' / '00_start_here.ipynb'}: written\n"
    assert not (tmp_path / "00").exists()


def test_reset_begins_one_lab_again_and_says_where_the_old_work_is(tmp_path):
    typed("learner", tmp_path, "00")
    done = typed("learner", "--reset", "00", tmp_path)
    backup, fresh = done.output.splitlines()
    assert re.fullmatch(rf"{tmp_path}/backups/00_start_here\.[\d_-]+\.ipynb: your work, kept", backup)
    assert fresh == f"{tmp_path / '00_start_here.ipynb'}: written"
    assert "[00 · Start here](00_start_here.ipynb)" in (tmp_path / "Start.md").read_text()


def test_without_a_folder_the_copies_stand_in_the_workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    assert typed("learner").exit_code == 0
    assert (tmp_path / "learner" / "Start.md").is_file()


def test_lint_prints_findings_and_fails(tmp_path):
    assert typed("lint", SAMPLE).output == "1 labs, no findings\n"
    done = typed("lint", write_notebook(tmp_path / "01_a.ipynb", "1"))
    assert isinstance(done.exception, LintError)
    assert "mend: " in done.output


def test_at_the_shell_a_failure_is_one_block_and_exit_code_1(tmp_path):
    bad = write_notebook(tmp_path / "01_a.ipynb", "import json")
    done = subprocess.run(
        [sys.executable, "-c", "from labsupport.cli import main; main()", "lint", bad], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(("root", "browser"), [(True, True), (False, False)])
def test_jupyterlab_listens_on_this_machine_only(tmp_path, monkeypatch, root, browser):
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    command = jupyter_command(tmp_path, tmp_path / "settings", port=9000, browser=browser)
    assert {"--ip=127.0.0.1", "--port=9000", f"--ServerApp.root_dir={tmp_path}"} <= set(command)
    assert ("--allow-root" in command) is root
    assert ("--no-browser" in command) is not browser


def test_jupyterlab_opens_on_the_copies_and_asks_for_no_news(tmp_path):
    """The real JupyterLab: its settings are ours, and it fetches no announcements."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = jupyter_command(tmp_path, tmp_path / ".settings", port=port, browser=False)
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(tmp_path / ".config")}
    server = subprocess.Popen([*command, "--IdentityProvider.token=t"], env=environment, stderr=subprocess.DEVNULL)
    try:
        settings = get(f"http://127.0.0.1:{port}/lab/api/settings/@jupyterlab/apputils-extension:notification?token=t")
        defaults = {name: value.get("default") for name, value in settings["schema"]["properties"].items()}
        assert defaults["fetchNews"] == "false"
        assert defaults["checkForUpdates"] is False
        assert get(f"http://127.0.0.1:{port}/lab/api/news?token=t") == {"news": []}
    finally:
        server.terminate()
        server.wait(timeout=20)


def get(address):
    end = time.monotonic() + 40
    while True:
        try:
            with urlopen(address) as answer:
                return json.load(answer)
        except URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)
