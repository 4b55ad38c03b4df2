"""The Gemma-like tokenizer: its ids, its BOS, its template, and the trap that the two set together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from labsupport.models.gemma_like import SPECIAL, gemma_like_tokenizer

TOKENIZER = gemma_like_tokenizer()
CHAT = [{"role": "user", "content": " hi "}, {"role": "assistant", "content": "yes"}]


def test_special_tokens_have_the_ids_of_gemma_3():
    assert {token: TOKENIZER.convert_tokens_to_ids(token) for token in SPECIAL} == SPECIAL


def test_it_adds_a_bos_and_can_be_asked_not_to():
    assert TOKENIZER("hi").input_ids[0] == 2
    assert 2 not in TOKENIZER("hi", add_special_tokens=False).input_ids


def test_the_template_holds_a_bos_and_calls_the_assistant_model():
    text = TOKENIZER.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\nyes<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_templated_string_gets_two_unless_told_not_to():
    text = TOKENIZER.apply_chat_template(CHAT, tokenize=False)
    assert TOKENIZER(text).input_ids[:3] == [2, 2, 105]
    assert TOKENIZER.apply_chat_template(CHAT)["input_ids"] == TOKENIZER(text, add_special_tokens=False).input_ids


@given(st.text())
def test_any_text_comes_back(text):
    ids = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True).input_ids
    assert TOKENIZER.decode(ids) == text
