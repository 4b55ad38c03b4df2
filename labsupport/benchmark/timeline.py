"""What a client saw of one request, and the metrics that are read off it.

Definitions as in AIPerf and GenAI-Perf where the two agree; where they differ (the gap between tokens), AIPerf's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Chunk:
    """A response with content.

    Args:
        at: seconds, on the clock of the run.
        tokens: that it brought; a response that shows nothing yet counts with the next one that does.
    """

    at: float
    tokens: int = 1


@dataclass(frozen=True)
class Timeline:
    """One request. Times are seconds on the clock of the run, which begins with its first request.

    Args:
        due: when it was to be sent. In an open loop the schedule says so, whatever the server or the client does: all
            latencies count from here, so that a client that waits for a slow server hides nothing.
        sent: when it went out.
        chunks: responses with content, in their order.
        tokens: output tokens in all.
        input_tokens: of its prompt.
        error: why it failed; then there are no metrics.
    """

    due: float
    sent: float
    chunks: tuple[Chunk, ...] = ()
    tokens: int = 0
    input_tokens: int = 0
    error: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether there is something to measure."""
        return self.error is None and bool(self.chunks)

    @property
    def ended(self) -> float:
        """When its last content came."""
        return self.chunks[-1].at

    @property
    def ttft(self) -> float:
        """Time to first token: due -> first content. Queueing and prefill are in it."""
        return self.chunks[0].at - self.due

    @property
    def ttst(self) -> float | None:
        """Time to second token: first -> second content."""
        return self.chunks[1].at - self.chunks[0].at if len(self.chunks) > 1 else None

    @property
    def latency(self) -> float:
        """Due -> last content."""
        return self.ended - self.due

    @property
    def itl(self) -> float | None:
        """Inter-token latency: the time after the first content, by the tokens that came in it. Also called TPOT."""
        later = self.tokens - self.chunks[0].tokens
        return (self.latency - self.ttft) / later if later > 0 else None

    @property
    def gaps(self) -> list[float]:
        """Inter-chunk latencies: from each content to the next, however many tokens it brought."""
        times = [chunk.at for chunk in self.chunks]
        return [after - before for before, after in pairwise(times)]

    @property
    def per_user(self) -> float | None:
        """Tokens a second that this one user reads: 1 / ITL."""
        return 1 / self.itl if self.itl else None


@dataclass(frozen=True)
class Slo:
    """A service-level objective: limits that a request must all meet; None is no limit. Seconds."""

    ttft: float | None = None
    itl: float | None = None
    latency: float | None = None

    def met_by(self, one: Timeline) -> bool:
        """Whether ``one`` is a good request."""
        pairs = ((self.ttft, one.ttft), (self.itl, one.itl), (self.latency, one.latency))
        return all(limit is None or value is None or value <= limit for limit, value in pairs)


def window(runs: Sequence[Timeline]) -> tuple[float, float]:
    """The benchmark's duration: from the first request to the last content."""
    return min(one.due for one in runs), max(one.ended for one in runs)


def output_rate(runs: Sequence[Timeline]) -> float:
    """Output tokens a second, of all users together: all tokens by the benchmark's duration."""
    begin, end = window(runs)
    return sum(one.tokens for one in runs) / (end - begin)


def request_rate(runs: Sequence[Timeline]) -> float:
    """Finished requests a second."""
    begin, end = window(runs)
    return len(runs) / (end - begin)


def goodput(runs: Sequence[Timeline], slo: Slo) -> float:
    """Requests a second that meet the objective."""
    begin, end = window(runs)
    return sum(slo.met_by(one) for one in runs) / (end - begin)
