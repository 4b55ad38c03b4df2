"""Where a server listens: three ports in a row, as Triton has them by default (8000, 8001, 8002)."""

from __future__ import annotations

import os
import random
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException

from labsupport.errors import ParameterError, ServerError

VARIABLE = "TRITON_URL"
LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Address:
    """A server's address.

    Args:
        port: of HTTP; gRPC listens on the next one, and metrics on the one after.
        host: a name or a number.
    """

    port: int = 8000
    host: str = LOCAL

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST``, ``HOST:PORT`` or ``http://HOST:PORT``; PORT is that of HTTP.

        Raises:
            ParameterError: anything else.

        Example:
            >>> Address.parse("http://gpu7:9000").grpc
            'gpu7:9001'
        """
        host, colon, port = text.strip().removeprefix("http://").rstrip("/").partition(":")
        if not host or (colon and not (port.isdigit() and 0 < int(port) < 65534)) or "/" in host:
            raise ParameterError(
                f"{text!r} is no server's address",
                why="it is read as HOST:PORT, with the port of HTTP; gRPC is taken to listen on the next port",
                fix="such as 127.0.0.1:8000",
            )
        return cls(int(port) if colon else 8000, host)

    @classmethod
    def from_environment(cls) -> Address | None:
        """The server that ``TRITON_URL`` names, or None."""
        text = os.environ.get(VARIABLE)
        return cls.parse(text) if text else None

    @property
    def http(self) -> str:
        """host:port of HTTP."""
        return f"{self.host}:{self.port}"

    @property
    def grpc(self) -> str:
        """host:port of gRPC."""
        return f"{self.host}:{self.port + 1}"

    @property
    def metrics(self) -> str:
        """host:port of the Prometheus metrics."""
        return f"{self.host}:{self.port + 2}"

    def is_ready(self, model: str | None = None, *, seconds: float = 1.0) -> bool:
        """Whether the server, or one model of it, takes requests."""
        path = f"models/{model}/ready" if model else "health/ready"
        connection = HTTPConnection(self.host, self.port, timeout=seconds)
        try:
            connection.request("GET", f"/v2/{path}")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()


def is_free(address: Address) -> bool:
    """Whether all three ports can be listened on."""
    return all(_can_bind(address.host, address.port + step) for step in range(3))


def free_address(host: str = LOCAL) -> Address:
    """An address with three free ports, picked at random so that two people on one machine do not meet.

    Raises:
        ServerError: none was found.
    """
    for _ in range(200):
        address = Address(random.randrange(20_000, 32_000, 3), host)  # below the ports that clients are given
        if is_free(address):
            return address
    raise ServerError(
        "no three free ports in a row",
        why="200 places between 20000 and 32000 were tried",
        fix="end servers that are not needed; ss -ltnp lists them",
    )


def require_free(address: Address) -> None:
    """Raise where somebody listens there already.

    Raises:
        ServerError: one of the three ports is taken.
    """
    for step, name in enumerate(("HTTP", "gRPC", "metrics")):
        if not _can_bind(address.host, address.port + step):
            raise ServerError(
                f"port {address.port + step} is in use",
                why=f"the server would listen there for {name}, and another program does",
                fix=f"another port, or end that program: ss -ltnp 'sport = :{address.port + step}' names it",
            )


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True
