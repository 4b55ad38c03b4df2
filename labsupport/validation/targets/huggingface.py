"""transformers as a target: with a dialect and a random stream of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from labsupport.decoding import log_softmax
from labsupport.errors import LabError
from labsupport.models import load
from labsupport.validation.target import Answer, Ask, Facts, OneByOne, Prompt

GREEDY = {"do_sample": False, "top_k": None, "top_p": None, "temperature": None}
RENAMED = {"no_repeat_ngram": "no_repeat_ngram_size"}
LEFT_OUT = ("end_ids", "bad_words", "logit_bias", "presence_penalty", "frequency_penalty")


class HuggingFaceTarget(OneByOne):
    """``model.generate`` for one request at a time, so that a seed belongs to its request.

    Args:
        model, tokenizer: as transformers loads them.
        name: for reports.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer = model, tokenizer
        dtype = str(model.dtype).removeprefix("torch.")
        self.facts = Facts(f"{name} (transformers, {dtype})", "huggingface", "hf", dtype, batch=1)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """By the tokenizer's own chat template."""
        if isinstance(prompt, str):
            return tuple(self.tokenizer(prompt)["input_ids"])
        turns = [message._asdict() for message in prompt]
        return tuple(self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))

    def received(self, ask: Ask) -> dict[str, Any]:
        """The request's own fields: nothing lies between."""
        return {**vars(ask.settings), "seed": ask.seed, "max_tokens": ask.max_tokens}

    def _answer(self, ask: Ask) -> Answer:
        import torch

        ids = torch.tensor([self.tokenize(ask.prompt)], device=self.model.device)
        ends = self.model.generation_config.eos_token_id
        if ask.seed is not None:
            torch.manual_seed(ask.seed)
        try:
            how = self._how(ask)
            with torch.inference_mode():
                done = self.model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=ask.max_tokens,
                    eos_token_id=None if ask.ignore_end else ends, pad_token_id=self.tokenizer.pad_token_id,
                    stop_strings=list(ask.stop_words) or None, tokenizer=self.tokenizer,
                    return_dict_in_generate=True, output_logits=True, **how,
                )  # fmt: skip
        except (LabError, ValueError, RuntimeError) as refused:
            return Answer(error=str(refused).splitlines()[0])
        output = tuple(done.sequences[0, ids.shape[1] :].tolist())
        logits = np.stack([row[0].float().cpu().numpy() for row in done.logits])
        log_probs = log_softmax(logits.astype(np.float64))[np.arange(len(output)), list(output)]
        ended = not ask.ignore_end and output[-1] in (ends if isinstance(ends, list) else [ends])
        return Answer(
            output, self.tokenizer.decode(output, skip_special_tokens=True, clean_up_tokenization_spaces=False),
            "end" if ended else "length" if len(output) == ask.max_tokens else "stop",
            tuple(ids[0].tolist()), tuple(log_probs), logits,
        )  # fmt: skip

    def _how(self, ask: Ask) -> dict[str, Any]:
        """The keywords of ``generate``; a field that is unset there would bring a default of its own."""
        given = {name: value for name, value in vars(ask.settings).items() if value is not None}
        how: dict[str, Any] = {RENAMED.get(name, name): value for name, value in given.items() if name not in LEFT_OUT}
        if bias := ask.settings.logit_bias:
            how["sequence_bias"] = [[[int(id)], float(value)] for id, value in bias.items()]
        if given.get("do_sample") is False or given.get("top_k") == 1:
            return {**how, **GREEDY}
        return {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, **how}


def open_huggingface(model: str | Path, dtype: str = "float32") -> HuggingFaceTarget:
    """The target of a model that transformers loads."""
    loaded, tokenizer = load(model, dtype=dtype)
    return HuggingFaceTarget(loaded, tokenizer, Path(model).name)
