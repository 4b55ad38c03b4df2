"""What comes back: chunks, each with the time of its arrival, and the answer that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from numpy.typing import NDArray

BROKEN = "\ufffd"


@dataclass(frozen=True)
class Chunk:
    """One response.

    Args:
        texts: what is new in the text; where there are beams, the whole text of each, best first.
        at: when it was taken from the connection: seconds of ``time.perf_counter``.
        tensors: all other outputs by name, without the batch dimension: log-probs, logits, metrics, token ids. HTTP
            flattens them.
        sequence: which of ``num_return_sequences`` it belongs to.
    """

    texts: tuple[str, ...]
    at: float
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    sequence: int = 0

    @property
    def text(self) -> str:
        """The text of the first beam."""
        return self.texts[0] if self.texts else ""

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids, where the model ``tensorrt_llm`` was asked."""
        if "output_ids" not in self.tensors:
            return ()
        count = int(self.tensors["sequence_length"].flat[0])
        ids = self.tensors["output_ids"]
        return tuple(int(id) for id in ids.reshape(-1, ids.shape[-1])[0, :count])


@dataclass(frozen=True)
class Answer:
    """A whole answer, with its timings in seconds.

    Args:
        chunks: in the order of their arrival.
        sent: when the request was sent, on the clock of ``Chunk.at``.
        ended: when the server said that no more comes.
        cancelled: the answer was cut short from this side.
    """

    chunks: tuple[Chunk, ...]
    sent: float
    ended: float
    cancelled: bool = False

    @property
    def text(self) -> str:
        """The text; of several beams or sequences the first."""
        return self.texts[0]

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts: beams best first, or one for each of ``num_return_sequences``."""
        of: dict[int, list[Chunk]] = {}
        for chunk in self.chunks:
            of.setdefault(chunk.sequence, []).append(chunk)
        if any(len(chunk.texts) > 1 for chunk in self.chunks):
            return self.chunks[-1].texts
        return tuple("".join(chunk.text for chunk in chunks) for _, chunks in sorted(of.items())) or ("",)

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids, where the model ``tensorrt_llm`` was asked."""
        return tuple(id for chunk in self.chunks for id in chunk.ids)

    @property
    def ttft(self) -> float:
        """Time to first token: from sending to the first chunk with content."""
        first = next((c for c in self.chunks if c.text or c.ids), self.chunks[0] if self.chunks else None)
        return (first.at if first else self.ended) - self.sent

    @property
    def gaps(self) -> tuple[float, ...]:
        """From each chunk to the next."""
        return tuple(after.at - before.at for before, after in pairwise(self.chunks))

    @property
    def seconds(self) -> float:
        """From sending to the end."""
        return self.ended - self.sent


class Growing:
    """New text out of texts that grow, as NVIDIA's BLS streams them with ``accumulate_tokens``.

    A piece that ends in U+FFFD ends in half a character, which the next piece replaces: that part is held back.
    """

    def __init__(self) -> None:
        self._shown = ""

    def new(self, texts: Sequence[str]) -> tuple[str, ...]:
        """What ``texts`` says beyond the last call. Beams are returned whole."""
        if len(texts) != 1:
            return tuple(texts)
        whole = texts[0].rstrip(BROKEN)
        fresh = whole[len(self._shown) :] if whole.startswith(self._shown) else ""
        self._shown += fresh
        return (fresh,)
