"""From a checkpoint's config and tensors to the network: what each family adds is decided here, and only here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labsupport.checkpoint.config import CheckpointConfig, read_config
from labsupport.checkpoint.network.attention import AttentionShard, Heads
from labsupport.checkpoint.network.embedding import ColumnsOverRanks, Embedding, Head, RowsOverRanks
from labsupport.checkpoint.network.layers import PostNorm, PreNorm, SandwichNorm
from labsupport.checkpoint.network.mlp import MlpShard, activation
from labsupport.checkpoint.network.model import Inputs, Network, Stage
from labsupport.checkpoint.network.parallel import Sharded, Team
from labsupport.checkpoint.network.quantized import cache_rounding, quantized_linear
from labsupport.checkpoint.network.rotary import Rotary, frequencies
from labsupport.checkpoint.network.tensors import Quantizer, RankTensors
from labsupport.errors import CheckpointError


def load_network(folder: Path, dtype: torch.dtype = torch.float32) -> Network:
    """The whole network of the checkpoint in ``folder``, all ranks in this process, ready to run.

    Args:
        folder: holds ``config.json`` and ``rank0.safetensors`` ... of every rank.
        dtype: what the weights are cast to, and what is computed in.

    Raises:
        CheckpointError: a file or a tensor is missing, or the model needs what is not written here.

    Example:
        >>> network = load_network(Path("work/trt_checkpoints/smollm2-135m-instruct/float32-tp1"))  # doctest: +SKIP
        >>> network(torch.tensor([[1, 2, 3]])).shape  # doctest: +SKIP
        torch.Size([1, 3, 49152])
    """
    config = read_config(folder)
    tp_size, pp_size = config.mapping.tp_size, config.mapping.pp_size
    stages = []
    for stage in range(pp_size):
        first = stage * tp_size
        ranks = [read_rank(folder, rank, dtype) for rank in range(first, first + tp_size)]
        stages.append(build_stage(config, stage, ranks, Team(range(tp_size))))
    return Network(stages).eval()


def read_rank(folder: Path, rank: int, dtype: torch.dtype, quantized: Quantizer = quantized_linear) -> RankTensors:
    """The tensors of ``folder/rank<rank>.safetensors``; ``quantized`` makes the layers of fewer bits.

    Raises:
        CheckpointError: the file is missing or is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"rank{rank}.safetensors"
    try:
        return RankTensors(load_file(path), rank, dtype, read_config(folder), quantized=quantized)
    except (FileNotFoundError, SafetensorError) as problem:
        raise CheckpointError(
            f"{path} cannot be read",
            why=f"the mapping in config.json asks for it, and: {problem}",
            fix="convert the model again: labs convert",
        ) from problem


def build_stage(config: CheckpointConfig, stage: int, ranks: Sequence[RankTensors], team: Team) -> Stage:
    """One pipeline stage from the tensors of the ranks that this process hosts.

    Args:
        config: of the whole checkpoint.
        stage: pipeline rank, from 0.
        ranks: tensors of the hosted tensor-parallel ranks of this stage, in the order of ``team.ranks``.
        team: who sums over the tensor-parallel ranks.
    """
    last = stage == config.mapping.pp_size - 1
    held = config.layers_of(stage * config.mapping.tp_size)
    return Stage(
        _inputs(config, ranks, team) if stage == 0 else None,
        [
            _layer(config, layer, [rank.under(f"transformer.layers.{local}") for rank in ranks], team)
            for local, layer in enumerate(held)
        ],
        ranks[0].optional_norm("transformer.ln_f", _eps(config)) if last else None,
        _head(config, ranks, team) if last else None,
    )


def _inputs(config: CheckpointConfig, ranks: Sequence[RankTensors], team: Team) -> Inputs:
    learned = [table for rank in ranks if (table := rank.get("transformer.position_embedding.weight")) is not None]
    return make_inputs(config, [rank["transformer.vocab_embedding.weight"] for rank in ranks], learned, team)


def make_inputs(config: CheckpointConfig, tables: Sequence[Tensor], learned: Sequence[Tensor], team: Team) -> Inputs:
    """The way in: tables of tokens, and of learned positions where there are any, one a rank."""
    cut = [RowsOverRanks, ColumnsOverRanks][config.embedding_sharding_dim]
    kind: type[Embedding] = cut if config.use_parallel_embedding and config.mapping.tp_size > 1 else Embedding
    scale = math.sqrt(config.hidden_size) if _is_gemma(config) else 1.0
    return Inputs(kind(tables, team), kind(learned, team) if learned else None, scale)


