"""The network runs a checkpoint as transformers runs the model it was made from: every family, every way of cutting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints_made import ALL_FAMILIES, TOKENS, Tensors, converted, original_logits, spoiled, tiny

from labsupport.checkpoint.network import load_network
from labsupport.checkpoint.network.attention import visible
from labsupport.checkpoint.network.rotary import Rotary, frequencies
from labsupport.errors import CheckpointError, ParameterError
from labsupport.models import DEFAULT_MODEL, fetch, is_present, load_tokenizer, model_folder

TOLERANCE = 1e-4  # float32, on every logit
STAGED = [family for family in ALL_FAMILIES if family not in ("gemma", "gemma2", "gemma3", "opt")]

# The proportions of Gemma 3 270M: wide heads that share one KV head, and one layer of six that sees everything
GEMMA_270M: dict[str, Any] = {
    "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 64,
    "query_pre_attn_scalar": 64, "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
}  # fmt: skip


def difference(checkpoint: Path, model: Path, tokens: torch.Tensor = TOKENS) -> float:
    with torch.no_grad():
        return float((load_network(checkpoint)(tokens) - original_logits(model, tokens)).abs().max())


@pytest.mark.parametrize("tp_size", [1, 2, 4])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_on_one_two_and_four_ranks(family: str, tp_size: int) -> None:
    model = tiny(family)
    assert difference(converted(model, tp_size=tp_size), model) <= TOLERANCE


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("family", STAGED)
def test_two_pipeline_stages(family: str, tp_size: int) -> None:
    model = tiny(family)
    assert difference(converted(model, tp_size=tp_size, pp_size=2), model) <= TOLERANCE


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3", "opt"])
def test_families_without_stages_are_refused_two(family: str) -> None:
    with pytest.raises(ParameterError, match="pipeline stages"):
        converted(tiny(family), pp_size=2)


@pytest.mark.parametrize(
    ("family", "model", "cut"),
    [
        ("llama", {"num_hidden_layers": 5}, {"pp_size": 2}),  # 3 layers, then 2
        ("llama", {"num_key_value_heads": 2}, {"tp_size": 4}),  # each KV head serves two ranks
        ("qwen2", {"num_key_value_heads": 1}, {"tp_size": 4}),  # its bias is repeated as well
        ("llama", {"vocab_size": 263}, {"tp_size": 4}),  # 263 rows are padded to 264
        ("llama", {"vocab_size": 263}, {"tp_size": 4, "use_parallel_embedding": True}),
        ("llama", {"tie_word_embeddings": True}, {"tp_size": 2}),
        ("gpt2", {}, {"tp_size": 2, "use_parallel_embedding": True}),  # the table of positions is cut too
        ("opt", {}, {"tp_size": 4, "use_parallel_embedding": True, "embedding_sharding_dim": 1}),
        ("opt", {"do_layer_norm_before": False}, {"tp_size": 2}),  # the norms of OPT-350m
        ("llama", {"attention_bias": True, "mlp_bias": True}, {"tp_size": 2}),  # biases are added once
        ("gemma3", GEMMA_270M, {"tp_size": 4}),
        ("gemma3", {"sliding_window": 1}, {"tp_size": 2}),  # a token that sees itself alone
    ],
)
def test_the_ways_of_cutting(family: str, model: dict[str, Any], cut: dict[str, Any]) -> None:
    folder = tiny(family, **model)
    assert difference(converted(folder, **cut), folder) <= TOLERANCE


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32, "rope_theta": 500.0,
        },
    ],
)  # fmt: skip
def test_scaled_rotary_positions(rope: dict[str, Any]) -> None:
    model = tiny("llama", rope_parameters=rope)
    assert difference(converted(model, tp_size=2), model) <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("gemma2", "query_pre_attn_scalar", 16),
        ("gemma2", "attn_logit_softcapping", None),
        ("gemma2", "final_logit_softcapping", None),
        ("gemma2", "sliding_window", 17),
        ("gemma3", "sliding_window_pattern", 2),
        ("gemma3", "rope_local_base_freq", 1000.0),
        ("gemma3", "rotary_base", 1000.0),
        ("llama", "norm_epsilon", 1e-2),
        ("llama", "rotary_base", 100.0),
        ("gpt2", "hidden_act", "relu"),
        ("opt", "do_layer_norm_before", False),
    ],
)
def test_every_field_of_the_config_counts(family: str, field: str, value: object, tmp_path: Path) -> None:
    """Else the agreement above would prove less than it seems to: the field could be ignored."""
    changed = spoiled(converted(tiny(family)), tmp_path / "changed", config=lambda raw: raw.update({field: value}))
    assert difference(changed, tiny(family)) > 10 * TOLERANCE


def test_opt_takes_its_epsilon_from_nowhere(tmp_path: Path) -> None:
    changed = spoiled(converted(tiny("opt")), tmp_path / "c", config=lambda raw: raw.update(norm_epsilon=0.1))
    assert difference(changed, tiny("opt")) <= TOLERANCE


def test_lm_head_may_be_left_out_where_the_table_stands_for_it(tmp_path: Path) -> None:
    model = tiny("llama", tie_word_embeddings=True)
    without = spoiled(converted(model), tmp_path / "c", tensors=lambda held: held.pop("lm_head.weight"))
    assert difference(without, model) <= TOLERANCE


def test_the_window_counts_the_token_itself() -> None:
    assert visible(torch.arange(4), torch.arange(4), window=2).sum(-1).tolist() == [1, 2, 2, 2]
    assert visible(torch.tensor([3]), torch.arange(4), window=None).tolist() == [[True] * 4]


def test_rotation_keeps_lengths_and_what_lies_past_the_rotary_part() -> None:
    x = torch.randn(1, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    turned = Rotary(frequencies(4, 10000.0))(x, torch.arange(3))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[..., 4:], x[..., 4:])
    assert torch.equal(turned[:, 0], x[:, 0])
    torch.testing.assert_close(turned[0, 1, 0, 0], x[0, 1, 0, 0] * torch.cos(torch.tensor(1.0)) - x[0, 1, 0, 2]
                               * torch.sin(torch.tensor(1.0)))  # fmt: skip


def no_head(held: Tensors) -> None:
    del held["transformer.layers.1.mlp.fc.weight"]


def as_bytes(held: Tensors) -> None:
    held["transformer.layers.0.mlp.fc.weight"] = held["transformer.layers.0.mlp.fc.weight"].to(torch.int8)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"tensors": no_head}, r"rank0.safetensors has no tensor transformer.layers.1.mlp.fc.weight"),
        ({"tensors": as_bytes}, r"mlp.fc.weight in rank0.safetensors is int8"),
        ({"config": lambda raw: raw.update(hidden_act="tanhshrink")}, "hidden_act 'tanhshrink' is not known"),
        ({"config": lambda raw: raw.update(rotary_scaling={"type": "yarn", "factor": 2})}, "type 'yarn' cannot"),
        ({"config": lambda raw: raw.update(position_embedding_type="alibi")}, "'alibi' cannot be executed"),
    ],
)
def test_what_cannot_be_run_is_said(damage: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama")), tmp_path / "c", **damage)
    with pytest.raises(CheckpointError, match=message):
        load_network(folder)


def test_a_missing_rank_is_said(tmp_path: Path) -> None:
    folder = spoiled(converted(tiny("llama"), tp_size=2), tmp_path / "c")
    (folder / "rank1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"rank1.safetensors cannot be read"):
        load_network(folder)


def text_tokens(name: str) -> torch.Tensor:
    ids = load_tokenizer(name)("The capital of France is Paris. The capital of Italy is Rome, and that of Spain is")
    return torch.tensor([ids["input_ids"]])


@pytest.mark.real_model
@pytest.mark.parametrize("tp_size", [1, 3])
def test_the_real_model_whose_nine_heads_go_on_three_ranks(tp_size: int, tmp_path: Path) -> None:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options

    model = fetch(DEFAULT_MODEL, progress=False)
    assert json.loads((model / "config.json").read_text())["num_attention_heads"] == 9
    checkpoint = convert(model, Options(tp_size=tp_size), output=tmp_path / "c").folder
    assert difference(checkpoint, model, text_tokens(DEFAULT_MODEL)) <= TOLERANCE


@pytest.mark.real_model
@pytest.mark.skipif(not is_present("gemma-3-270m"), reason="Gemma 3 270M is fetched only by who accepts its terms")
@pytest.mark.parametrize("tp_size", [1, 2])
def test_the_real_gemma(tp_size: int, tmp_path: Path) -> None:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options

    model = model_folder("gemma-3-270m")
    checkpoint = convert(model, Options(tp_size=tp_size), output=tmp_path / "c").folder
    assert difference(checkpoint, model, text_tokens("gemma-3-270m")) <= TOLERANCE
