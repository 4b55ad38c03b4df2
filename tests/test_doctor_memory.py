"""Will it fit? The formula against numbers worked out by hand, and shapes against the models themselves."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from labsupport.doctor import report
from labsupport.doctor.memory import (
    PRECISIONS,
    Verdict,
    activation_bytes,
    judge,
    kv_bytes_per_token,
    need,
    weight_bytes,
)
from labsupport.doctor.shapes import count_parameters, find_gpu, find_shape, known_gpus, known_shapes, shape_of_folder
from labsupport.errors import ModelError, ParameterError
from labsupport.models.tiny import make_tiny

LLAMA = known_shapes()["llama-2-7b"]
RTX_4090 = find_gpu("4090")


def verdict(dtype: str = "float16", batch: int = 8, length: int = 2048) -> Verdict:
    return judge(LLAMA, RTX_4090, dtype=dtype, batch=batch, length=length)


# --- weights, by hand: Llama 2 7B has 6,738,415,616 weights, 2 x 32000 x 4096 = 262,144,000 of them in the tables ---


def test_weights_of_llama_2_7b_in_float16_are_the_famous_13_5_gb() -> None:
    assert weight_bytes(LLAMA, "float16") == 6_738_415_616 * 2 == 13_476_831_232


def test_int8_halves_only_the_linear_layers() -> None:
    assert weight_bytes(LLAMA, "int8") == 6_476_271_616 * 1 + 262_144_000 * 2 == 7_000_559_616


def test_int4_carries_one_16_bit_scale_for_128_weights() -> None:
    assert weight_bytes(LLAMA, "int4") == 6_476_271_616 // 2 + 6_476_271_616 // 64 + 524_288_000 == 3_863_615_552


def test_a_tied_table_counts_once() -> None:
    gpt2 = known_shapes()["gpt2"]
    assert gpt2.table_parameters == 50_257 * 768
    assert replace(gpt2, tied=False).table_parameters == 2 * 50_257 * 768


@pytest.mark.parametrize(
    ("model", "kib"),
    [("llama-2-7b", 512), ("llama-3.1-8b", 128), ("gemma-2b", 18), ("gpt2", 36), ("smollm2-135m-instruct", 22.5)],
)
def test_cache_of_one_token(model: str, kib: float) -> None:
    # by hand, Llama 2 7B: 2 x 32 layers x 32 heads x 128 x 2 bytes = 524,288
    assert kv_bytes_per_token(known_shapes()[model], "float16") == kib * 1024


def test_grouped_query_attention_is_what_makes_llama_3_cheap() -> None:
    assert kv_bytes_per_token(LLAMA, "float16") == 4 * kv_bytes_per_token(known_shapes()["llama-3.1-8b"], "float16")


def test_activations_of_one_packed_step() -> None:
    # 8192 tokens x (2 x 4096 + 2 x 11008) x 2 bytes, and 8 rows of 32000 float32 logits
    assert activation_bytes(LLAMA, "float16", 8) == 8192 * 30_208 * 2 + 8 * 32_000 * 4 == 495_951_872


def test_the_4090_with_float16_by_hand() -> None:
    asked = verdict().asked
    left = 24_564 * 1024**2 - 13_476_831_232 - 495_951_872 - 1_000_000_000
    assert asked.pool == int(0.9 * left) == 9_705_993_984
    assert asked.tokens == 9_705_993_984 // 524_288 == 18_512
    assert (asked.longest, asked.largest_batch) == (2_314, 9)
    assert asked.ceiling == pytest.approx(1008e9 / 13_476_831_232)


# --- the verdict: 13.5 GB do fit into 24 GB; the answer hangs on batch x length ---


@pytest.mark.parametrize(
    ("batch", "length", "fitting"),
    [
        (8, 2048, {"float16", "fp8", "int8", "int4"}),
        (9, 2048, {"float16", "fp8", "int8", "int4"}),
        (10, 2048, {"fp8", "int8", "int4"}),
        (8, 4096, {"int4"}),
        (9, 4096, set()),
    ],
)
def test_what_fits_a_4090(batch: int, length: int, fitting: set[str]) -> None:
    answer = verdict(batch=batch, length=length)
    assert {item.precision for item in (answer.asked, *answer.others) if item.fits} == fitting


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("gpu", known_gpus())
def test_the_stated_limits_are_the_limits(gpu: str, precision: str) -> None:
    for shape in known_shapes().values():
        sizes = need(shape, known_gpus()[gpu], precision, batch=4, length=512)
        if not sizes.supported or sizes.largest_batch == 0:
            continue
        assert 512 * sizes.largest_batch * sizes.kv_per_token <= sizes.pool
        assert 512 * (sizes.largest_batch + 1) * sizes.kv_per_token > sizes.pool
        assert sizes.longest == shape.context or 4 * (sizes.longest + 1) * sizes.kv_per_token > sizes.pool


def test_summary_says_why_not_and_what_instead() -> None:
    text = report.summary(verdict(batch=12))
    assert text == (
        "Llama 2 7B in float16 needs 13.5 GB of weights + 12.9 GB of KV cache (batch 12 x length 2048) + 1.50 GB "
        "reserve: does not fit 24 GB RTX 4090. The weights alone fit; what does not is the cache: room for 18,511 "
        "tokens, 24,576 asked. At the same batch and length it does fit as: fp8, int8, int4."
    )


def test_summary_when_the_weights_alone_are_too_big() -> None:
    text = report.summary(judge(known_shapes()["llama-3.1-8b"], find_gpu("a10g"), dtype="float32", batch=1))
    assert "The weights and the reserve alone are too big for it." in text
    assert "it does fit as: float16, int8, int4." in text  # an A10G has no fp8


def test_fp8_needs_the_arithmetic() -> None:
    text = report.summary(judge(LLAMA, find_gpu("a100-80"), dtype="fp8"))
    assert "80 GB A100 has no fp8 arithmetic" in text
    assert judge(LLAMA, find_gpu("h100"), dtype="fp8").asked.supported


def test_build_needs_two_copies_on_the_host() -> None:
    text = report.explain(verdict())
    assert "host RAM at least 27.0 GB" in text
    assert "estimates; nothing was run" in text


def test_verdict_as_json_carries_the_same_numbers() -> None:
    plain = json.loads(json.dumps(report.verdict_dict(verdict(batch=12))))
    assert plain["asked"]["weights"] == 13_476_831_232
    assert plain["asked"]["fits"] is False
    assert {item["precision"]: item["fits"] for item in plain["others"]} == {"fp8": True, "int8": True, "int4": True}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "int3"}, "dtype 'int3'"),
        ({"batch": 0}, "batch 0"),
        ({"length": -5}, "length -5"),
        ({"length": 5000}, "beyond the context"),
    ],
)
def test_bad_questions(settings: dict[str, int | str], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        judge(LLAMA, RTX_4090, **settings)


@pytest.mark.parametrize("spelled", ["4090", "RTX 4090", "rtx-4090", "NVIDIA GeForce RTX 4090"])
def test_gpu_names_may_be_spelled_freely(spelled: str) -> None:
    assert find_gpu(spelled) is RTX_4090


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(ParameterError) as error:
        find_gpu("3dfx")
    assert "h200" in error.value.why
    with pytest.raises(ParameterError) as error:
        find_shape("llama-9")
    assert "llama-2-7b" in error.value.why


# --- shapes: the table against transformers, folders against the table ---


@pytest.mark.parametrize("name", known_shapes())
def test_published_parameters_are_those_of_the_architecture(name: str) -> None:
    """Built without memory (meta device) from the table's sizes, the model has the table's number of weights."""
    import torch
    import transformers

    shape = known_shapes()[name]
    sizes = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": shape.tied,
    }
    if shape.architecture == "OPTForCausalLM":
        sizes |= {"ffn_dim": shape.intermediate, "word_embed_proj_dim": shape.hidden}
    if shape.architecture == "GPT2LMHeadModel":
        sizes |= {"n_positions": shape.context, "n_inner": shape.intermediate}
    model_class = getattr(transformers, shape.architecture)
    with torch.device("meta"):
        model = model_class(model_class.config_class(**sizes))
    assert sum(weight.numel() for weight in model.parameters()) == shape.parameters
    assert count_parameters(shape) == pytest.approx(shape.parameters, rel=2e-3)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma", "gemma2", "gemma3", "opt", "gpt2", "qwen2", "qwen3"])
def test_shape_of_a_folder_is_that_of_its_model(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_tiny(family, tmp_path / family)
    shape, model = shape_of_folder(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    cache = model(model.dummy_inputs["input_ids"], use_cache=True).past_key_values
    tokens = model.dummy_inputs["input_ids"].numel()
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert 4 * held == tokens * kv_bytes_per_token(shape, "float32")


def test_a_folder_without_weights_is_counted_from_its_sizes(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "tiny")
    counted = shape_of_folder(folder).parameters
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    assert shape_of_folder(folder).parameters == pytest.approx(counted, rel=0.05)


def test_broken_folders(tmp_path: Path) -> None:
    folder = make_tiny("llama", tmp_path / "tiny")
    cut, sizeless, garbled = (shutil.copytree(folder, tmp_path / name) for name in ("cut", "sizeless", "garbled"))
    next(cut.glob("*.safetensors")).write_bytes(b"\x10\x00")
    (sizeless / "config.json").write_text('{"vocab_size": 5}', encoding="utf-8")
    (garbled / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        shape_of_folder(cut)
    for broken in (sizeless, garbled):
        with pytest.raises(ModelError, match="does not describe a decoder"):
            shape_of_folder(broken)


def test_a_model_of_the_workspace_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    make_tiny("qwen2", tmp_path / "checkpoints" / "mine")
    assert find_shape("mine").architecture == "Qwen2ForCausalLM"
