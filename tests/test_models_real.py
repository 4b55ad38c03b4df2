"""The real model, as the labs use it: SmolLM2-135M-Instruct."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from labsupport.models import DEFAULT_MODEL, fetch, is_present, load
from labsupport.workspace import read_record

pytestmark = pytest.mark.real_model
TEXTS = ["The capital of France is", "Größe 🙂  two  spaces\n\ttabs", "12345 + 3.14", "日本語 don't <|im_end|>"]


@pytest.fixture(scope="module")
def real() -> tuple[Any, Any]:
    return load(DEFAULT_MODEL)


def answer(model: Any, tokenizer: Any, prompt: str, tokens: int) -> str:
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    ids = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
    text: str = tokenizer.decode(ids[0, inputs.input_ids.shape[1] :])
    return text


def test_it_knows_the_capital_of_france(real: tuple[Any, Any]) -> None:
    assert answer(*real, "The capital of France is", 1) == " Paris"


def test_it_chats_and_stops(real: tuple[Any, Any]) -> None:
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = real[1].apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert prompt.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    said = answer(*real, prompt, 40)
    assert "Paris" in said
    assert said.endswith("<|im_end|>")


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokenizer_gives_texts_back(text: str, real: tuple[Any, Any]) -> None:
    ids = real[1](text).input_ids
    assert real[1].decode(ids) == text
    assert 1 not in ids  # it adds no beginning-of-sequence token by itself


def test_numbers_are_read_digit_by_digit(real: tuple[Any, Any]) -> None:
    assert real[1].tokenize("in 2024") == ["in", "Ġ", "2", "0", "2", "4"]


def test_the_settings_are_those_of_the_published_model(real: tuple[Any, Any]) -> None:
    model, tokenizer = real
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.float32
    assert model.config.rope_parameters == {"rope_theta": 100_000.0, "rope_type": "default"}
    assert model.config.tie_word_embeddings
    assert model.config.rms_norm_eps == 1e-5
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert tokenizer.convert_ids_to_tokens(model.generation_config.eos_token_id) == ["<|im_end|>", "<|endoftext|>"]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == ("<|im_end|>", "<|im_end|>", 8192)
    assert tokenizer.is_fast


def test_an_older_transformers_reads_the_same_facts() -> None:
    config = json.loads((fetch(DEFAULT_MODEL) / "config.json").read_text())
    assert (config["rope_theta"], config["torch_dtype"]) == (100_000.0, "float32")
    tokenizer = json.loads((fetch(DEFAULT_MODEL) / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "add_generation_prompt" in tokenizer["chat_template"]


def test_the_record_is_honest_about_the_precision() -> None:
    record = read_record(fetch(DEFAULT_MODEL))
    assert record is not None
    assert record["published_precision"]["tensors"] == {"Q4_1": 210, "Q8_0": 1, "F32": 61}
    assert record["stored_precision"].startswith("float32, dequantized")


def test_q4_1_weights_stand_on_16_steps_in_each_block_of_32(real: tuple[Any, Any]) -> None:
    blocks = real[0].model.layers[0].mlp.down_proj.weight.detach().reshape(-1, 32)[:500]
    assert max(len(block.unique()) for block in blocks) <= 16


def test_gemma_where_its_terms_were_accepted() -> None:
    if not is_present("gemma-3-270m"):
        pytest.skip("gemma-3-270m is not in the workspace (labs fetch gemma-3-270m --accept-terms)")
    model, tokenizer = load("gemma-3-270m")
    assert type(model).__name__ == "Gemma3ForCausalLM"
    assert tokenizer("France").input_ids[0] == 2  # <bos>, added once by the tokenizer
    assert "France" in answer(model, tokenizer, "<bos>Paris is the capital of", 3)
