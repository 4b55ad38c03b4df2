"""Stop words found in the text, whatever tokens they came in."""

from __future__ import annotations

from collections.abc import Iterable


class Stopper:
    """Finds the first stop word in a text that grows.

    The engine compares token ids, so it misses a word that the model spells with other tokens. The text does not lie.

    Args:
        words: the stop words; empty ones are left out.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = [word for word in words if word]
        self._longest = max(map(len, self.words), default=0)
        self._seen = 0

    def cut(self, text: str) -> int | None:
        """Where ``text`` ends with its first stop word, or None. ``text`` begins with what was given before."""
        start = max(0, self._seen - self._longest + 1)
        self._seen = len(text)
        ends = [found + len(word) for word in self.words if (found := text.find(word, start)) >= 0]
        return min(ends, default=None)
