"""The MLP as one tensor-parallel rank computes it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from labsupport.errors import CheckpointError

gelu = partial(F.gelu, approximate="tanh")
# hidden_act of a checkpoint's config -> the function. TensorRT-LLM computes every gelu by its tanh formula, "gelu" too,
# while Hugging Face means the exact one by "gelu". Source: tensorrt_llm/functional.py, gelu and ACT2FN.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "swiglu": F.silu,
    "gelu": gelu,
    "geglu": gelu,
    "gelu_new": gelu,
    "gelu_fast": gelu,
    "gelu_pytorch_tanh": gelu,
}


class MlpShard(nn.Module):
    """``proj(act(fc(x)) * gate(x))``, or ``proj(act(fc(x)))`` where there is no gate.

    ``fc`` is the branch that goes through the activation: Hugging Face calls that one ``gate_proj``, and what
    TensorRT-LLM calls ``gate`` is Hugging Face's ``up_proj``.

    Args:
        fc: hidden -> this rank's share of the intermediate size.
        gate: the same, or None.
        proj: back to hidden, without its bias.
        act: the activation.
    """

    def __init__(self, fc: nn.Module, gate: nn.Module | None, proj: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.gate, self.proj, self.act = fc, gate, proj, act

    def forward(self, x: Tensor) -> Tensor:
        """[batch, tokens, hidden] -> a part of the same shape."""
        inner = self.act(self.fc(x))
        if self.gate is not None:
            inner = inner * self.gate(x)
        part: Tensor = self.proj(inner)
        return part


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """The function that ``hidden_act`` names.

    Raises:
        CheckpointError: the name is not known.
    """
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"hidden_act '{name}' is not known",
            why=f"the names known here are {', '.join(ACTIVATIONS)}",
            fix="write one of these as hidden_act in the checkpoint's config.json",
        )
    return ACTIVATIONS[name]
