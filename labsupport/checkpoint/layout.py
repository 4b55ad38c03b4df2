"""The tensor layout of each family, as tables: the format in one screen.

A ``Row`` says which Hugging Face module becomes which TensorRT-LLM module, and how tensor parallelism cuts it.
Conversion, the names and shapes that a rank must hold, the way back and the labs' figures all follow from the tables
(see ``layout_cut``).

Source: TensorRT-LLM 0.20, ``tensorrt_llm/models/{llama,gemma,gpt,opt,qwen}/convert.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.config_families import family_of

Cut = Literal["whole", "out", "in", "heads", "vocab", "embedding"]
Place = Literal["first", "layer", "last"]


@dataclass(frozen=True)
class Row:
    """One module: a weight, and a bias where the config says so. A ``*`` in the name stands for each layer.

    Args:
        name: the TensorRT-LLM name; the layer in it counts from 0 on each pipeline stage.
        source: the Hugging Face name; ``{q,k,v}`` stands for three tensors that are stacked.
        dims: the weight's whole shape, in words: hidden, inner, vocab, positions, head, heads (of the queries), qkv.
        cut: how the weight is split: ``out`` along rows, ``in`` along columns, ``heads`` q, k and v each along rows,
            ``vocab`` along rows padded with zeros, ``embedding`` as the config says, ``whole`` not at all.
        bias: the config's property that says whether there is a bias too.
        when: the config's property without which the module does not exist.
        transposed: the source is stored (in, out), as GPT-2's Conv1D is.
        plus_one: the source holds w and the model multiplies by 1 + w, as Gemma's norms do.
        skip: rows left out at the top of the source, as OPT's two unused positions.
        tied: the source that is read instead when the input and output tables are one.
    """

    name: str
    source: str
    dims: str
    cut: Cut = "whole"
    bias: str = ""
    when: str = ""
    transposed: bool = False
    plus_one: bool = False
    skip: int = 0
    tied: str = ""

    @property
    def place(self) -> Place:
        """The pipeline stage that holds it: its layer's, the first or the last."""
        if "*" in self.name:
            return "layer"
        return "first" if "embedding" in self.name else "last"

    def tensors(self, config: CheckpointConfig) -> Iterator[Row]:
        """The module's tensors, each as a row of its own; a bias follows its weight's rows, never its columns."""
        if self.when and not getattr(config, self.when):
            return
        source = self.tied if self.tied and config.tie_word_embeddings else self.source
        yield replace(self, name=f"{self.name}.weight", source=f"{source}.weight")
        if self.bias and getattr(config, self.bias):
            cut: Cut = self.cut if self.cut in ("out", "heads") else "whole"
            bias = replace(self, name=f"{self.name}.bias", source=f"{source}.bias")
            yield replace(bias, dims=self.dims.split()[0], cut=cut, transposed=False)

    def sources(self, layer: int | None) -> list[str]:
        """The Hugging Face names of a layer, in the order in which they are stacked."""
        name = self.source.replace("*", str(layer))
        if not (group := re.search(r"\{(.*)\}", name)):
            return [name]
        return [name[: group.start()] + member + name[group.end() :] for member in group[1].split(",")]


_T, _H = "transformer.layers.*.", "model.layers.*."  # TensorRT-LLM's prefix of a layer, and Hugging Face's

_LLAMA = (
    Row("transformer.vocab_embedding", "model.embed_tokens", "vocab hidden", "embedding"),
    Row(_T + "input_layernorm", _H + "input_layernorm", "hidden"),
    Row(_T + "attention.qkv", _H + "self_attn.{q,k,v}_proj", "qkv hidden", "heads", bias="attn_has_bias"),
    Row(_T + "attention.dense", _H + "self_attn.o_proj", "hidden heads", "in", bias="dense_has_bias"),
    Row(_T + "post_layernorm", _H + "post_attention_layernorm", "hidden"),
    Row(_T + "mlp.fc", _H + "mlp.gate_proj", "inner hidden", "out", bias="mlp_has_bias"),  # fc: the activated branch
    Row(_T + "mlp.gate", _H + "mlp.up_proj", "inner hidden", "out", bias="mlp_has_bias"),
    Row(_T + "mlp.proj", _H + "mlp.down_proj", "hidden inner", "in", bias="mlp_has_bias"),
    Row("transformer.ln_f", "model.norm", "hidden"),
    Row("lm_head", "lm_head", "vocab hidden", "vocab", tied="model.embed_tokens"),
)
_QK_NORMS = (
    Row(_T + "attention.q_layernorm", _H + "self_attn.q_norm", "head"),
    Row(_T + "attention.k_layernorm", _H + "self_attn.k_norm", "head"),
)
_INTER_NORMS = (
    Row(_T + "pre_feedforward_layernorm", _H + "pre_feedforward_layernorm", "hidden"),
    Row(_T + "post_feedforward_layernorm", _H + "post_feedforward_layernorm", "hidden"),
)

