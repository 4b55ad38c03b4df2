"""The way back to a client: one sender for each Triton request, asked now and then if the client is still there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

Make = Callable[[Mapping[str, NDArray[Any]], str | None], Any]


class Reply:
    """All responses to one Triton request.

    The last response that carries data also carries the final flag, as in the C++ backend. Once that is sent the sender
    is never touched again: Triton 2.51 dies when a request that it has closed is asked for its cancellation.

    Args:
        sender: the request's response sender.
        make: makes a response from tensors, or from the message of an error.
        final: Triton's final flag.
    """

    def __init__(self, sender: Any, make: Make, final: int) -> None:
        self._sender, self._make, self._final, self._parts = sender, make, final, 1
        self._lock = threading.Lock()

    def parts(self, count: int) -> None:
        """It becomes ``count`` requests for the executor; the final flag goes with the end of the last one."""
        with self._lock:
            self._parts = count

    def send(self, tensors: Mapping[str, NDArray[Any]], error: str | None = None, *, ends: bool = False) -> None:
        """Send a response; ``ends`` says that one part of the request is answered in full with it."""
        response = self._make(tensors, error)
        with self._lock:
            if self._parts == 0:
                return
            self._parts -= ends
            self._sender.send(response, flags=self._final if self._parts == 0 else 0)

    def fail(self, error: str) -> None:
        """Answer with an error, and nothing after it."""
        with self._lock:
            self._parts = min(self._parts, 1)
        self.send({}, error, ends=True)

    def is_cancelled(self) -> bool:
        """Whether the client has gone away. False once the last response is sent."""
        with self._lock:
            return self._parts > 0 and bool(self._sender.is_cancelled())
