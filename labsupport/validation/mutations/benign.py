"""B01 to B15: what may differ without being wrong. An alarm on one of these is a false one.

Ours is a packed, paged engine, so padding (B03) has the form of a longer table; TensorRT and another type of weights
need an engine of their own and are left to ``labs validate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from labsupport.engine import EagerModel, ExecutorConfig, KvCacheConfig, Limits, sequences
from labsupport.repository.models.preprocessing.prompts import messages_in
from labsupport.validation.levels.l1_template import by_hand
from labsupport.validation.mutations.cache import Around, _int8_cache
from labsupport.validation.mutations.fault import Bench, swapped
from labsupport.validation.mutations.remembering import RememberingModel
from labsupport.validation.target import Answer, Ask, Message, Target, Wrapped
from labsupport.validation.targets.huggingface import HuggingFaceTarget


@dataclass(frozen=True)
class Benign:
    """A harmless variation: its id, what varies, and a server that has it."""

    id: str
    title: str
    make: Callable[[Bench], AbstractContextManager[Target]]


class Reversed(Wrapped):
    """Requests arrive in another order."""

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """The last one first."""
        return self.inner.generate(asks[::-1])[::-1]


class OneByOne(Wrapped):
    """Requests arrive one after the other."""

    def generate(self, asks: Sequence[Ask]) -> list[Answer]:
        """Each alone."""
        return [self.inner.generate([ask])[0] for ask in asks]


def _served(**how: Any) -> Callable[[Bench], AbstractContextManager[Target]]:
    return lambda bench: nullcontext(bench.raw(**how))


def _batch(size: int) -> Callable[[Bench], AbstractContextManager[Target]]:
    return _served(limits=Limits(max_batch_size=size))


def _pages(size: int) -> Callable[[Bench], AbstractContextManager[Target]]:
    def make(bench: Bench) -> AbstractContextManager[Target]:
        model = EagerModel(bench.checkpoint, tokens_per_block=size, max_rows=8)
        return nullcontext(bench.target(RememberingModel(model), facts=replace(bench.facts, page=size)))

    return make


@contextmanager
def _wider_tables(bench: Bench) -> Iterator[Target]:
    """Tables are filled up with the scratch block, as rows of a longer batch are."""
    model = bench.model

    def generation(cache: Any, tokens: Any, positions: Any, tables: Sequence[Sequence[int]]) -> Any:
        return model.generation(cache, tokens, positions, [[*table, 0, 0] for table in tables])

    yield bench.target(Around(model, generation=generation))


def _compiled(bench: Bench) -> AbstractContextManager[Target]:
    from labsupport.engine import Engine
    from labsupport.workspace import Workspace

    return nullcontext(bench.target(Engine(Workspace.current().engines / bench.source.name / bench.checkpoint.name)))


def _transformers(bench: Bench) -> AbstractContextManager[Target]:
    return nullcontext(HuggingFaceTarget(bench.reference.model, bench.reference.tokenizer, bench.source.name))


@contextmanager
def _threads(bench: Bench) -> Iterator[Target]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3 - min(2, before))
    try:
        yield bench.raw()
    finally:
        torch.set_num_threads(before)


@contextmanager
def _highest_of_equals(bench: Bench) -> Iterator[Target]:
    """Among equal logits the highest id wins."""

    class Last:
        @staticmethod
        def argmax(row: Any) -> int:
            return int(len(row) - 1 - np.argmax(row[::-1]))

        def __getattr__(self, name: str) -> Any:
            return getattr(np, name)

    with swapped(sequences, np=Last()):
        yield bench.target()


@contextmanager
def _shifted(bench: Bench) -> Iterator[Target]:
    """All logits larger by the same number."""
    model = bench.remembered

    def plus(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **how: call(*given, **how) + np.float32(3.0)

    yield bench.target(Around(model, context=plus(model.context), generation=plus(model.generation)))


@contextmanager
def _other_renderer(bench: Bench) -> Iterator[Target]:
    """The template is rendered by other code, to the same ids."""
    pre = bench.half.pre
    honest = type(pre).ids

    def ids(row: Any) -> list[int]:
        text = row[0]
        chat = messages_in(text.decode() if isinstance(text, bytes) else text)
        if chat is None or chat[-1]["role"] == "assistant":
            return list(honest(pre, row))
        return list(by_hand(pre.tokenizer, tuple(Message(turn["role"], turn["content"]) for turn in chat)))

    with swapped(pre, ids=ids):
        yield bench.target()


@contextmanager
def _int8(bench: Bench) -> Iterator[Target]:
    """An int8 KV cache with a fresh scale, declared."""
    with _int8_cache(1.0)(bench):
        yield bench.fresh(quantization="KV INT8")


BENIGN = (
    Benign("B01", "batch of 1", _batch(1)),
    Benign("B01", "batch of 4", _batch(4)),
    Benign("B02", "another order", lambda bench: nullcontext(Reversed(bench.raw()))),
    Benign("B03", "tables filled up", _wider_tables),
    Benign("B04", "compiled, not eager", _compiled),
    Benign("B05", "another number of threads", _threads),
    Benign("B06", "pages of 8", _pages(8)),
    Benign("B06", "pages of 64", _pages(64)),
    Benign("B07", "chunked prefill", _served(limits=Limits(max_num_tokens=40))),
    Benign("B08", "int8 KV cache, declared", _int8),
    Benign("B09", "one by one", lambda bench: nullcontext(OneByOne(bench.target()))),
    Benign("B10", "restarted, no block reuse",
           _served(config=ExecutorConfig(kv_cache_config=KvCacheConfig(enable_block_reuse=False)))),
    Benign("B12", "highest id among equals", _highest_of_equals),
    Benign("B13", "another dialect, declared", _transformers),
    Benign("B14", "logits plus 3", _shifted),
    Benign("B15", "another renderer", _other_renderer),
)  # fmt: skip
"""Each runs the whole ladder. B11, new seeds, is run many times: ``matrix.run_seeds``."""
