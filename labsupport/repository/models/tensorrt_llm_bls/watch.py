"""Clients that go away: a thread looks after all requests, and calls back once for each that was cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watch:
    """Polls requests for cancellation.

    A request is never asked once it has had its last answer: Triton 2.51 would end with a segmentation fault.

    Args:
        period: seconds between two looks. A client that vanished frees its slot about this much later.
    """

    def __init__(self, period: float = 0.1) -> None:
        self.period = period
        self._watched: dict[int, tuple[Callable[[], bool], Callable[[], object]]] = {}
        self._number = 0
        self._change = threading.Condition()
        self._closed = False
        threading.Thread(target=self._look, daemon=True).start()

    @contextmanager
    def over(self, is_cancelled: Callable[[], bool], cancel: Callable[[], object]) -> Iterator[None]:
        """Within the block: when ``is_cancelled()`` says so, ``cancel()`` is called, once."""
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

    def close(self) -> None:
        """End the thread."""
        with self._change:
            self._closed = True
            self._change.notify()

    def _look(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._watched or self._closed)
                if self._closed:
                    return
                watched = list(self._watched)
            for number in watched:
                with self._change:  # held while asking: after the block, a request may no longer be asked
                    is_cancelled, cancel = self._watched.get(number, (None, None))
                    if is_cancelled is None or not _says(is_cancelled):
                        continue
                    del self._watched[number]
                if cancel is not None:
                    cancel()
            threading.Event().wait(self.period)


def _says(is_cancelled: Callable[[], bool]) -> bool:
    try:
        return is_cancelled()
    except Exception:  # then it cannot be cancelled, and goes on to its end
        return False
