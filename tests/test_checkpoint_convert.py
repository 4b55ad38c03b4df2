"""Conversion: the right numbers in the right place for every family, held against slices written out by hand."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from labsupport.checkpoint.commands import convert as convert_command
from labsupport.checkpoint.config import read_config
from labsupport.checkpoint.config_families import FAMILIES
from labsupport.checkpoint.convert import Options, convert
from labsupport.checkpoint.convert_bench import make_synthetic
from labsupport.checkpoint.tensor_bits import cast, from_float32, to_float32
from labsupport.models.tiny import make_tiny
from labsupport.workspace import read_record

NAMES = [family.name for family in FAMILIES]
PIPELINED = [family.name for family in FAMILIES if family.pipeline]
LAYER = "transformer.layers.1."
Tensors = dict[str, torch.Tensor]


@pytest.fixture
def models(tmp_path: Path) -> Any:
    def make(family: str, **overrides: int) -> tuple[Path, Tensors]:
        folder = make_tiny(family, tmp_path / family, **overrides)
        return folder, load_file(folder / "model.safetensors")

    return make


def ranks(folder: Path) -> list[Tensors]:
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(read_config(folder).mapping.files)]


def chunk(tensor: torch.Tensor, parts: int, part: int, dim: int = 0) -> torch.Tensor:
    return tensor.chunk(parts, dim)[part]


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_llama_over_two_ranks_by_hand(family: str, models: Any, tmp_path: Path) -> None:
    folder, hf = models(family, tie_word_embeddings=False)
    for rank, found in enumerate(ranks(convert(folder, Options(tp_size=2), output=tmp_path / "out").folder)):
        own = "model.layers.1."
        heads = [chunk(hf[f"{own}self_attn.{which}_proj.weight"], 2, rank) for which in "qkv"]
        assert torch.equal(found[LAYER + "attention.qkv.weight"], torch.cat(heads))
        if family == "qwen2":
            biases = [chunk(hf[f"{own}self_attn.{which}_proj.bias"], 2, rank) for which in "qkv"]
            assert torch.equal(found[LAYER + "attention.qkv.bias"], torch.cat(biases))
        if family == "qwen3":
            assert torch.equal(found[LAYER + "attention.q_layernorm.weight"], hf[own + "self_attn.q_norm.weight"])
        dense, proj = hf[own + "self_attn.o_proj.weight"], hf[own + "mlp.down_proj.weight"]
        assert torch.equal(found[LAYER + "attention.dense.weight"], chunk(dense, 2, rank, dim=1))
        assert torch.equal(found[LAYER + "mlp.fc.weight"], chunk(hf[own + "mlp.gate_proj.weight"], 2, rank))
        assert torch.equal(found[LAYER + "mlp.gate.weight"], chunk(hf[own + "mlp.up_proj.weight"], 2, rank))
        assert torch.equal(found[LAYER + "mlp.proj.weight"], chunk(proj, 2, rank, dim=1))
        assert torch.equal(found["transformer.vocab_embedding.weight"], hf["model.embed_tokens.weight"])
        assert torch.equal(found["lm_head.weight"], chunk(hf["lm_head.weight"], 2, rank))
        assert torch.equal(found["transformer.ln_f.weight"], hf["model.norm.weight"])


def test_gpt2_is_transposed_and_its_fused_qkv_is_cut_head_by_head(models: Any, tmp_path: Path) -> None:
    folder, hf = models("gpt2")
    for rank, found in enumerate(ranks(convert(folder, Options(tp_size=4), output=tmp_path / "out").folder)):
        parts = hf["transformer.h.1.attn.c_attn.weight"].T.chunk(3)
        assert torch.equal(found[LAYER + "attention.qkv.weight"], torch.cat([chunk(one, 4, rank) for one in parts]))
        biases = hf["transformer.h.1.attn.c_attn.bias"].chunk(3)
        assert torch.equal(found[LAYER + "attention.qkv.bias"], torch.cat([chunk(one, 4, rank) for one in biases]))
        proj = hf["transformer.h.1.mlp.c_proj.weight"].T
        assert torch.equal(found[LAYER + "mlp.proj.weight"], chunk(proj, 4, rank, dim=1))
        assert torch.equal(found[LAYER + "mlp.proj.bias"], hf["transformer.h.1.mlp.c_proj.bias"])
        assert torch.equal(found["transformer.position_embedding.weight"], hf["transformer.wpe.weight"])
        assert torch.equal(found["lm_head.weight"], chunk(hf["transformer.wte.weight"], 4, rank))


def test_opt_drops_the_two_unused_positions(models: Any, tmp_path: Path) -> None:
    folder, hf = models("opt")
    (found,) = ranks(convert(folder, output=tmp_path / "out").folder)
    positions = hf["model.decoder.embed_positions.weight"]
    assert torch.equal(found["transformer.position_embedding.weight"], positions[2:])
    own = "model.decoder.layers.1."
    assert torch.equal(found[LAYER + "post_layernorm.bias"], hf[own + "final_layer_norm.bias"])
    assert torch.equal(found[LAYER + "input_layernorm.weight"], hf[own + "self_attn_layer_norm.weight"])


@pytest.mark.parametrize("family", ["gemma", "gemma2", "gemma3"])
def test_gemma_norms_hold_one_more_and_its_table_is_unscaled(family: str, models: Any, tmp_path: Path) -> None:
    folder, hf = models(family)
    (found,) = ranks(convert(folder, output=tmp_path / "out").folder)
    assert torch.equal(found[LAYER + "post_layernorm.weight"], hf["model.layers.1.post_attention_layernorm.weight"] + 1)
    assert torch.equal(found["transformer.ln_f.weight"], hf["model.norm.weight"] + 1)
    assert torch.equal(found["transformer.vocab_embedding.weight"], hf["model.embed_tokens.weight"])
    assert torch.equal(found["lm_head.weight"], hf["model.embed_tokens.weight"])
    if family == "gemma3":
        norm = hf["model.layers.1.self_attn.k_norm.weight"]
        assert torch.equal(found[LAYER + "attention.k_layernorm.weight"], norm + 1)


def test_kv_heads_are_repeated_and_the_vocabulary_is_padded(models: Any, tmp_path: Path) -> None:
    folder, hf = models("llama", num_key_value_heads=2, vocab_size=261, tie_word_embeddings=False)
    done = convert(folder, Options(tp_size=4, use_parallel_embedding=True), output=tmp_path / "out")
    for rank, found in enumerate(ranks(done.folder)):
        key = hf["model.layers.1.self_attn.k_proj.weight"].chunk(2)[rank // 2]
        query = chunk(hf["model.layers.1.self_attn.q_proj.weight"], 4, rank)
        qkv = found[LAYER + "attention.qkv.weight"]
        assert torch.equal(qkv[: len(query)], query)
        assert torch.equal(qkv[len(query) : len(query) + len(key)], key)
        for name, source in (("lm_head", "lm_head"), ("transformer.vocab_embedding", "model.embed_tokens")):
            padded = torch.cat([hf[f"{source}.weight"], torch.zeros(3, 64)])
            assert torch.equal(found[f"{name}.weight"], padded[66 * rank : 66 * (rank + 1)])


@pytest.mark.parametrize("family", PIPELINED)
def test_uneven_stages_hold_all_layers_once(family: str, models: Any, tmp_path: Path) -> None:
    folder, _ = models(family, num_hidden_layers=3)
    whole = ranks(convert(folder, output=tmp_path / "whole").folder)[0]
    first, last = ranks(convert(folder, Options(pp_size=2), output=tmp_path / "two").folder)
    assert all(torch.equal(first[f"transformer.layers.{i}.mlp.fc.weight"],
                           whole[f"transformer.layers.{i}.mlp.fc.weight"]) for i in (0, 1))  # fmt: skip
    assert torch.equal(last["transformer.layers.0.mlp.fc.weight"], whole["transformer.layers.2.mlp.fc.weight"])
    assert len(first) + len(last) == len(whole)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_types_are_rounded_as_pytorch_rounds(family: str, dtype: str, models: Any, tmp_path: Path) -> None:
    folder, _ = models(family)
    whole = ranks(convert(folder, output=tmp_path / "whole").folder)[0]
    small = ranks(convert(folder, Options(dtype=dtype), output=tmp_path / "small").folder)[0]
    assert all(torch.equal(small[name], whole[name].to(getattr(torch, dtype))) for name in whole)


@pytest.mark.parametrize("family", NAMES)
def test_a_checkpoint_cut_anew_is_the_one_cut_at_once(family: str, models: Any, tmp_path: Path) -> None:
    """tp 4, with a padded, parallel embedding, joined and cut for one and for two ranks: every bit is back."""
    folder, _ = models(family, vocab_size=261)
    four = convert(folder, Options(tp_size=4, use_parallel_embedding=True), output=tmp_path / "four").folder
    for tp_size in (1, 2):
        direct = convert(folder, Options(tp_size=tp_size), output=tmp_path / f"direct{tp_size}").folder
        anew = convert(four, Options(tp_size=tp_size), output=tmp_path / f"anew{tp_size}").folder
        assert read_config(anew) == read_config(direct)
        for a, b in zip(ranks(direct), ranks(anew), strict=True):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_shards_with_an_index_give_the_same_as_one_file(models: Any, tmp_path: Path) -> None:
    folder, hf = models("llama")
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "config.json").write_text((folder / "config.json").read_text())
    homes = {name: f"model-{index % 3}.safetensors" for index, name in enumerate(sorted(hf))}
    for file in set(homes.values()):
        save_file({name: hf[name].contiguous() for name in hf if homes[name] == file}, shards / file)
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    one, many = (ranks(convert(f, output=tmp_path / f.name[:3]).folder)[0] for f in (folder, shards))
    assert all(torch.equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize(
    ("family", "rename"),
    [
        ("llama", lambda name: f"module.{name}"),
        ("gpt2", lambda name: name.removeprefix("transformer.")),
        ("opt", lambda name: name.removeprefix("model.")),
    ],
)
def test_state_dicts_of_wrappers_and_inner_models_are_read(
    family: str, rename: Any, models: Any, tmp_path: Path
) -> None:
    folder, hf = models(family)
    (tmp_path / "dict").mkdir()
    save_file(
        {rename(name): tensor.contiguous() for name, tensor in hf.items()}, tmp_path / "dict" / "pytorch.safetensors"
    )
    own = convert(folder, output=tmp_path / "a").folder
    other = convert(tmp_path / "dict", output=tmp_path / "b", config_file=folder / "config.json").folder
    assert all(torch.equal(x, y) for x, y in zip(ranks(own)[0].values(), ranks(other)[0].values(), strict=True))


def test_buffers_of_old_files_are_left_out(models: Any, tmp_path: Path) -> None:
    folder, hf = models("gpt2")
    save_file(hf | {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)}, folder / "model.safetensors")
    assert convert(folder, output=tmp_path / "out").folder.is_dir()


def test_what_is_done_is_not_done_again(models: Any, tmp_path: Path) -> None:
    folder, hf = models("llama")
    out = tmp_path / "out"
    assert not convert(folder, output=out).skipped
    assert convert(folder, output=out).skipped
    assert not convert(folder, output=out, force=True).skipped
    assert not convert(folder, Options(tp_size=2), output=out).skipped
    assert (out / "rank1.safetensors").is_file()
    os.truncate(out / "rank1.safetensors", 100)
    assert not convert(folder, Options(tp_size=2), output=out).skipped
    changed = {name: tensor.contiguous() for name, tensor in hf.items()}
    changed["model.norm.weight"] = changed["model.norm.weight"] + 1
    save_file(changed, folder / "model.safetensors")
    assert not convert(folder, Options(tp_size=2), output=out).skipped
    record = read_record(out) or {}
    assert record["options"]["tp_size"] == 2
    assert record["inputs"].keys() == {"config.json", "model.safetensors"}


def test_the_default_folder_names_model_and_recipe(
    models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "work"))
    folder, _ = models("llama")
    first = convert(folder, Options("bfloat16", 2, 2, True, 1)).folder
    assert first == tmp_path / "work" / "trt_checkpoints" / "llama" / "bfloat16-tp2-pp2-embed1"
    assert convert(first).folder == first.with_name("bfloat16-tp1")


def test_the_progress_adds_up(models: Any, tmp_path: Path) -> None:
    folder, _ = models("gemma3", vocab_size=261)
    seen: list[tuple[int, int]] = []
    done = convert(folder, Options(tp_size=2), output=tmp_path / "out", progress=lambda *step: seen.append(step))
    stored = sum(math.prod(tensor.shape) * 4 for rank in ranks(done.folder) for tensor in rank.values())
    assert sum(written for written, _ in seen) == stored
    assert {total for _, total in seen} == {stored}


def test_a_dry_run_prints_the_plan_and_writes_nothing(models: Any, tmp_path: Path) -> None:
    folder, _ = models("llama")
    done = CliRunner().invoke(
        convert_command, [str(folder), "--tp", "2", "--output", str(tmp_path / "out"), "--dry-run"]
    )
    assert done.exit_code == 0
    assert "rank0.safetensors, rank1.safetensors" in done.output
    assert not (tmp_path / "out").exists()


def test_a_synthetic_model_is_as_large_as_asked(tmp_path: Path) -> None:
    size = make_synthetic(tmp_path / "model", 0.9)
    assert 0.75e9 < size < 1.05e9
    for file in (tmp_path / "model").glob("*.safetensors"):
        assert load_file(file)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_casts_equal_those_of_pytorch_for_all_bits(bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(np.float32)
    for kind, dtype in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        with np.errstate(over="ignore"):
            ours = to_float32(from_float32(values, kind), kind)
        theirs = torch.from_numpy(values).to(dtype).float().numpy()
        assert np.array_equal(ours, theirs, equal_nan=True)


def test_casts_at_every_edge_of_float16_and_bfloat16() -> None:
    """Each number of the narrow type, the points half-way to its neighbors, and their neighbors in float32."""
    for kind, held, dtype in (("BF16", np.uint16, torch.bfloat16), ("F16", np.float16, torch.float16)):
        every = to_float32(np.arange(2**16, dtype=np.uint16).view(held), kind)
        with np.errstate(over="ignore", invalid="ignore"):
            half_way = every / 2 + np.roll(every, 1) / 2
            edges = np.concatenate([every, half_way, *(np.nextafter(half_way, np.float32(far)) for far in (9e9, -9e9))])
        with np.errstate(over="ignore"):
            ours = to_float32(from_float32(edges, kind), kind)
        assert np.array_equal(ours, torch.from_numpy(edges).to(dtype).float().numpy(), equal_nan=True)


def test_every_half_width_number_survives_a_round_trip() -> None:
    for kind, held in (("BF16", np.uint16), ("F16", np.float16)):
        every = np.arange(2**16, dtype=np.uint16).view(held)
        number = ~np.isnan(to_float32(every, kind))
        back = cast(to_float32(every, kind), "F32", kind)
        assert np.array_equal(back.view(np.uint16)[number], every.view(np.uint16)[number])


def test_an_export_of_modelopt_is_read_and_cut_for_two_ranks(models: Any, tmp_path: Path) -> None:
    """The successor of AMMO. The config comes from the model, since the export's own leaves fields out."""
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from transformers import AutoModelForCausalLM

    folder, _ = models("qwen3")
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16)
        export_tensorrt_llm_checkpoint(
            model, "qwen", torch.float16, str(tmp_path / "export"), inference_tensor_parallel=1
        )
    options = Options("float16", tp_size=2)
    theirs = convert(
        tmp_path / "export", options, output=tmp_path / "theirs", config_file=folder / "config.json"
    ).folder
    ours = convert(folder, options, output=tmp_path / "ours").folder
    assert read_config(theirs) == read_config(ours)
    for a, b in zip(ranks(ours), ranks(theirs), strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert convert(tmp_path / "export", options, output=tmp_path / "alone").config.dtype == "float16"
