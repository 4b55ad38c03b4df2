"""Clients that go away: a thread looks after all requests, and calls back for each that was cancelled."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REST, AGAIN = 1.0, 0.5
# Where many streams begin at once, Triton 2.51 can stand still: a thread that takes a response waits for Python's lock
# and holds the stream's, the stream's next response waits for that and holds the table of streams, and a thread that
# begins a request waits for the table and holds Python's lock. No Python runs any more, so what ends the process is not
# Python. Triton then answers its requests with an error; `labs serve` starts the server anew.
STANDSTILL = 30.0


class Watch:
    """Polls requests for cancellation.

    Asking is a message to the server, and Triton 2.51 dies in two races around it, so both are kept away: a request is
    never asked once it has had its last answer, and stays in memory for ``REST`` seconds after it was asked.

    Args:
        period: seconds between two looks, and before the first. A client that vanished frees its slot this much later.
    """

    def __init__(self, period: float = 0.1) -> None:
        self.period = period
        self._watched: dict[int, tuple[Callable[[], bool], Callable[[], object]]] = {}
        self._resting: deque[tuple[float, object]] = deque()
        self._number = 0
        self._change = threading.Condition()
        self._closed = False
        threading.Thread(target=self._look, daemon=True).start()

    @contextmanager
    def over(self, is_cancelled: Callable[[], bool], cancel: Callable[[], object]) -> Iterator[None]:
        """Within the block: when ``is_cancelled()`` says so, ``cancel()`` is called, again every ``AGAIN`` seconds."""
        with self._change:
            self._number += 1
            number = self._number
            self._watched[number] = (is_cancelled, cancel)
            self._change.notify()
        try:
            yield
        finally:
            with self._change:
                self._watched.pop(number, None)
                self._resting.append((time.monotonic(), is_cancelled))

    def close(self) -> None:
        """End the thread."""
        with self._change:
            self._closed = True
            self._change.notify()

    def _look(self) -> None:
        while True:
            with self._change:
                faulthandler.cancel_dump_traceback_later()
                self._change.wait_for(lambda: self._watched or self._resting or self._closed)
            faulthandler.dump_traceback_later(STANDSTILL, exit=True, file=2)  # the standard error
            time.sleep(self.period)
            with self._change:
                if self._closed:
                    faulthandler.cancel_dump_traceback_later()
                    return
                watched = list(self._watched)
                while self._resting and self._resting[0][0] < time.monotonic() - REST:
                    self._resting.popleft()
            for number in watched:
                self._ask(number)

    def _ask(self, number: int) -> None:
        with self._change:  # held while asking, so that the block cannot end meanwhile
            is_cancelled, cancel = self._watched.get(number, (None, None))
            if is_cancelled is None or cancel is None or not _says(is_cancelled):
                return
            self._watched[number] = (lambda: False, cancel)
        threading.Thread(target=self._cancel, args=(number, cancel), daemon=True).start()

    def _cancel(self, number: int, cancel: Callable[[], object]) -> None:
        """Call it until the block ends: the message that stops a request may overtake the request itself."""
        while number in self._watched and not self._closed:
            cancel()
            time.sleep(AGAIN)


def _says(is_cancelled: Callable[[], bool]) -> bool:
    try:
        return is_cancelled()
    except Exception:  # then it cannot be cancelled, and goes on to its end
        return False
