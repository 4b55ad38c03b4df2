"""A model repository -> a running server, and clients that stream from it.

::

    with Server(repository) as server:                       :mod:`server`, over :mod:`local`, :mod:`guard`, :mod:`log`
        client = Client(server.address)                      :mod:`client` and :mod:`aio`, over :mod:`wire`
        for chunk in client.stream("Hello", Sampling(max_tokens=20)):
            print(chunk.text, end="")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labsupport.serving.address import Address
    from labsupport.serving.aio import AsyncClient
    from labsupport.serving.answer import Answer, Chunk
    from labsupport.serving.client import Client
    from labsupport.serving.sampling import Sampling
    from labsupport.serving.server import Server

_HOMES = {
    "Address": "address", "Answer": "answer", "AsyncClient": "aio", "Chunk": "answer", "Client": "client",
    "Sampling": "sampling", "Server": "server",
}  # fmt: skip
__all__ = ["Address", "Answer", "AsyncClient", "Chunk", "Client", "Sampling", "Server"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
