"""The papermill engine ``labs``: headless runs that neither hang nor outlive their time.

A cell that writes into an ``Output`` widget makes nbclient answer the widget on the same socket on which another task
waits for the cell's end. Now and then the wake-up is lost, and the cell waits out its whole time limit, or for ever
without one (nbclient issue 312). So the wait is cut into slices: after each, the socket is looked at anew.

    papermill --engine labs notebooks/02_sampling.ipynb out.ipynb
"""

from __future__ import annotations

import math
from collections.abc import Callable
from queue import Empty
from time import monotonic
from typing import Any

from jupyter_core.utils import run_sync
from nbclient.util import ensure_async
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.log import logger

SLICE = 0.2  # seconds between two looks at the socket


class SlicedClient(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, with the wait for a cell's reply cut into slices of ``SLICE`` seconds."""

    async def async_start_new_kernel_client(self) -> Any:
        """Start the kernel's client, and put the sliced wait in place of its shell channel's."""
        client = await super().async_start_new_kernel_client()
        client.shell_channel.get_msg = sliced(client.shell_channel.get_msg)
        return client

    start_new_kernel_client = run_sync(async_start_new_kernel_client)  # the base class binds its own coroutine


def sliced(get_message: Callable[..., Any]) -> Callable[..., Any]:
    """``get_message(timeout=...)``, asked again every ``SLICE`` seconds until its whole time is over.

    The coroutine raises ``queue.Empty`` when no message came in time, as the one it stands for does.
    """

    async def ask(timeout: float | None = None) -> Any:
        end = math.inf if timeout is None else monotonic() + timeout
        while True:
            left = end - monotonic()
            try:
                return await ensure_async(get_message(timeout=max(0.0, min(SLICE, left))))
            except Empty:
                if left <= SLICE:
                    raise

    return ask


class LabEngine(NBClientEngine):  # type: ignore[misc]
    """Runs a notebook with :class:`SlicedClient`."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Execute the notebook that ``nb_man`` manages.

        Args:
            nb_man: papermill's record of the run.
            kernel_name: the kernel to start.
            log_output, stdout_file, stderr_file: where papermill sends what cells print.
            start_timeout: seconds that the kernel may take to start.
            execution_timeout: seconds that one cell may take.
            options: ``lab_timeout``, seconds that all cells together may take; the rest goes to the client.
        """
        lab_timeout = options.pop("lab_timeout", None)
        if lab_timeout is not None:
            options["timeout_func"] = time_left(lab_timeout, execution_timeout)
        options.pop("input_path", None)
        client = SlicedClient(
            nb_man,
            **{
                **options,
                "timeout": execution_timeout,
                "startup_timeout": start_timeout,
                "kernel_name": kernel_name,
                "log": logger,
                "log_output": log_output,
                "stdout_file": stdout_file,
                "stderr_file": stderr_file,
            },
        )
        return client.execute()


def time_left(lab_timeout: float, cell_timeout: float | None) -> Callable[[Any], float]:
    """How long the next cell may take: what the lab has left, counted from now, and no more than ``cell_timeout``."""
    end = monotonic() + lab_timeout

    def left(_cell: Any) -> float:
        return max(0.1, min(end - monotonic(), cell_timeout or math.inf))  # nbclient reads 0 as no limit

    return left
