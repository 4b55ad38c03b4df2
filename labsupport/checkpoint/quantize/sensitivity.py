"""Which errors of a layer matter: its inputs on sample texts, each token weighted by what the model makes of it.

A layer's output error at token t moves the model's loss by the gradient there, so its square counts ``c_t = |g_t|^2``.
The loss is that of tokens drawn from the model's own distribution: then the expected square of the gradient is the
curvature of the KL divergence (the Fisher information), which is what quantization is judged by.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labsupport.errors import CheckpointError

LENGTH = 384  # tokens run at once; the first token of a text is unlike all others, so a text should be long
LINEAR = ("Linear", "Conv1D")  # GPT-2's Conv1D is a linear layer too


@torch.enable_grad()
def grams(model: Path, pieces: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """``H = sum_t |g_t|^2 x_t x_t^T`` of every linear layer, by its Hugging Face module name: float32 [in, in].

    Args:
        model: the Hugging Face folder.
        pieces: token ids, int64 [pieces, length], in the order of the text.
        seed: of the drawn tokens.

    Raises:
        CheckpointError: a layer was given nothing but zeros, or no error of it matters.
    """
    from transformers import AutoModelForCausalLM

    from labsupport.models.quiet import quiet_transformers

    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval().requires_grad_(False)
    found: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        if type(module).__name__ in LINEAR and module is not network.get_output_embeddings():
            module.register_forward_hook(_listener(name, found))
    network.get_input_embeddings().register_forward_hook(lambda _module, _given, out: out.requires_grad_())
    draw = torch.Generator().manual_seed(seed)
    every = pieces.flatten()
    length = min(LENGTH, len(every))
    for ids in every[: len(every) // length * length].reshape(-1, 1, length):
        logits = network(ids, use_cache=False).logits[0].float()
        drawn = torch.multinomial(logits.detach().softmax(-1), 1, generator=draw)[:, 0]
        nn.functional.cross_entropy(logits, drawn, reduction="sum").backward()  # type: ignore[no-untyped-call]
    for name, gram in found.items():
        if not 0 < float(gram.diagonal().mean()) < float("inf"):
            raise CheckpointError(
                f"the texts say nothing about {name}",
                why="every input of it was zero, or nothing that it gives reaches the model's output",
                fix="labs quantize --recipe int8_wo   needs no texts; or look at the layer's weights",
            )
    return found


def _listener(name: str, found: dict[str, Tensor]) -> Any:
    def hook(_module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        x = given[0].detach().flatten(0, -2)

        def weigh(gradient: Tensor) -> None:
            weighted = x * gradient.flatten(0, -2).square().sum(-1, keepdim=True)
            found[name] = found.get(name, 0) + x.T @ weighted

        output.register_hook(weigh)  # type: ignore[no-untyped-call]

    return hook
