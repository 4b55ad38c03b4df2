"""vLLM's CPU build, through its engine's own loop. It reads the Hugging Face folder, and compiles it for minutes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any


def prepare(model: str, target: str, precision: str) -> None:  # noqa: ARG001
    """The same files: vLLM converts as it loads."""
    shutil.copytree(model, target, copy_function=os.link, dirs_exist_ok=True)


class Engine:
    note = "KV cache in the precision of the weights, prefix cache off"

    def __init__(self, asked: dict[str, Any]) -> None:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # else each token crosses a process boundary
        os.environ["VLLM_NO_USAGE_STATS"] = "1"
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GB
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(
            map(str, sorted(os.sched_getaffinity(0))[: asked["threads"]])
        )
        import vllm  # type: ignore[import-not-found]

        self.engine = vllm.LLMEngine.from_engine_args(
            vllm.EngineArgs(
                asked["files"], dtype={"fp32": "float32", "bf16": "bfloat16"}[asked["precision"]],
                max_model_len=asked["context"], max_num_seqs=1, enable_prefix_caching=False,
            )
        )  # fmt: skip
        self.versions = {"vllm": vllm.__version__}
        self._count = 0

    def generate(self, ids: list[int], new: int, on_token: Callable[[int], None]) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found]

        greedy = SamplingParams(
            temperature=0, max_tokens=new, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
        )
        self._count += 1
        self.engine.add_request(str(self._count), {"prompt_token_ids": ids}, greedy)
        while self.engine.has_unfinished_requests():
            for output in self.engine.step():
                for token in output.outputs[0].token_ids:
                    on_token(token)
