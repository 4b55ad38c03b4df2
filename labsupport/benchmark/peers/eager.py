"""transformers, as its README runs a model: eager PyTorch, dynamic KV cache. It reads the Hugging Face folder.

At int8 the linear layers, the head among them, are PyTorch's dynamically quantized ones: a scale for each row of the
weights, and one for the activations of each step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Engine:
    def __init__(self, asked: dict[str, Any]) -> None:
        import torch
        import transformers

        torch.set_num_threads(asked["threads"])
        int8 = asked["precision"] == "int8"
        dtype = torch.bfloat16 if asked["precision"] == "bf16" else torch.float32
        self.model = transformers.AutoModelForCausalLM.from_pretrained(asked["files"], dtype=dtype).eval()
        if int8:
            from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

            quantize_dynamic(  # type: ignore[no-untyped-call]
                self.model, {torch.nn.Linear: per_channel_dynamic_qconfig}, inplace=True
            )
        self.note = f"KV cache in {'fp32' if int8 else 'the precision of the weights'}"
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
