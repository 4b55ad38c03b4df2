"""transformers, as its README runs a model: eager PyTorch, dynamic KV cache. It reads the Hugging Face folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Engine:
    note = "KV cache in the precision of the weights"

    def __init__(self, asked: dict[str, Any]) -> None:
        import torch
        import transformers

        torch.set_num_threads(asked["threads"])
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[asked["precision"]]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(asked["files"], dtype=dtype).eval()
        self.versions = {"transformers": transformers.__version__, "torch": torch.__version__}

    def generate(self, ids: list[int], new: int, on_token: Callable[[int], None]) -> None:
        import torch

        class Told:  # transformers hands a streamer the prompt, then each token
            prompt = True

            def put(self, value: Any) -> None:
                if not self.prompt:
                    on_token(value.item())
                self.prompt = False

            def end(self) -> None: ...

        prompt = torch.tensor([ids])
        with torch.inference_mode():
            self.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=new,
                min_new_tokens=new, streamer=Told(),
            )  # fmt: skip
