"""Five servers, some of them faulty: the blind round of lab 10. Do not read on before you have played."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from labsupport.errors import ParameterError
from labsupport.validation.material import Budget
from labsupport.validation.mutations.catalogue import chosen
from labsupport.validation.mutations.fault import Bench
from labsupport.validation.target import Facts, Target, Wrapped

SERVERS: dict[str, str | None] = {"A": "M26@1.05", "B": None, "C": "M02", "D": "M08@0.1", "E": "M40"}
BUDGET = Budget(4, 8, 5, 12, 5, 24, 2, 2, 0, 0, 0, 1, "blind", crowd=0)


class Nameless(Wrapped):
    """A server of which only a letter is known."""

    def __init__(self, inner: Target, letter: str) -> None:
        super().__init__(inner)
        self._letter = letter

    @property
    def facts(self) -> Facts:
        """Of the inner one, but for the name."""
        return replace(self.inner.facts, name=f"server {self._letter}")


@contextmanager
def server(bench: Bench, letter: str) -> Iterator[Target]:
    """The server of a letter, while the context lasts.

    Raises:
        ParameterError: there is none.
    """
    if letter not in SERVERS:
        raise ParameterError(f"no server {letter!r}", why=f"there are {', '.join(SERVERS)}", fix="ask one of these")
    name = SERVERS[letter]
    if name is None:
        yield Nameless(bench.target(), letter)
        return
    with chosen([name])[0].plant(bench) as target:
        yield Nameless(target, letter)


def levels() -> dict[str, str]:
    """Letter -> the level that names the fault, or "healthy"."""
    return {letter: chosen([name])[0].level if name else "healthy" for letter, name in SERVERS.items()}
