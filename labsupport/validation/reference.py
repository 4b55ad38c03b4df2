"""The truth: the original model in float32, and its twin in the target's type, which says how much noise is honest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labsupport.models import load, load_tokenizer
from labsupport.validation.target import Ask, Logits, Prompt, as_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reference:
    """A Hugging Face model that scores other people's tokens.

    Args:
        model: a catalogue name, a hub id or a folder.
        twin: the type of the target's weights; float32 needs no twin.
    """

    def __init__(self, model: str | Path, twin: str = "float32") -> None:
        self.model_name, self.twin_dtype = str(model), twin
        self.name = f"{Path(model).name} (transformers, float32)"
        self._answers: dict[tuple[object, ...], Any] = {}

    @cached_property
    def tokenizer(self) -> Any:
        """Of the original model."""
        return load_tokenizer(self.model_name)

    @cached_property
    def model(self) -> PreTrainedModel:
        """In float32; loaded when first asked."""
        return load(self.model_name)[0]

    @cached_property
    def twin(self) -> PreTrainedModel | None:
        """The same model in the target's type, or None where that is float32."""
        return None if self.twin_dtype == "float32" else load(self.model_name, dtype=self.twin_dtype)[0]

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """All tokens that end an answer: the tokenizer's own first, then those of the generation config."""
        named = self.model.generation_config.eos_token_id if self.model.generation_config else None
        also = named if isinstance(named, list) else [named]
        return tuple(dict.fromkeys(id for id in (self.tokenizer.eos_token_id, *also) if id is not None))

    def ids(self, prompt: Prompt) -> tuple[int, ...]:
        """A prompt's ids as a server should make them: a conversation by the chat template, exactly one BOS."""
        from labsupport.repository.models.preprocessing.prompts import encode

        return tuple(encode(self.tokenizer, as_text(prompt)))

    def accepts(self, prompt: Prompt) -> bool:
        """Whether the model's template takes a conversation: some have no system role."""
        try:
            self.ids(prompt)
        except ValueError:
            return False
        return True

    def logits(self, prompt: Sequence[int], output: Sequence[int]) -> Logits:
        """float32 [len(output), V]: what each of the output's tokens was to be drawn from."""
        return _logits(self.model, prompt, output)

    def twin_logits(self, prompt: Sequence[int], output: Sequence[int]) -> Logits:
        """The same of the twin; in float32 the model is its own."""
        return _logits(self.twin or self.model, prompt, output)

    def greedy(self, ask: Ask) -> tuple[int, ...]:
        """The model's own greedy answer; remembered, because every target is asked the same."""
        return self._generate(ask, 1, do_sample=False)[0]

    def samples(self, ask: Ask, count: int) -> tuple[tuple[int, ...], ...]:
        """Draws from the model's whole distribution at temperature 1."""
        return self._generate(ask, count, do_sample=True, top_k=0, num_return_sequences=count)

    def _generate(self, ask: Ask, count: int, **how: Any) -> tuple[tuple[int, ...], ...]:
        import torch

        key = (ask.prompt, ask.max_tokens, count)
        if key not in self._answers:
            ids = torch.tensor([self.ids(ask.prompt)])
            with torch.random.fork_rng(devices=[]), torch.inference_mode():
                torch.manual_seed(len(self._answers))
                written = self.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=ask.max_tokens,
                    eos_token_id=list(self.end_ids) or None, pad_token_id=self.tokenizer.pad_token_id, **how,
                )  # fmt: skip
            rows = [tuple(row) for row in written[:, ids.shape[1] :].tolist()]
            self._answers[key] = tuple(_up_to_end(row, self.end_ids) for row in rows)
        found: tuple[tuple[int, ...], ...] = self._answers[key]
        return found


def _logits(model: PreTrainedModel, prompt: Sequence[int], output: Sequence[int]) -> Logits:
    import torch

    ids = torch.tensor([[*prompt, *output[:-1]]])
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=len(output)).logits
    return np.asarray(found[0].float().numpy())


def _up_to_end(row: tuple[int, ...], ends: Sequence[int]) -> tuple[int, ...]:
    return next((row[: place + 1] for place, id in enumerate(row) if id in ends), row)
