"""The process around a peer: load once, then a round a request. The peer's own Python runs it; nothing of ours is here.

::

    python worker.py eager.py prepare MODEL TARGET PRECISION    write the peer's files of the Hugging Face folder MODEL
    python worker.py eager.py serve                             then one JSON object a line, request and answer in turn:

    {"files": "...", "precision": "fp32", "threads": 2, "context": 192}  ->  {"load_s": 1.2, "versions": {}, "note": ""}
    {"ids": [1, 2, 3], "new": 128}                                       ->  {"tokens": [...], "times": [...]}

``times`` are seconds from the request until each new token was known. A peer is a file with
``prepare(model, target, precision)`` and ``Engine(asked)``, which is given the first request and has ``versions``,
``note`` and ``generate(ids, new, on_token)``: greedy, blind to the end token, nothing kept from an earlier prompt. An
error ends the process, with its traceback on stderr.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO


def peer_module(path: str) -> ModuleType:
    """The peer's file as a module; its folder is not on the path, where it could hide the library that it drives."""
    spec = importlib.util.spec_from_file_location("labs_peer", path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(engine: Any, ids: list[int], new: int) -> dict[str, Any]:
    """One round: the tokens, and when each was known."""
    tokens: list[int] = []
    times: list[float] = []
    began = time.perf_counter()

    def on_token(token: int) -> None:
        times.append(time.perf_counter() - began)
        tokens.append(int(token))

    engine.generate(ids, new, on_token)
    return {"tokens": tokens, "times": times}


def serve(peer: ModuleType, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until their stream ends."""
    asked = json.loads(requests.readline())
    began = time.perf_counter()
    engine = peer.Engine(asked)
    loaded = {"load_s": time.perf_counter() - began, "versions": engine.versions, "note": engine.note}
    print(json.dumps(loaded), file=answers, flush=True)
    for line in requests:
        asked = json.loads(line)
        print(json.dumps(answer(engine, asked["ids"], asked["new"])), file=answers, flush=True)


def main(path: str, verb: str, *arguments: str) -> None:
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
    peer = peer_module(path)
    if verb == "prepare":
        peer.prepare(*arguments)
        return
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints, from C++ too, is no answer
    serve(peer, sys.stdin, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
