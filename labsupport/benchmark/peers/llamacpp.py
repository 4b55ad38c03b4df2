"""llama.cpp through llama-cpp-python."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KINDS = {"fp32": "f32", "bf16": "bf16", "int8": "q8_0", "int4": "q4_0"}


def prepare(model: str, target: str, precision: str) -> None:
    """llama.cpp's own converter, and for int4 its own quantizer."""
    import llama_cpp  # type: ignore[import-not-found]

    converter = Path(sys.prefix).parent / "source" / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"
    file = Path(target) / "model.gguf"
    kind = KINDS[precision]
    first = file if kind != "q4_0" else file.with_name("float.gguf")
    outtype = kind if kind != "q4_0" else "f32"
    subprocess.run([sys.executable, converter, model, "--outfile", first, "--outtype", outtype], check=True)
    if kind == "q4_0":
        wanted = llama_cpp.llama_model_quantize_default_params()
        wanted.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
        if llama_cpp.llama_model_quantize(str(first).encode(), str(file).encode(), wanted):
            raise RuntimeError("llama_model_quantize failed")
        first.unlink()


class Engine:
    def __init__(self, asked: dict[str, Any]) -> None:
        import llama_cpp

        precision, threads = asked["precision"], asked["threads"]
        kv = {"type_k": 0, "type_v": 0} if precision == "fp32" else {}  # 0: GGML_TYPE_F32; llama.cpp's default is F16
        self.note = f"{KINDS[precision]} weights, KV cache {'f32' if kv else 'f16'}"
        self.model = llama_cpp.Llama(
            str(Path(asked["files"]) / "model.gguf"), n_ctx=asked["context"], n_threads=threads,
            n_threads_batch=threads, verbose=False, **kv,
        )  # fmt: skip
        self.versions = {"llama-cpp-python": llama_cpp.__version__}

    def generate(self, ids: list[int], new: int, on_token: Callable[[int], None]) -> None:
        for done, token in enumerate(self.model.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True), start=1):
            on_token(token)
            if done == new:
                break
        self.model.reset()  # else the longest known prefix of the next prompt is not computed again
