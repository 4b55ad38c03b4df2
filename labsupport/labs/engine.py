"""The papermill engine ``labs``: headless runs that neither hang nor outlive their time.

papermill finds it by the entry point in pyproject.toml, and is what imports this module::

    papermill --engine labs notebooks/02_sampling.ipynb out.ipynb
"""

from __future__ import annotations

from typing import Any

from jupyter_core.utils import run_sync
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.log import logger

from labsupport.labs.waiting import sliced, time_left


class SlicedClient(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, with the wait for a cell's reply cut into slices."""

    async def async_start_new_kernel_client(self) -> Any:
        """Start the kernel's client, and put the sliced wait in place of its shell channel's."""
        client = await super().async_start_new_kernel_client()
        client.shell_channel.get_msg = sliced(client.shell_channel.get_msg)
        return client

    start_new_kernel_client = run_sync(async_start_new_kernel_client)  # the base class binds its own coroutine


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
