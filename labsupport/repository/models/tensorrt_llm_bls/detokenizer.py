"""Incremental detokenization: the pieces, joined, are exactly the decode of all ids."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
BROKEN = "\ufffd"


class Detokenizer:
    """Token ids in, new text out.

    Decoding a token alone loses what depends on its neighbors: SentencePiece drops the space before a first word, and a
    character may span several tokens. So a window is decoded, the last piece that was given out and all ids since, and
    what it says beyond that piece is new. Three things are held back until the next ids, or ``finish``, settle them:

    - a text that ends in U+FFFD: the rest of a character is still to come;
    - a run of byte tokens (``<0xE2>``): one invalid byte at its end turns the whole run into U+FFFD;
    - a window that no longer begins with the last piece.

    Args:
        tokenizer: a Hugging Face tokenizer.
        skip_special_tokens: leave out BOS, end of turn, and the like.
    """

    def __init__(self, tokenizer: Any, skip_special_tokens: bool = True) -> None:
        self.tokenizer = tokenizer
        self.skip = skip_special_tokens
        self.unseen = _unseen(tokenizer) if skip_special_tokens else frozenset()
        self.ids: list[int] = []
        self.text = ""
        self._start = 0  # where the last piece begins
        self._end = 0  # where it ends: ids from here on are not in the text yet
        self._piece = ""  # the last piece, decoded alone

    def push(self, ids: Iterable[int]) -> str:
        """Take more ids; return the text that is now certain, often "" in the middle of a character."""
        self.ids.extend(id for id in ids if id not in self.unseen)
        if len(self.ids) == self._end or self._in_bytes():
            return ""
        window = self._decode(self.ids[self._start :])
        if window.endswith(BROKEN) or not window.startswith(self._piece):
            return ""
        return self._give(window[len(self._piece) :])

    def finish(self) -> str:
        """The rest: what was held back, as the decode of all ids has it."""
        if len(self.ids) == self._end:
            return ""
        whole = self._decode(self.ids)
        rest = whole[len(self.text) :] if whole.startswith(self.text) else ""
        return self._give(rest)

    def _give(self, new: str) -> str:
        fresh = self._decode(self.ids[self._end :])
        if fresh:  # an empty piece cannot say whether the next word is the first one
            self._start, self._piece = self._end, fresh
        else:
            self._piece = self._decode(self.ids[self._start :])
        self._end = len(self.ids)
        self.text += new
        return new

    def _in_bytes(self) -> bool:
        token = self.tokenizer.convert_ids_to_tokens(self.ids[-1])
        return isinstance(token, str) and BYTE.fullmatch(token) is not None

    def _decode(self, ids: list[int]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=self.skip, clean_up_tokenization_spaces=False)
        return str(text)


def _unseen(tokenizer: Any) -> frozenset[int]:
    """The ids that decode to nothing when special tokens are skipped."""
    added = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | {id for id in tokenizer.all_special_ids if id is not None}
    return frozenset(id for id in special if not tokenizer.decode([id], skip_special_tokens=True))