_D = "model.decoder."
_OPT = (
    Row("transformer.vocab_embedding", _D + "embed_tokens", "vocab hidden", "embedding"),
    Row("transformer.position_embedding", _D + "embed_positions", "positions hidden", "embedding", skip=2),
    Row(_T + "input_layernorm", _D + "layers.*.self_attn_layer_norm", "hidden", bias="norm_has_bias"),
    Row(_T + "attention.qkv", _D + "layers.*.self_attn.{q,k,v}_proj", "qkv hidden", "heads", bias="attn_has_bias"),
    Row(_T + "attention.dense", _D + "layers.*.self_attn.out_proj", "hidden heads", "in", bias="dense_has_bias"),
    Row(_T + "post_layernorm", _D + "layers.*.final_layer_norm", "hidden", bias="norm_has_bias"),
    Row(_T + "mlp.fc", _D + "layers.*.fc1", "inner hidden", "out", bias="mlp_has_bias"),
    Row(_T + "mlp.proj", _D + "layers.*.fc2", "hidden inner", "in", bias="mlp_has_bias"),
    Row("transformer.ln_f", _D + "final_layer_norm", "hidden", bias="norm_has_bias", when="do_layer_norm_before"),
    Row("lm_head", "lm_head", "vocab hidden", "vocab", tied=_D + "embed_tokens"),
)

_G = "transformer.h.*."
_GPT2 = (
    Row("transformer.vocab_embedding", "transformer.wte", "vocab hidden", "embedding"),
    Row("transformer.position_embedding", "transformer.wpe", "positions hidden", "embedding"),
    Row(_T + "input_layernorm", _G + "ln_1", "hidden", bias="norm_has_bias"),
    Row(_T + "attention.qkv", _G + "attn.c_attn", "qkv hidden", "heads", bias="attn_has_bias", transposed=True),
    Row(_T + "attention.dense", _G + "attn.c_proj", "hidden heads", "in", bias="dense_has_bias", transposed=True),
    Row(_T + "post_layernorm", _G + "ln_2", "hidden", bias="norm_has_bias"),
    Row(_T + "mlp.fc", _G + "mlp.c_fc", "inner hidden", "out", bias="mlp_has_bias", transposed=True),
    Row(_T + "mlp.proj", _G + "mlp.c_proj", "hidden inner", "in", bias="mlp_has_bias", transposed=True),
    Row("transformer.ln_f", "transformer.ln_f", "hidden", bias="norm_has_bias"),
    Row("lm_head", "lm_head", "vocab hidden", "vocab", tied="transformer.wte"),
)


def _gemma(*rows: Row) -> tuple[Row, ...]:
    return tuple(replace(row, plus_one="layernorm" in row.name or "ln_f" in row.name) for row in rows)


TABLES: dict[str, tuple[Row, ...]] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "gemma": _gemma(*_LLAMA),
    "gemma2": _gemma(*_LLAMA, *_INTER_NORMS),
    "gemma3": _gemma(*_LLAMA, *_INTER_NORMS, *_QK_NORMS),
    "opt": _OPT,
    "gpt2": _GPT2,
    "qwen2": _LLAMA,
    "qwen3": (*_LLAMA, *_QK_NORMS),
}


def rows(config: CheckpointConfig) -> list[Row]:
    """The rows of one model, a row a tensor.

    Raises:
        CheckpointError: the architecture has no table.
    """
    table = TABLES[family_of(config.architecture).name]
    return [tensor for row in table for tensor in row.tensors(config)]


def joined_rows(config: CheckpointConfig) -> list[Row]:
    """The rows that read a checkpoint instead of a Hugging Face folder: every tensor comes from its own, made whole."""
    return [replace(row, source=row.name, transposed=False, plus_one=False, skip=0) for row in rows(config)]
