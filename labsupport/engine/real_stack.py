"""The same build with ``trtllm-build``: the exact line. Not run here: TensorRT-LLM installs only in its container.

Source: TensorRT-LLM 0.20, ``tensorrt_llm/commands/build.py``. Beside it the way of today: since 1.0 the engine workflow
is legacy, and the LLM API takes a Hugging Face folder as it is.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from labsupport.engine.build_config import BuildConfig


def trtllm_build(checkpoint: Path, output: Path, options: BuildConfig, *, workers: int = 1) -> tuple[str, ...]:
    """The call of ``trtllm-build`` that gives an engine with these limits.

    Example:
        >>> " ".join(trtllm_build(Path("in"), Path("out"), BuildConfig(max_seq_len=256))[:5])
        'trtllm-build --checkpoint_dir in --output_dir out'
    """
    call = ["trtllm-build", "--checkpoint_dir", str(checkpoint), "--output_dir", str(output)]
    for name in ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width", "kv_cache_type"):
        if (value := getattr(options, name)) is not None:
            call += [f"--{name}", str(value)]
    call += ["--tokens_per_block", str(options.tokens_per_block), "--workers", str(workers)]
    return (*call, *(f"--{name}" for name in ("gather_context_logits", "gather_generation_logits")
                     if getattr(options, name)))  # fmt: skip


def today(model: Path, options: BuildConfig) -> str:
    """What serves the model without a build, since TensorRT-LLM 1.0."""
    call = ["trtllm-serve", str(model), "--max_batch_size", str(options.max_batch_size)]
    return shlex.join([*call, "--max_num_tokens", str(options.max_num_tokens)])
