"""One answer on its way to the client: what the engine sends, turned into what the client gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
INNER = ("output_ids", "sequence_length")


class Answer:
    """The state of one sequence, over all responses of the engine.

    A stream of one beam brings new tokens in each response. With several beams each response brings all beams whole,
    because beams change their past; so does the one response of a request that does not stream.

    Args:
        detokenizer, stopper: make a fresh one.
        prompt: what stands before the answer, where the client wants its prompt back.
        beams: how many the client asked for.
        streaming: whether it gets the answer in pieces.
        batch_index: which prompt of a batch this is; None where there is only one.
    """

    def __init__(
        self,
        detokenizer: Callable[[], Any],
        stopper: Callable[[], Any],
        *,
        prompt: str = "",
        beams: int = 1,
        streaming: bool = False,
        batch_index: int | None = None,
    ) -> None:
        self._new = detokenizer, stopper
        self._words, self._stops = detokenizer(), stopper()
        self.prompt, self.beams, self.batch_index = prompt, beams, batch_index
        self.grows = streaming and beams == 1
        self.ended = False  # a stop word was found: what the engine still sends is not for the client
        self.carries_more = False  # the last response has log-probs, logits or metrics that must not be lost
        self._texts, self._news = [""] * beams, [""] * beams
        self._more: dict[str, Array] = {}

    def take(self, tensors: Mapping[str, Array]) -> str:
        """Take a response of the engine, and return what is new in the text of the first beam."""
        self._more = {name: array for name, array in tensors.items() if name not in INNER}
        self.carries_more = any(np.any(array) for name, array in self._more.items() if name != "sequence_index")
        if "output_ids" not in tensors:
            self._news = [""] * self.beams
            return ""
        ids, lengths = tensors["output_ids"], tensors["sequence_length"]
        rows = [[int(id) for id in row[:n]] for row, n in zip(ids.reshape(-1, ids.shape[-1]), lengths.flat)]
        if self.grows:
            self._grow(self._words.push(rows[0]))
        else:
            self._texts = self._news = [self._whole(row) for row in rows]
        return self._news[0]

    def finish(self) -> None:
        """No more comes: what was held back is given out."""
        self._more = {name: array for name, array in self._more.items() if not self.grows or name == "sequence_index"}
        if self.grows and not self.ended:
            self._grow(self._words.finish())
        elif self.grows:
            self._news = [""]

    def tensors(self, cumulative: bool) -> dict[str, Array]:
        """The response to the client: its text, and whatever else came with the engine's last response."""
        texts = self._texts if cumulative or not self.grows else self._news
        out = {"text_output": np.array([[(self.prompt + text).encode() for text in texts]], np.object_), **self._more}
        if self.batch_index is not None:
            out["batch_index"] = np.array([[self.batch_index]], np.int32)
        return out

    def _grow(self, new: str) -> None:
        before, whole = self._texts[0], self._texts[0] + new
        end = self._stops.cut(whole)
        if end is not None:
            self.ended, whole = True, whole[:end]
        self._texts, self._news = [whole], [whole[len(before) :]]

    def _whole(self, ids: list[int]) -> str:
        make_detokenizer, make_stopper = self._new
        words = make_detokenizer()
        text = str(words.push(ids) + words.finish())
        return text[: make_stopper().cut(text)]
