"""Work that many runs share: a model and a reference that remember logits by the tokens in front of them.

A fault above the model (template, sampler, detokenizer) leaves its logits alone, so they are computed once for all such
faults. Faults that depend on the batch or the cache run without this: it would hide them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from labsupport.engine.protocol import Logits, Model
from labsupport.validation.reference import Reference

ROWS = 6_000  # rows of logits that are kept: 1.2 GB for a vocabulary of 49,152

Place = tuple[int, int]


@dataclass
class _Pool:
    """The inner cache, which token stands at each place of it, and which places were really computed."""

    inner: Any
    token: dict[Place, int] = field(default_factory=dict)
    real: set[Place] = field(default_factory=set)


class RememberingModel:
    """A ``Model`` that computes the logits behind a chain of tokens once.

    Args:
        model: what computes. It must be one whose logits depend on the chain of tokens alone.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.vocab_size, self.tokens_per_block, self.max_rows = model.vocab_size, model.tokens_per_block, model.max_rows
        self._known: dict[bytes, Logits] = {}

    def new_cache(self, blocks: int) -> _Pool:
        """The inner model's pools, and what is known of them."""
        return _Pool(self.model.new_cache(blocks))

    def copy_blocks(self, cache: _Pool, pairs: Sequence[tuple[int, int]]) -> None:
        """As the inner model; only beams need it."""
        for source, target in pairs:
            for offset in range(self.tokens_per_block):
                if (source, offset) in cache.token:
                    cache.token[target, offset] = cache.token[source, offset]
                cache.real.discard((target, offset))
        self.model.copy_blocks(cache.inner, pairs)

    def context(
        self, cache: _Pool, tokens: Sequence[int], start: int, table: Sequence[int], *, every: bool = False
    ) -> Logits:
        """As the inner model, or from memory."""
        chain = self._write(cache, tokens, start, table)
        key = np.array(chain, np.int32).tobytes()
        if key in self._known and not every:
            return self._known[key]
        first = self._first_missing(cache, table, start)
        logits = self.model.context(cache.inner, chain[first:], first, table, every=every)
        cache.real.update(self._places(table, first, len(chain)))
        return logits[start - first :] if every else self._keep(key, logits)

    def generation(
        self, cache: _Pool, tokens: Sequence[int], positions: Sequence[int], tables: Sequence[Sequence[int]]
    ) -> Logits:
        """As the inner model; only rows that are not known run."""
        chains = [
            self._write(cache, [token], at, table) for token, at, table in zip(tokens, positions, tables, strict=True)
        ]
        keys = [np.array(chain, np.int32).tobytes() for chain in chains]
        missing = [row for row, key in enumerate(keys) if key not in self._known]
        for row in missing:
            first, table = self._first_missing(cache, tables[row], positions[row]), tables[row]
            if first < positions[row]:
                self.model.context(cache.inner, chains[row][first:-1], first, table)
                cache.real.update(self._places(table, first, positions[row]))
        found = {}
        if missing:
            rows = self.model.generation(
                cache.inner,
                [tokens[row] for row in missing],
                [positions[row] for row in missing],
                [tables[row] for row in missing],
            )
            for row, logits in zip(missing, rows, strict=True):
                cache.real.update(self._places(tables[row], positions[row], positions[row] + 1))
                found[row] = self._keep(keys[row], logits)
        return np.stack([found[row] if row in found else self._known[key] for row, key in enumerate(keys)])

    def _write(self, cache: _Pool, tokens: Sequence[int], start: int, table: Sequence[int]) -> list[int]:
        before = [cache.token[place] for place in self._places(table, 0, start)]
        for place, token in zip(self._places(table, start, start + len(tokens)), tokens, strict=True):
            cache.token[place] = token
            cache.real.discard(place)
        return [*before, *tokens]

    def _places(self, table: Sequence[int], start: int, end: int) -> list[Place]:
        size = self.tokens_per_block
        return [(table[position // size], position % size) for position in range(start, end)]

    def _first_missing(self, cache: _Pool, table: Sequence[int], end: int) -> int:
        places = self._places(table, 0, end)
        return next((position for position, place in enumerate(places) if place not in cache.real), end)

    def _keep(self, key: bytes, logits: Logits) -> Logits:
        row = np.array(logits)
        if len(self._known) < ROWS:
            self._known[key] = row
        return row


class RememberingReference(Reference):
    """A reference that reads each prompt once, and each chain of tokens once."""

    def __init__(self, model: str, twin: str = "float32") -> None:
        super().__init__(model, twin)
        self._rows: dict[bytes, Logits] = {}
        self._read: dict[bytes, Any] = {}

    def logits(self, prompt: Sequence[int], output: Sequence[int]) -> Logits:
        """float32 [len(output), V], as the plain reference gives them."""
        chain = np.array([*prompt, *output[:-1]], np.int32)
        keys = [chain[: len(prompt) + place].tobytes() for place in range(len(output))]
        if not all(key in self._rows for key in keys):
            rows = self._compute(prompt, output)
            if len(self._rows) + len(keys) > ROWS:
                return rows
            self._rows.update(zip(keys, rows, strict=True))
        return np.stack([self._rows[key] for key in keys])

    def _compute(self, prompt: Sequence[int], output: Sequence[int]) -> Logits:
        import torch

        key = np.array(prompt, np.int32).tobytes()
        with torch.inference_mode():
            if key not in self._read:
                done = self.model(input_ids=torch.tensor([list(prompt)]), use_cache=True, logits_to_keep=1)
                self._read[key] = done.past_key_values, done.logits[0].numpy()
            past, first = self._read[key]
            if len(output) == 1:
                return np.array(first)
            ids = torch.tensor([list(output[:-1])])
            rows = self.model(input_ids=ids, past_key_values=past, use_cache=True).logits[0].numpy()
            past.crop(1 - len(output))
        return np.concatenate([first, rows])
