"""The sampling fields of a request, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from labsupport.errors import ParameterError

_RANGES = {
    "temperature": (0.0, float("inf"), "logits are divided by it"),
    "top_k": (0, float("inf"), "it is a number of tokens, 0 meaning all"),
    "top_p": (0.0, 1.0, "it is a probability mass"),
    "min_p": (0.0, 1.0, "it is a share of the top probability"),
    "repetition_penalty": (1e-6, float("inf"), "logits are divided by it; 1.0 is neutral"),
    "presence_penalty": (-float("inf"), float("inf"), "it is subtracted from logits"),
    "frequency_penalty": (-float("inf"), float("inf"), "it is subtracted from logits"),
    "no_repeat_ngram": (1, float("inf"), "it is the length of the n-gram"),
    "min_length": (0, float("inf"), "it is a number of tokens"),
    "min_new_tokens": (0, float("inf"), "it is a number of tokens"),
}
_WHOLE = ("top_k", "no_repeat_ngram", "min_length", "min_new_tokens")


@dataclass(frozen=True)
class Settings:
    """The sampling fields of a request; None means that the request leaves the field out.

    Args:
        do_sample: ``hf`` only; False turns temperature and cuts off.
        min_new_tokens: ``hf`` only; like min_length, which it overrules, but the prompt does not count.
        end_ids: ids that end the text; min_length needs them.

    Raises:
        ParameterError: a value out of range.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    no_repeat_ngram: int | None = None
    bad_words: Sequence[Sequence[int]] | None = None
    logit_bias: Mapping[int, float] | None = None
    min_length: int | None = None
    min_new_tokens: int | None = None
    do_sample: bool | None = None
    end_ids: Sequence[int] = ()

    def __post_init__(self) -> None:
        for name, (low, high, why) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:  # also catches nan
                raise ParameterError(f"{name} {value} is out of range", why=why, fix=f"use {low} to {high}")
            if name in _WHOLE and int(value) != value:
                raise ParameterError(f"{name} {value} is not a whole number", why=why, fix=f"use {int(value)}")
        if (self.min_length or self.min_new_tokens) and not self.end_ids:
            raise ParameterError(
                "min_length without end_ids",
                why="a minimum length works by forbidding the end tokens, so they must be known",
                fix="pass end_ids=[tokenizer.eos_token_id]",
            )

    @classmethod
    def of(cls, **settings: Any) -> Settings:
        """Settings from keywords, with a mendable error for a misspelled one."""
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(settings) - set(known)):
            raise ParameterError(
                f"unknown setting {unknown[0]!r}", why="no dialect has it", fix=f"use one of {', '.join(known)}"
            )
        return cls(**settings)

    def refuse(self, dialect: str, *names: str) -> None:
        """Raise a ParameterError if one of the names is set: this dialect's system has no such field."""
        for name in names:
            if getattr(self, name) is not None:
                raise ParameterError(
                    f"{dialect} has no {name}",
                    why="the system that it models does not read this field",
                    fix="leave it out, or choose a dialect that has it",
                )
