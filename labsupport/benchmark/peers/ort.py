"""ONNX Runtime GenAI, with files of its model builder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any


def prepare(model: str, target: str, precision: str) -> None:
    """Export with its model builder."""
    options = ["--extra_options", "int4_block_size=32", "int4_accuracy_level=4"] if precision == "int4" else []
    subprocess.run(
        [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", model, "-o", target, "-p", precision,
         "-e", "cpu", *options],
        check=True,
    )  # fmt: skip


class Engine:
    note = "KV cache in fp32"

    def __init__(self, asked: dict[str, Any]) -> None:
        import onnxruntime_genai as genai  # type: ignore[import-not-found]

        self.genai = genai
        config = genai.Config(asked["files"])
        session = {"intra_op_num_threads": asked["threads"]}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self.model = genai.Model(config)
        self.versions = {"onnxruntime-genai": version("onnxruntime-genai")}

    def generate(self, ids: list[int], new: int, on_token: Callable[[int], None]) -> None:
        params = self.genai.GeneratorParams(self.model)
        total = len(ids) + new
        params.set_search_options(do_sample=False, max_length=total, min_length=total)
        generator = self.genai.Generator(self.model, params)
        generator.append_tokens(ids)
        for _ in range(new):
            generator.generate_next_token()
            on_token(generator.get_next_tokens()[0])
