"""What a planted fault is, and the bench that it is planted in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labsupport.engine import EagerModel, ExecutorConfig, Limits
from labsupport.validation.mutations.remembering import RememberingModel, RememberingReference
from labsupport.validation.target import Facts, Target
from labsupport.validation.targets.served import ServedTarget, TextHalf

if TYPE_CHECKING:
    from labsupport.engine.protocol import Model


class Bench:
    """A healthy server in this process, and its reference; made once, mutated many times.

    Args:
        checkpoint: a float32 TensorRT-LLM checkpoint of the model, run layer by layer on the paged cache.
        source: the original model, the reference's.
    """

    def __init__(self, checkpoint: Path, source: Path) -> None:
        self.checkpoint, self.source = checkpoint, source
        self.facts = Facts("our server, in this process", "engine", page=32)

    @cached_property
    def reference(self) -> RememberingReference:
        """The original model in float32."""
        return RememberingReference(str(self.source))

    @cached_property
    def half(self) -> TextHalf:
        """The Python models, on the original tokenizer."""
        return TextHalf(self.source)

    @cached_property
    def model(self) -> EagerModel:
        """The network on its paged cache; faults exchange its parts for a while."""
        return EagerModel(self.checkpoint, tokens_per_block=self.facts.page or 32, max_rows=self.facts.batch)

    @cached_property
    def remembered(self) -> RememberingModel:
        """The healthy model for all faults above it."""
        return RememberingModel(self.model)

    def target(
        self, model: Model | None = None, *, facts: Facts | None = None, config: ExecutorConfig | None = None,
        limits: Limits | None = None,
    ) -> ServedTarget:  # fmt: skip
        """A fresh server; by default on the remembered healthy model."""
        return ServedTarget(
            self.half, model or self.remembered, facts or self.facts, config=config, limits=limits,
            vocabulary=self.model.vocab_size,
        )  # fmt: skip

    def fresh(self, **changed: Any) -> ServedTarget:
        """A server on the model as it is now, its logits remembered for this server alone.

        Args:
            changed: fields of ``Facts``.
        """
        return self.target(RememberingModel(self.model), facts=replace(self.facts, **changed))

    def raw(self, **how: Any) -> ServedTarget:
        """A server that computes everything, for what depends on the batch or the cache."""
        return self.target(self.model, **how)

    def close(self) -> None:
        """End what runs."""
        if "half" in vars(self):
            self.half.close()


Plant = Callable[[Bench], AbstractContextManager[Target]]


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Args:
        id: M01 to M45.
        title: what is wrong.
        level: the level that must name it, fixed before anything was measured.
        where: the component that holds it.
        plant: a server with the fault, while the context lasts.
        size: which of several sizes of the same fault; "" where it has one.
        note: where SmolLM2 forces another form than the list's.
        measured: counts for the mutation score; other sizes make the detection curve.
    """

    id: str
    title: str
    level: str
    where: str
    plant: Plant
    size: str = ""
    note: str = ""
    measured: bool = True

    @property
    def name(self) -> str:
        """With its size."""
        return f"{self.id}@{self.size}" if self.size else self.id


@contextmanager
def swapped(owner: Any, **values: Any) -> Iterator[None]:
    """Exchange attributes of an object or a module, and put them back."""
    before = {name: vars(owner).get(name, _ABSENT) for name in values}
    for name, value in values.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


_ABSENT = object()


def above(change: Callable[[Bench], AbstractContextManager[None]]) -> Plant:
    """A fault above the model: the remembered healthy model answers."""

    @contextmanager
    def plant(bench: Bench) -> Iterator[Target]:
        with change(bench):
            yield bench.target()

    return plant


def within(change: Callable[[Bench], AbstractContextManager[None]], **facts: Any) -> Plant:
    """A fault of the network: a model that is computed anew."""

    @contextmanager
    def plant(bench: Bench) -> Iterator[Target]:
        with change(bench):
            yield bench.fresh(**facts)

    return plant


def around(change: Callable[[Bench], AbstractContextManager[None]]) -> Plant:
    """A fault of the cache or the batch: nothing is remembered."""

    @contextmanager
    def plant(bench: Bench) -> Iterator[Target]:
        with change(bench):
            yield bench.raw()

    return plant
