"""Tiny random models: whole architectures of real families, the same for the same seed, with a tokenizer that holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labsupport.errors import ParameterError
from labsupport.models import load, load_tokenizer
from labsupport.models.tiny import FAMILIES, VOCABULARY, byte_tokenizer, make_tiny, tiny_config
from labsupport.workspace import sha256

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "opt": "OPTForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_is_its_own_class_and_speaks(family: str, tmp_path: Path) -> None:
    model, tokenizer = load(make_tiny(family, tmp_path / family))
    assert type(model).__name__ == CLASSES[family]
    assert model.dtype == torch.float32
    assert not model.training
    with torch.no_grad():
        logits = model(**tokenizer("The capital of France is", return_tensors="pt")).logits
    assert logits.shape == (1, 24, VOCABULARY)
    assert 0.5 < logits.std() < 5  # neither flat nor one-hot
    assert len(set(logits[0].argmax(-1).tolist())) > 3  # does not repeat one token


@pytest.mark.parametrize("family", FAMILIES)
def test_norms_and_biases_are_random_too(family: str, tmp_path: Path) -> None:
    model, _ = load(make_tiny(family, tmp_path / family))
    assert all(parameter.std() > 0.05 for parameter in model.parameters())


def test_the_seed_decides(tmp_path: Path) -> None:
    digests = [
        sha256(make_tiny("llama", tmp_path / name, seed=seed) / "model.safetensors")
        for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_random_state_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    make_tiny("opt", tmp_path / "opt")
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("family", FAMILIES)
def test_common_names_reach_every_family(family: str) -> None:
    config = tiny_config(family, hidden_size=128, intermediate_size=320, num_hidden_layers=2, num_attention_heads=4)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 2, 4)
    assert 320 in (getattr(config, name, None) for name in ("intermediate_size", "n_inner", "ffn_dim"))


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma2", "qwen3"])
def test_an_overridden_shape_loads(family: str, tmp_path: Path) -> None:
    folder = make_tiny(family, tmp_path / family, hidden_size=96, num_attention_heads=12, num_hidden_layers=3)
    model, tokenizer = load(folder)
    assert model(**tokenizer("Paris", return_tensors="pt")).logits.shape == (1, 5, VOCABULARY)


@pytest.mark.parametrize(
    ("family", "overrides", "what"),
    [
        ("bert", {}, "family 'bert'"),
        ("llama", {"n_layer": 3}, "no setting 'n_layer'"),
        ("gpt2", {"num_key_value_heads": 2}, "no setting 'num_key_value_heads'"),
        ("llama", {"vocab_size": 100}, "vocab_size 100"),
        ("llama", {"hidden_size": 66}, "hidden_size 66 with 8 heads"),
        ("llama", {"num_key_value_heads": 3}, "8 heads with 3 key-value heads"),
    ],
)
def test_what_does_not_go_together_is_said(family: str, overrides: dict[str, int], what: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=what):
        make_tiny(family, tmp_path / "never", **overrides)
    assert list(tmp_path.iterdir()) == []


@given(st.text())
def test_the_byte_tokenizer_gives_every_text_back(text: str) -> None:
    tokenizer = byte_tokenizer(512)
    ids = tokenizer(text.replace("<", "")).input_ids
    assert tokenizer.decode(ids) == text.replace("<", "")
    assert len(ids) == len(text.replace("<", "").encode())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokenizer_is_the_same_in_every_family(family: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tiny(family, tmp_path / family))
    assert tokenizer("é").input_ids == byte_tokenizer(512)("é").input_ids
    assert tokenizer.decode(tokenizer("tokens 123 🙂").input_ids) == "tokens 123 🙂"
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == (
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
