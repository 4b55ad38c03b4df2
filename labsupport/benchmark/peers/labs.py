"""Our engine, through its own runner, in the Python of the labs. It reads the engine folder that ``ours.py`` made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Engine:
    note = "KV cache in the type of the activations"

    def __init__(self, asked: dict[str, Any]) -> None:
        import torch

        from labsupport import __version__
        from labsupport.engine.runner import Runner

        torch.set_num_threads(asked["threads"])
        self.runner = Runner(asked["files"])
        self.versions = {"labs": __version__, "torch": torch.__version__}

    def generate(self, ids: list[int], new: int, on_token: Callable[[int], None]) -> None:
        for result in self.runner.stream(ids, max_new_tokens=new, top_k=1):
            for token in result.output_token_ids[0]:
                on_token(token)
