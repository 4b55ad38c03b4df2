"""Targets for tests: a tiny model behind our engine's executor, and its reference; each made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from checkpoints_made import converted, tiny

from labsupport.engine import EagerModel
from labsupport.models import load_tokenizer
from labsupport.validation.material import Budget, Material
from labsupport.validation.reference import Reference
from labsupport.validation.target import Facts, Target
from labsupport.validation.targets.engine import EngineTarget

SMALL = Budget(
    greedy=6, greedy_tokens=16, sampled=10, sampled_tokens=24, flat=3, flat_tokens=40, tasks=8, task_tokens=6,
    mmd=4, mmd_samples=6, mmd_tokens=6, relations=2, crowd=40,
)  # fmt: skip


@cache
def model_folder() -> Path:
    """A Llama of four layers with random weights, and a vocabulary of bytes."""
    return tiny("llama")


@cache
def reference() -> Reference:
    """The same in transformers; remembers its answers."""
    return Reference(model_folder())


@cache
def eager(checkpoint: Path | None = None) -> EagerModel:
    """A checkpoint run on a paged cache; by default the honest one."""
    return EagerModel(checkpoint or converted(model_folder()), tokens_per_block=16)


def engine(checkpoint: Path | None = None, *, logits: bool = True) -> EngineTarget:
    """A fresh target on the tiny model."""
    facts = Facts("tiny", "engine", page=16)
    return EngineTarget(eager(checkpoint), load_tokenizer(model_folder()), [2], facts, logits=logits)


def material(target: Target | None = None, budget: Budget = SMALL) -> Material:
    """What the levels look at."""
    return Material(target or engine(), reference(), budget)
