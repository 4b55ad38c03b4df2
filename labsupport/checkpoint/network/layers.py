"""One decoder layer: where the norms stand around attention and MLP. Three ways cover the eight families."""

from __future__ import annotations

from torch import Tensor, nn

from labsupport.checkpoint.network.memory import Memory


class PreNorm(nn.Module):
    """Norm, block, add: Llama, Mistral, Gemma 1, Qwen, GPT-2, and OPT but for its 350m.

    Args:
        attention, mlp: the blocks.
        input_norm: before attention.
        post_norm: before the MLP, for all that its name (post_layernorm) says.
    """

    def __init__(self, attention: nn.Module, mlp: nn.Module, input_norm: nn.Module, post_norm: nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp, self.input_norm, self.post_norm = attention, mlp, input_norm, post_norm

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        """[batch, tokens, hidden] -> the same shape; memory: what attention looks back on."""
        x = x + self.attention(self.input_norm(x), memory)
        after: Tensor = x + self.mlp(self.post_norm(x))
        return after


class PostNorm(PreNorm):
    """Block, add, norm: OPT with ``do_layer_norm_before`` false (OPT-350m)."""

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = self.input_norm(x + self.attention(x, memory))
        after: Tensor = self.post_norm(x + self.mlp(x))
        return after


class SandwichNorm(PreNorm):
    """Norm, block, norm, add: Gemma 2 and 3. Here post_layernorm stands *after* attention.

    Args:
        pre_mlp_norm, post_mlp_norm: pre_feedforward_layernorm and post_feedforward_layernorm.
    """

    def __init__(
        self,
        attention: nn.Module,
        mlp: nn.Module,
        input_norm: nn.Module,
        post_norm: nn.Module,
        pre_mlp_norm: nn.Module,
        post_mlp_norm: nn.Module,
    ) -> None:
        super().__init__(attention, mlp, input_norm, post_norm)
        self.pre_mlp_norm, self.post_mlp_norm = pre_mlp_norm, post_mlp_norm

    def forward(self, x: Tensor, memory: Memory) -> Tensor:
        x = x + self.post_norm(self.attention(self.input_norm(x), memory))
        after: Tensor = x + self.post_mlp_norm(self.mlp(self.pre_mlp_norm(x)))
        return after
