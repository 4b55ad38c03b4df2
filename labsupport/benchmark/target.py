"""Who is asked, seen from the load loop: a request is prepared before the clock runs, and read after it has stopped.

In between stands only what cannot wait: send, and note when each response came. So the client has little to do while it
measures, and what it does not do then cannot be measured as the server's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from labsupport.benchmark.timeline import Chunk
from labsupport.benchmark.workload import Job

now = time.perf_counter


@dataclass(frozen=True)
class Arrival:
    """What came from the connection, as it came."""

    at: float
    data: Any


@dataclass(frozen=True)
class Answered:
    """What the arrivals of one request hold.

    Args:
        chunks: responses with content.
        ids: output tokens, where the target sends tokens and not text.
        text: the whole text, where it sends text.
    """

    chunks: tuple[Chunk, ...]
    ids: tuple[int, ...] = ()
    text: str = ""


class Target(Protocol):
    """Something that answers requests with streams."""

    title: str
    own_process: bool
    """Whether it runs elsewhere, so that this process's CPU time is the client's alone."""

    async def __aenter__(self) -> Target: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def prepare(self, job: Job) -> Any:
        """The request, ready to be sent."""
        ...

    async def send(self, request: Any) -> list[Arrival]:
        """Send it, and collect what comes.

        Raises:
            ServerError: nobody answers, or the connection breaks.
        """
        ...

    def read(self, arrivals: Sequence[Arrival]) -> Answered:
        """What the arrivals hold.

        Raises:
            RequestError: the server reports an error.
        """
        ...


def answered(pieces: Sequence[tuple[float, str]]) -> Answered:
    """Responses of text: one that shows nothing yet (half a character) brings its token with the next that does."""
    chunks, waiting = [], 0
    for at, text in pieces:
        waiting += 1
        if text:
            chunks.append(Chunk(at, waiting))
            waiting = 0
    return Answered(tuple(chunks), text="".join(text for _, text in pieces))
