"""What a client sends as text -> token ids: plain text, or chat messages as JSON, with exactly one BOS."""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]


def messages_in(text: str) -> list[Message] | None:
    """The chat messages that ``text`` holds as a JSON list, or None where it is plain text.

    Example:
        >>> messages_in('[{"role": "user", "content": "Hi"}]')
        [{'role': 'user', 'content': 'Hi'}]
        >>> messages_in("[1, 2, 3] is a list") is None
        True
    """
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    chat = (
        isinstance(found, list)
        and found
        and all(isinstance(m, dict) and {"role", "content"} <= m.keys() for m in found)
    )
    return found if chat else None


def encode(tokenizer: Any, text: str, add_special_tokens: bool = True) -> list[int]:
    """Token ids of a prompt.

    Chat messages go through the chat template, which writes its own special tokens. A text that went through it
    already, at the client, begins with BOS and gets no second one. An empty prompt starts from BOS, or the end token.

    Raises:
        ValueError: chat messages, and the tokenizer has no chat template, or one that cannot render them.
    """
    chat = messages_in(text)
    if chat is not None:
        text, add_special_tokens = _rendered(tokenizer, chat), False
    ids = list(tokenizer.encode(text, add_special_tokens=add_special_tokens))
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        del ids[0]
    if not ids:
        start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        ids = [] if start is None else [start]
    return [int(id) for id in ids]


def _rendered(tokenizer: Any, chat: list[Message]) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError("text_input holds chat messages, and the tokenizer has no chat template: send plain text")
    answers = chat[-1]["role"] == "assistant"  # then the model goes on with these words
    how = {"continue_final_message": True} if answers else {"add_generation_prompt": True}
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, **how))
    except Exception as problem:  # whatever a template raises
        raise ValueError(
            f"the chat template cannot render the messages in text_input ({problem}): "
            "each needs a role and a content, both text"
        ) from None
