"""A handler for Hugging Face endpoints as a target: run here, as the endpoint would run it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from labsupport.errors import ParameterError
from labsupport.models import fetch
from labsupport.validation.target import Answer, Ask, Facts, OneByOne, Prompt

ENDPOINTS = Path(__file__).resolve().parents[1] / "endpoints"
LEFT_OUT = ("end_ids", "bad_words", "logit_bias", "presence_penalty", "frequency_penalty", "no_repeat_ngram")


class EndpointTarget(OneByOne):
    """Requests in the endpoint's JSON, answers out of it.

    Args:
        family: a folder of ``validation/endpoints``: llama or gemma.
        model: a catalogue name or a folder.

    Raises:
        ParameterError: there is no handler of that family.
    """

    def __init__(self, family: str, model: str) -> None:
        path = ENDPOINTS / family / "handler.py"
        if not path.is_file():
            known = ", ".join(sorted(found.parent.name for found in ENDPOINTS.glob("*/handler.py")))
            raise ParameterError(f"no handler for {family!r}", why="each family has its own", fix=f"one of {known}")
        spec = importlib.util.spec_from_file_location(f"handler_{family}", path)
        if spec is None or spec.loader is None:
            raise AssertionError("a Python file has a loader")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.handler: Any = module.EndpointHandler(str(fetch(model)))
        dtype = str(self.handler.model.dtype).removeprefix("torch.")
        self.facts = Facts(f"{Path(model).name} ({family} handler)", "huggingface", "hf", dtype, batch=1)

    def tokenize(self, prompt: Prompt) -> tuple[int, ...]:
        """As the handler does."""
        return tuple(self.handler.encode(_inputs(prompt)))

    def received(self, ask: Ask) -> dict[str, Any] | None:  # noqa: ARG002
        """Not shown."""
        return None

    def _answer(self, ask: Ask) -> Answer:
        given = {name: value for name, value in vars(ask.settings).items() if value is not None}
        parameters = {name: value for name, value in given.items() if name not in LEFT_OUT}
        parameters = {"do_sample": False} if given.get("top_k") == 1 else {"do_sample": True, "top_k": 0, **parameters}
        request = {
            "inputs": _inputs(ask.prompt),
            "parameters": {**parameters, "seed": ask.seed, "max_new_tokens": ask.max_tokens},
        }
        try:
            found = self.handler(request)
        except (ValueError, RuntimeError) as refused:
            return Answer(error=str(refused).splitlines()[0])
        return Answer(
            tuple(found["output_ids"]), found["text"], found["finish_reason"], tuple(found["input_ids"]),
            tuple(found["log_probs"]),
        )  # fmt: skip


def _inputs(prompt: Prompt) -> str | list[dict[str, str]]:
    return prompt if isinstance(prompt, str) else [message._asdict() for message in prompt]
