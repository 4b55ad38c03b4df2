"""OpenVINO GenAI, with files of optimum-intel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

WEIGHTS = {
    "fp32": ["fp32"],
    "bf16": ["fp16"],
    "int8": ["int8"],
    "int4": ["int4", "--sym", "--group-size", "32", "--ratio", "1.0"],
}
HINTS = {"fp32": "f32", "bf16": "bf16"}  # a CPU without bf16 computes in f32, on weights of 16 bits


def prepare(model: str, target: str, precision: str) -> None:
    """Export, with the compression of NNCF for int8 and int4."""
    cli = Path(sys.executable).with_name("optimum-cli")
    subprocess.run(
        [cli, "export", "openvino", "-m", model, "--task", "text-generation-with-past", "--weight-format",
         *WEIGHTS[precision], target],
        check=True,
    )  # fmt: skip


class Engine:
    def __init__(self, asked: dict[str, Any]) -> None:
        import openvino_genai as genai  # type: ignore[import-not-found]

        self.genai = genai
        wanted: dict[str, int | str] = {"INFERENCE_NUM_THREADS": asked["threads"]}
        precision = asked["precision"]
        if precision in HINTS:
            wanted["INFERENCE_PRECISION_HINT"] = HINTS[precision]
        if precision == "fp32":
            wanted["KV_CACHE_PRECISION"] = "f32"
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.cache_size = 1
        self.note = f"{WEIGHTS[precision][0]} weights, KV cache {wanted.get('KV_CACHE_PRECISION', 'u8, its default')}"
        self.pipe = genai.LLMPipeline(asked["files"], "CPU", scheduler_config=scheduler, **wanted)
        self.versions = {"openvino-genai": version("openvino-genai"), "openvino": version("openvino")}

    def generate(self, ids: list[int], new: int, on_token: Callable[[int], None]) -> None:
        import numpy as np
        import openvino as ov  # type: ignore[import-not-found]

        genai = self.genai

        class Told(genai.StreamerBase):  # type: ignore[misc, name-defined]
            def write(self, token: int | list[int]) -> object:
                for one in token if isinstance(token, list) else [token]:
                    on_token(one)
                return genai.StreamingStatus.RUNNING

            def end(self) -> None: ...

        prompt = np.array([ids], dtype=np.int64)
        config = genai.GenerationConfig(max_new_tokens=new, min_new_tokens=new, do_sample=False, ignore_eos=True)
        self.pipe.generate(genai.TokenizedInputs(ov.Tensor(prompt), ov.Tensor(np.ones_like(prompt))), config, Told())
