"""The tables of the families: names, shapes, and what they imply for every rank."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from labsupport.checkpoint.config import CheckpointConfig, Mapping, parse_config
from labsupport.checkpoint.config_families import FAMILIES, family_of
from labsupport.checkpoint.config_hf import config_from_hf
from labsupport.checkpoint.layout import TABLES, rows
from labsupport.checkpoint.layout_cut import check_mapping, links, origins, source_shapes, targets
from labsupport.errors import ParameterError
from labsupport.models.tiny import make_tiny

NAMES = [family.name for family in FAMILIES]


def tiny_config(family: str, folder: Path, tp_size: int = 1, pp_size: int = 1, **options: int) -> CheckpointConfig:
    hf = json.loads((make_tiny(family, folder) / "config.json").read_text())
    return config_from_hf(hf, dtype="float32", mapping=Mapping.of(tp_size, pp_size), **options)  # type: ignore[arg-type]


def smollm2(tp_size: int) -> CheckpointConfig:
    return parse_config(
        {"architecture": "LlamaForCausalLM", "dtype": "float32", "hidden_size": 576, "num_hidden_layers": 30,
         "num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152,
         "mapping": {"world_size": tp_size, "tp_size": tp_size}}
    )  # fmt: skip


@pytest.mark.parametrize("family", NAMES)
def test_the_table_names_every_tensor_of_the_real_model_class(family: str, tmp_path: Path) -> None:
    config = tiny_config(family, tmp_path)
    with safe_open(tmp_path / "model.safetensors", "np") as file:
        there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert source_shapes(config) == there


def test_every_table_is_short_enough_to_be_shown() -> None:
    assert TABLES.keys() == set(NAMES)
    assert all(len(table) <= 16 for table in TABLES.values())


def test_llama_at_one_rank() -> None:
    """Hand-counted for SmolLM2-135M: 9 heads and 3 KV heads of 64."""
    shapes = {target.name: target.shape for target in targets(smollm2(1), 0)}
    assert len(shapes) == 30 * 7 + 3
    assert shapes["transformer.layers.29.attention.qkv.weight"] == (9 * 64 + 2 * 3 * 64, 576)
    assert shapes["transformer.layers.0.mlp.fc.weight"] == (1536, 576)
    assert shapes["transformer.layers.0.mlp.proj.weight"] == (576, 1536)
    assert shapes["lm_head.weight"] == (49152, 576)


def test_fc_is_the_gate_of_hugging_face() -> None:
    sources = {target.name: target.pieces[0].source for target in targets(smollm2(1), 0)}
    assert sources["transformer.layers.0.mlp.fc.weight"] == "model.layers.0.mlp.gate_proj.weight"
    assert sources["transformer.layers.0.mlp.gate.weight"] == "model.layers.0.mlp.up_proj.weight"


def test_a_biased_row_layer_has_its_whole_bias_on_every_rank(tmp_path: Path) -> None:
    config = tiny_config("opt", tmp_path, tp_size=4)
    shapes = [{target.name: target.shape for target in targets(config, rank)} for rank in range(4)]
    assert {one["transformer.layers.0.attention.dense.bias"] for one in shapes} == {(64,)}
    assert {one["transformer.layers.0.attention.dense.weight"] for one in shapes} == {(64, 16)}
    assert {one["transformer.layers.0.mlp.fc.bias"] for one in shapes} == {(32,)}


def test_only_gemma_adds_one_and_only_to_norms(tmp_path: Path) -> None:
    for family in NAMES:
        changed = {row.name for row in rows(tiny_config(family, tmp_path / family)) if row.plus_one}
        norms = {
            row.name for row in rows(tiny_config(family, tmp_path / family)) if "norm" in row.name or "ln_f" in row.name
        }
        assert changed == (norms if family.startswith("gemma") else set())


def test_layers_count_from_zero_on_each_stage(tmp_path: Path) -> None:
    config = tiny_config("llama", tmp_path, pp_size=2)
    first, last = ({target.name: target for target in targets(config, rank)} for rank in (0, 1))
    norm = "transformer.layers.0.input_layernorm.weight"
    assert first[norm].pieces[0].source == "model.layers.0.input_layernorm.weight"
    assert last[norm].pieces[0].source == "model.layers.2.input_layernorm.weight"
    assert "transformer.vocab_embedding.weight" in first.keys() - last.keys()
    assert {"transformer.ln_f.weight", "lm_head.weight"} == last.keys() - first.keys()


def test_a_kv_head_is_repeated_for_neighboring_ranks() -> None:
    raw = smollm2(1).to_json() | {"num_attention_heads": 8, "num_key_value_heads": 2, "head_size": 64}
    config = parse_config(raw | {"mapping": {"world_size": 4, "tp_size": 4}})
    qkv = [next(one for one in targets(config, rank) if one.name.endswith("qkv.weight")) for rank in range(4)]
    assert [one.pieces[0].rows for one in qkv] == [(0, 128), (128, 256), (256, 384), (384, 512)]
    assert [one.pieces[1].rows for one in qkv] == [(0, 64), (0, 64), (64, 128), (64, 128)]


@pytest.mark.parametrize(("sizes", "split"), [((260, 4), (65, 0)), ((261, 4), (66, 3)), ((5, 4), (2, 3))])
def test_the_head_is_padded_with_zeros_to_equal_parts(
    sizes: tuple[int, int], split: tuple[int, int], tmp_path: Path
) -> None:
    vocab, tp_size = sizes
    raw = tiny_config("llama", tmp_path, tp_size=tp_size).to_json() | {"vocab_size": vocab}
    heads = [targets(parse_config(raw), rank)[-1] for rank in range(tp_size)]
    assert {head.shape[0] for head in heads} == {split[0]}
    assert sum(head.zero_rows for head in heads) == split[1]


@pytest.mark.parametrize(("dim", "shape"), [(0, (65, 64)), (1, (260, 16))])
def test_the_embedding_is_split_as_asked(dim: int, shape: tuple[int, int], tmp_path: Path) -> None:
    config = tiny_config("gpt2", tmp_path, tp_size=4, use_parallel_embedding=True, embedding_sharding_dim=dim)
    found = {target.name: target.shape for target in targets(config, 1)}
    assert found["transformer.vocab_embedding.weight"] == shape
    assert found["transformer.position_embedding.weight"] == ((128, 64) if dim == 0 else (512, 16))


@pytest.mark.parametrize(("tp_size", "fits"), [(1, True), (2, False), (3, True), (4, False), (9, False)])
def test_smollm2_fits_one_and_three_ranks(tp_size: int, fits: bool) -> None:
    if fits:
        check_mapping(smollm2(tp_size))
        return
    with pytest.raises(ParameterError) as caught:
        targets(smollm2(tp_size), 0)
    assert "--tp 1 or 3" in caught.value.fix


@pytest.mark.parametrize("family", ["opt", "gemma", "gemma2", "gemma3"])
def test_a_family_without_stages_says_so(family: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="pipeline stages"):
        tiny_config(family, tmp_path, pp_size=2)


def test_more_stages_than_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="more than the model's 4 layers"):
        tiny_config("llama", tmp_path, pp_size=5)


@st.composite
def spread_models(draw: st.DrawFn) -> CheckpointConfig:
    """A model of any family, spread in any way that its family allows."""
    family = draw(st.sampled_from(FAMILIES))
    tp_size, kv = draw(st.sampled_from([1, 2, 3, 4, 6])), draw(st.sampled_from([1, 2, 3, 4, 6]))
    heads = kv * draw(st.integers(1, 4))
    dim = draw(st.sampled_from([0, 1]))
    raw = {
        "architecture": family.architecture, "dtype": "float32", "hidden_size": 12 * draw(st.integers(1, 3)),
        "num_hidden_layers": draw(st.integers(1, 5)), "num_attention_heads": heads,
        "num_key_value_heads": heads if family.name in ("opt", "gpt2") else kv, "head_size": draw(st.integers(1, 8)),
        "intermediate_size": 12 * draw(st.integers(1, 4)), "vocab_size": draw(st.integers(1, 40)),
        "max_position_embeddings": draw(st.integers(1, 30)), "do_layer_norm_before": draw(st.booleans()),
        "use_parallel_embedding": draw(st.booleans()), "embedding_sharding_dim": dim,
        "tie_word_embeddings": draw(st.booleans()),
        "mapping": Mapping.of(tp_size, draw(st.integers(1, 3))).model_dump(),
    }  # fmt: skip
    return parse_config(raw)


def allowed(config: CheckpointConfig) -> bool:
    try:
        check_mapping(config)
    except ParameterError:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(spread_models().filter(allowed))
def test_every_number_of_every_source_lands_somewhere_and_nothing_else_does(config: CheckpointConfig) -> None:
    shapes = source_shapes(config)
    found = origins(config)
    assert found.keys() == shapes.keys()
    for name, shape in shapes.items():
        pieces = {origin.piece for origin in found[name]}
        oriented = shape[::-1] if any(piece.transposed for piece in pieces) else shape
        seen: Counter[tuple[int, int]] = Counter()
        for piece in pieces:
            columns = range(*(piece.columns or (0, 1)))
            seen.update((row, column) for row in range(*piece.rows) for column in columns)
        skipped = 2 if family_of(config.architecture).name == "opt" and "embed_positions" in name else 0
        wide = oriented[1] if len(oriented) > 1 else 1
        assert seen.keys() == {(row, column) for row in range(skipped, oriented[0]) for column in range(wide)}


@settings(max_examples=150, deadline=None)
@given(spread_models().filter(allowed))
def test_bytes_are_conserved(config: CheckpointConfig) -> None:
    """What flows into a tensor is the tensor; ranks of one stage weigh the same."""
    into: Counter[tuple[int, str]] = Counter()
    for link in links(config):
        into[link.rank, link.target] += link.bytes
    for rank in range(config.mapping.files):
        for target in targets(config, rank):
            size = 4
            for count in target.shape:
                size *= count
            assert into[rank, target.name] == size
    weights = Counter(rank for rank, _ in into)
    for stage in range(config.mapping.pp_size):
        ranks = [stage * config.mapping.tp_size + tp for tp in range(config.mapping.tp_size)]
        totals = {sum(size for (rank, _), size in into.items() if rank == one) for one in ranks}
        assert len(totals) == 1
        assert len({weights[one] for one in ranks}) == 1
