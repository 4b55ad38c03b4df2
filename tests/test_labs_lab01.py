"""What lab 01's checks take for given is true of the real tokenizer."""

from __future__ import annotations

import numpy as np
import pytest

from labsupport.labs.checks.lab01 import COUNTS, attend, encode
from labsupport.models import DEFAULT_MODEL, load_tokenizer


@pytest.mark.real_model
def test_the_token_counts_are_those_of_the_default_tokenizer():
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    assert {text: len(tokenizer(text).input_ids) for text in COUNTS} == COUNTS


@pytest.mark.real_model
def test_encode_gives_what_the_library_gives_for_a_chat_in_one_step():
    tokenizer = load_tokenizer(DEFAULT_MODEL)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    assert encode(tokenizer, chat) == tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]


def test_attend_is_torch_attention_of_the_last_token():
    import torch

    random = np.random.default_rng(1)
    q, k, v = random.normal(size=(6, 8)), random.normal(size=(2, 5, 8)), random.normal(size=(2, 5, 8))
    tensors = [torch.tensor(part) for part in (q[:, None], np.repeat(k, 3, 0), np.repeat(v, 3, 0))]
    assert np.allclose(attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(*tensors)[:, 0].numpy())
