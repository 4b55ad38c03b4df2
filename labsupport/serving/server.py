"""A Triton server around a model repository, for as long as a block runs, and not a moment longer."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import indent
from types import TracebackType

from labsupport.backends import folder
from labsupport.errors import ServerError
from labsupport.serving.address import LOCAL, VARIABLE, Address, free_address, require_free
from labsupport.serving.local import ENGINE, local_launch
from labsupport.serving.log import PORT_IN_USE, Cause, cause_in, tail
from labsupport.workspace import Workspace, atomic_text

_NUMBERS = itertools.count()


class Server:
    """A running server.

    Should the process of a model be killed, the server starts again at the same address: running answers break off, and
    after some seconds it is ready. ``TRITON_URL`` names a server that runs elsewhere: then nothing is started, and
    nothing is stopped at the end.

    Args:
        repository: the model repository to serve.
        engine: the folder of the backend ``tensorrtllm``; ours where missing.
        port: of HTTP, gRPC and metrics on the next two; free ones where missing.
        host: who may connect; the default is this machine alone.
        seconds: until when all models must be ready.
        grace: seconds that running answers get when the block ends. Nothing is kept, so that by default all is killed
            at once; Triton itself takes 5 s to unload.
        options: more of tritonserver's options.

    Attributes:
        address: where it listens.
        log: what it says; the file goes with the server.
        ready_s: seconds from the start until all models were ready.

    Raises:
        ServerError: on entering: it cannot run here, its port is taken, or it ended or hung before it was ready. The
            error names the cause that stands in the log.

    Example:
        >>> with Server(repository) as server:  # doctest: +SKIP
        ...     print(Client(server.address).generate("The capital of France is").text)
    """

    def __init__(
        self,
        repository: Path | str,
        *,
        engine: Path | None = None,
        port: int | None = None,
        host: str = LOCAL,
        seconds: float = 90.0,
        grace: float = 0.0,
        options: tuple[str, ...] = (),
    ) -> None:
        self.repository = Path(repository).expanduser().resolve()
        self.engine, self.port, self.host, self.seconds = engine, port, host, seconds
        self.grace, self.options = grace, options
        self.address = Address(port or 0, host)
        self.log: Path | None = None
        self.ready_s = 0.0
        self._guard: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Server:
        """Start, and return when all models are ready."""
        began = time.monotonic()
        if remote := Address.from_environment():
            _require_answer(remote)
            self.address = remote
        else:
            self._start()
        self.ready_s = time.monotonic() - began
        return self

    def stop(self) -> None:
        """End the server and everything that it started; a second call does nothing."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.send_signal(signal.SIGTERM)
            try:
                guard.wait(self.grace + 10)
            except subprocess.TimeoutExpired:
                guard.kill()  # then the kernel ends the server, and the stubs see it
                guard.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> None:
        """Return when the server has ended, which it does only by itself, or when it is killed.

        Raises:
            ServerError: it has; with what its log says last.
        """
        while self.is_alive:
            time.sleep(0.2)
        raise self._problem("the server ended")[0]

    @property
    def is_alive(self) -> bool:
        """Whether the server that was started here still runs."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pid(self) -> int:
        """The process above all processes of the server.

        Raises:
            ServerError: the server runs elsewhere, or not at all.
        """
        if self._guard is None:
            raise ServerError(
                "there is no process of the server here",
                why="it was not started, or TRITON_URL names one that runs elsewhere",
                fix="with Server(repository) as server: ...   and unset TRITON_URL",
            )
        return self._guard.pid

    def _start(self) -> None:
        """Twice at most: a stub of 2.51 now and then never reports that it has loaded, and a free port may be lost."""
        for attempt in (1, 2):
            self.address = Address(self.port, self.host) if self.port else free_address(self.host)
            require_free(self.address)
            self._run()
            if (ended := self._wait()) is None:
                return
            late = f"the server is not ready after {self.seconds:.0f} s"
            problem, cause = self._problem("the server ended before it was ready" if ended else late)
            self.stop()
            lost = self.port is None and cause is PORT_IN_USE
            if attempt == 2 or (ended and not lost):
                raise problem

    def _run(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="labs-server-"))
        self.log = self._folder / "server.log"
        prefix = f"labs-{os.getpid()}-{next(_NUMBERS)}-"
        engine = self.engine or folder() / ENGINE
        try:
            launch = local_launch(
                self.repository, self._folder / "backends", engine, self.address, self.options, prefix
            )
            guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
            guard += [str(os.getpid()), str(self.grace), str(self._folder), prefix, self.address.http]
            with self.log.open("wb") as sink:
                self._guard = subprocess.Popen(
                    [*guard, *launch.command],
                    cwd=launch.cwd,
                    env=os.environ | launch.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                    start_new_session=True,
                )
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> bool | None:
        """None: all models are ready. True: the server ended. False: it hangs."""
        deadline = time.monotonic() + self.seconds
        try:
            while time.monotonic() < deadline:
                if not self.is_alive:
                    return True
                if self.address.is_ready():
                    return None
                time.sleep(0.05)
        except BaseException:  # Ctrl-C while it loads
            self.stop()
            raise
        return False

    def _problem(self, what: str) -> tuple[ServerError, Cause | None]:
        text = self.log.read_text(errors="replace") if self.log else ""
        cause = cause_in(text)
        kept = Workspace.current().runs / "server-failed.log"
        atomic_text(kept, text)
        why = cause.why if cause else "its log names no cause that is known here"
        lines = indent(tail(text), "    | ")
        return ServerError(
            what,
            why=f"{why}\n{lines}\n    the whole log: {kept}",
            fix=cause.fix if cause else "labs lint-repo REPOSITORY",
        ), cause


def _require_answer(address: Address) -> None:
    if not address.is_ready(seconds=5):
        raise ServerError(
            f"the server at {address.http} is not ready",
            why=f"{VARIABLE} names it, and it does not say that its models are loaded",
            fix=f"curl http://{address.http}/v2/health/ready; or unset {VARIABLE}, and one is started here",
        )