def _head(config: CheckpointConfig, ranks: Sequence[RankTensors], team: Team) -> Head:
    tied = "transformer.vocab_embedding"  # a checkpoint may leave lm_head out, where the table on the rank fits it
    names = ["lm_head" if "lm_head.weight" in rank else tied for rank in ranks]
    softcap = _option(config, "final_logit_softcapping")
    return Head([rank.linear(name) for rank, name in zip(ranks, names, strict=True)], config.vocab_size, softcap, team)


def _layer(config: CheckpointConfig, layer: int, ranks: Sequence[RankTensors], team: Team) -> nn.Module:
    one, eps = ranks[0], _eps(config)
    attention = Sharded([_attention(config, layer, rank) for rank in ranks], one.get("attention.dense.bias"), team)
    mlp = Sharded([_mlp(config, rank) for rank in ranks], one.get("mlp.proj.bias"), team)
    input_norm, post_norm = one.norm("input_layernorm", eps), one.norm("post_layernorm", eps)
    if _option(config, "inter_layernorms"):
        around = [one.norm(f"{side}_feedforward_layernorm", eps) for side in ("pre", "post")]
        return SandwichNorm(attention, mlp, input_norm, post_norm, *around)
    before = _option(config, "do_layer_norm_before", default=True)
    return (PreNorm if before else PostNorm)(attention, mlp, input_norm, post_norm)


def _attention(config: CheckpointConfig, layer: int, rank: RankTensors) -> AttentionShard:
    eps = _eps(config)
    return AttentionShard(
        rank.linear("attention.qkv"),
        rank.linear("attention.dense", bias=False),
        heads_of(config, layer),
        _rotary(config, layer),
        rank.norm("attention.q_layernorm", eps) if config.qk_layernorm else None,
        rank.norm("attention.k_layernorm", eps) if config.qk_layernorm else None,
        cache_rounding(config, rank.get("attention.kv_cache_scaling_factor")),
    )


def _mlp(config: CheckpointConfig, rank: RankTensors) -> MlpShard:
    gated = "mlp.gate.weight" in rank
    return MlpShard(
        rank.linear("mlp.fc"),
        rank.linear("mlp.gate") if gated else None,
        rank.linear("mlp.proj", bias=False),
        activation(config.hidden_act),
    )


def heads_of(config: CheckpointConfig, layer: int) -> Heads:
    """The heads of one tensor-parallel rank in a layer, counted over the whole model.

    With fewer KV heads than ranks, each rank has one (a copy).
    """
    tp_size = config.mapping.tp_size
    q_scaling = _option(config, "q_scaling", default=1.0)
    if scalar := _option(config, "query_pre_attn_scalar"):
        q_scaling = math.sqrt(scalar) / math.sqrt(config.head_size)
    return Heads(
        queries=config.num_attention_heads // tp_size,
        keys=max(1, config.num_key_value_heads // tp_size),
        size=config.head_size,
        scale=1.0 / (q_scaling * math.sqrt(config.head_size)),
        softcap=_option(config, "attn_logit_softcapping"),
        window=_option(config, "sliding_window") if is_local(config, layer) else None,
    )


def is_local(config: CheckpointConfig, layer: int) -> bool:
    """Whether a layer, counted over the whole model, sees only a window: all but each n-th one do in Gemma 2 and 3."""
    pattern = _option(config, "sliding_window_pattern") or (2 if config.architecture == "Gemma2ForCausalLM" else None)
    return pattern is None or (layer + 1) % pattern != 0


def _rotary(config: CheckpointConfig, layer: int) -> Rotary | None:
    if config.position_embedding_type == "learned_absolute":
        return None
    if config.position_embedding_type != "rope_gpt_neox":
        raise CheckpointError(
            f"position_embedding_type '{config.position_embedding_type}' cannot be executed",
            why="this network knows learned_absolute and rope_gpt_neox, which cover every family that is converted",
            fix="check structure and round trip alone: labs verify --no-execution",
        )
    size = config.rotary_embedding_dim or config.head_size
    local_base = _option(config, "rope_local_base_freq")
    if local_base is not None and is_local(config, layer):
        return Rotary(frequencies(size, local_base))
    return Rotary(frequencies(size, _option(config, "rotary_base"), _option(config, "rotary_scaling")))


def _eps(config: CheckpointConfig) -> float:
    return 1e-5 if config.architecture == "OPTForCausalLM" else config.norm_epsilon  # OPT does not read the field


def _is_gemma(config: CheckpointConfig) -> bool:
    return config.architecture.startswith("Gemma")


def _option(config: CheckpointConfig, name: str, default: Any = None) -> Any:
    return getattr(config, name, default)  # only some families have the field
