"""How the engine waits for a cell: in slices, and no longer than the lab may take.

A cell that writes into an ``Output`` widget makes nbclient answer the widget on the same socket on which another task
waits for the cell's end. Now and then the wake-up is lost, and the cell waits out its whole time limit, or for ever
without one (nbclient issue 312). So the wait is cut into slices: after each, the socket is looked at anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import isawaitable
from queue import Empty
from time import monotonic
from typing import Any

SLICE = 0.2  # seconds between two looks at the socket


def sliced(get_message: Callable[..., Any]) -> Callable[..., Any]:
    """``get_message(timeout=...)``, asked again every ``SLICE`` seconds until its whole time is over.

    The coroutine raises ``queue.Empty`` when no message came in time, as the one it stands for does.
    """

    async def ask(timeout: float | None = None) -> Any:
        end = math.inf if timeout is None else monotonic() + timeout
        while True:
            left = end - monotonic()
            try:
                message = get_message(timeout=max(0.0, min(SLICE, left)))
                return await message if isawaitable(message) else message
            except Empty:
                if left <= SLICE:
                    raise

    return ask


def time_left(lab_timeout: float, cell_timeout: float | None) -> Callable[[Any], float]:
    """How long the next cell may take: what the lab has left, counted from now, and no more than ``cell_timeout``."""
    end = monotonic() + lab_timeout

    def left(_cell: Any) -> float:
        return max(0.1, min(end - monotonic(), cell_timeout or math.inf))  # nbclient reads 0 as no limit

    return left
