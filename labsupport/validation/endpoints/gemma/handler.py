"""A custom handler for an inference endpoint: Gemma.

Copy it with ``requirements.txt`` beside the weights. Request::

    {"inputs": "text" or [{"role": "user", "content": "..."}], "parameters": {"max_new_tokens": 16, "seed": 42, ...}}

Answer: ``{"input", "input_ids", "output", "output_ids", "text", "finish_reason", "log_probs"}``: what ``labs compare``
needs to tell a wrong template from a wrong output. Run on this machine in the tests; not run here in the cloud.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class EndpointHandler:
    """What the endpoint calls.

    Args:
        path: the folder of weights and tokenizer.
    """

    def __init__(self, path: str = "") -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(device).eval()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        """Answer one request, reproducibly where it has a seed."""
        asked = dict(data.get("parameters") or {})
        seed = asked.pop("seed", None)
        if seed is not None:
            torch.manual_seed(int(seed))
        ids = self.encode(data["inputs"])
        tensor = torch.tensor([ids], device=self.model.device)
        ends = self.end_ids()
        with torch.inference_mode():
            done = self.model.generate(
                tensor, attention_mask=torch.ones_like(tensor), eos_token_id=ends,
                pad_token_id=self.tokenizer.pad_token_id, return_dict_in_generate=True, output_logits=True, **asked,
            )  # fmt: skip
        output = done.sequences[0, len(ids) :].tolist()
        logs = [row[0].float().log_softmax(-1)[id].item() for row, id in zip(done.logits, output)]  # noqa: B905
        return {
            "input": self.tokenizer.decode(ids),
            "input_ids": ids,
            "output": self.tokenizer.decode(output),
            "output_ids": output,
            "text": self.tokenizer.decode(output, skip_special_tokens=True),
            "finish_reason": "end" if output[-1] in ends else "length",
            "log_probs": logs,
        }

    def encode(self, inputs: str | list[dict[str, str]]) -> list[int]:
        """Token ids: text as it is, messages through the template, which writes its own BOS."""
        if isinstance(inputs, str):
            return list(self.tokenizer(inputs)["input_ids"])
        turns = self.turns(inputs)
        return list(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    def end_ids(self) -> list[int]:
        """Every token that ends an answer: the tokenizer's, and those of the generation config."""
        named = self.model.generation_config.eos_token_id
        also = named if isinstance(named, list) else [named]
        return sorted({id for id in (self.tokenizer.eos_token_id, *also) if id is not None})

    def turns(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Gemma has no system role: its text goes before the first user's; "model" is an assistant."""
        system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
        turns = [
            {"role": "assistant" if turn["role"] == "model" else turn["role"], "content": turn["content"]}
            for turn in messages
            if turn["role"] != "system"
        ]
        if system and turns:
            turns[0] = {**turns[0], "content": f"{system}\n\n{turns[0]['content']}"}
        return turns
