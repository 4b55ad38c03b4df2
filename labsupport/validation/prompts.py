"""``prompts.json``: what is asked, in all its variations.

Every field that is a list is an axis. ``design`` says how axes are mixed: ``all`` combinations, or ``pairwise``: a few
dozen requests in which every pair of values of every two axes occurs. A fault that needs two particular settings is
then met, while a request picked at random would most likely miss it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labsupport.decoding import Settings
from labsupport.errors import ParameterError
from labsupport.validation.target import Ask, Message, Prompt

SCHEMA = "trtllm-lab/prompts/2"
U64 = Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,19})$")]
AXES = ("temperature", "top_p", "top_k", "seed", "repetition_penalty", "presence_penalty", "max_tokens", "stream",
        "system_prompt", "prompt")  # fmt: skip


class Text(BaseModel):
    """A prompt, with a name and tags that say what it is good for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    text: str
    tags: tuple[str, ...] = ()


class Turns(BaseModel):
    """A conversation of several turns."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    contents: tuple[dict[Literal["role", "content"], str], ...]
    tags: tuple[str, ...] = ()


class Prompts(BaseModel):
    """A file of prompts.

    Args:
        temperature, top_p, top_k, seed, repetition_penalty, presence_penalty, max_tokens, stream, system_prompt,
            prompt: the axes; null leaves a field out of the request.
        conversations: asked besides, each once with the first value of every axis.
        design: how the axes are mixed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    schema_: Literal["trtllm-lab/prompts/2"] = Field(alias="schema")
    suite: str
    design: Literal["all", "pairwise"]
    temperature: tuple[Annotated[float, Field(ge=0)] | None, ...] = (None,)
    top_p: tuple[Annotated[float, Field(gt=0, le=1)] | None, ...] = (None,)
    top_k: tuple[Annotated[int, Field(ge=0)] | None, ...] = (None,)
    seed: tuple[U64 | None, ...] = (None,)
    repetition_penalty: tuple[Annotated[float, Field(gt=0)] | None, ...] = (None,)
    presence_penalty: tuple[float | None, ...] = (None,)
    max_tokens: tuple[Annotated[int, Field(ge=1)], ...] = (16,)
    stream: tuple[bool, ...] = (False,)
    system_prompt: tuple[str | None, ...] = (None,)
    prompt: tuple[Text, ...]
    conversations: tuple[Turns, ...] = ()


class Variation(BaseModel):
    """One request to make."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    id: str
    prompt_id: str
    ask: Ask
    stream: bool


def read_prompts(path: Path) -> Prompts:
    """Read and check a file of prompts.

    Raises:
        ParameterError: it cannot be read, or a field is wrong; the message names the field.
    """
    try:
        return Prompts.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ParameterError(f"{path} cannot be read", why=str(problem), fix="name a file of prompts") from None
    except ValidationError as problem:
        place, why = complaint(problem)
        raise ParameterError(
            f"{path}: {place or 'the file'}", why=why,
            fix="compare with data/prompts-lite.json and data/prompts.schema.json",
        ) from None  # fmt: skip


def complaint(problem: ValidationError) -> tuple[str, str]:
    """The first thing that pydantic finds wrong: the field with its path, "" for the whole, and why."""
    first = problem.errors()[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def variations(prompts: Prompts, sampling: Sequence[str] = ()) -> list[Variation]:
    """The requests of a file.

    Args:
        sampling: fields of the request that the target lacks; they are left out.
    """
    axes = {name: list(getattr(prompts, name)) for name in AXES}
    rows = itertools.product(*axes.values()) if prompts.design == "all" else pairwise(list(axes.values()))
    chosen = [dict(zip(axes, row, strict=True)) for row in rows]
    first = {name: values[0] for name, values in axes.items()}
    chosen += [{**first, "system_prompt": None, "prompt": turns} for turns in prompts.conversations]
    return [_variation(index, row, sampling) for index, row in enumerate(chosen)]


def _variation(index: int, row: dict[str, Any], without: Sequence[str]) -> Variation:
    text = row["prompt"]
    names = ("temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty")
    settings = Settings(**{name: row[name] for name in names if name not in without})
    seed = None if row["seed"] is None else int(row["seed"])
    ask = Ask(_prompt(text, row["system_prompt"]), row["max_tokens"], settings, seed)
    return Variation(id=f"{index:04}-{text.id}", prompt_id=text.id, ask=ask, stream=row["stream"])


def _prompt(text: Text | Turns, system: str | None) -> Prompt:
    if isinstance(text, Turns):
        return tuple(Message(turn["role"], turn["content"]) for turn in text.contents)
    turns = (Message("user", text.text),)
    return turns if system is None else (Message("system", system), *turns)


def pairwise(axes: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """Rows in which every pair of values of every two axes occurs; greedy, so nearly as few as can be.

    Example:
        >>> len(list(pairwise([[0, 1], [0, 1], [0, 1]])))  # instead of 8
        4
    """
    sizes = [len(axis) for axis in axes]
    if len(axes) == 1:
        yield from ((value,) for value in axes[0])
        return
    left = {
        (i, a, j, b)
        for i, j in itertools.combinations(range(len(axes)), 2)
        for a in range(sizes[i])
        for b in range(sizes[j])
    }
    while left:
        i, a, j, b = min(left)
        row = {i: a, j: b}
        for axis in range(len(axes)):
            if axis not in row:
                counts = [_covered(left, {**row, axis: value}, axis) for value in range(sizes[axis])]
                row[axis] = counts.index(max(counts))
        picked = [row[axis] for axis in range(len(axes))]
        left -= {(i, picked[i], j, picked[j]) for i, j in itertools.combinations(range(len(axes)), 2)}
        yield tuple(axis[choice] for axis, choice in zip(axes, picked, strict=True))


def _covered(left: set[tuple[int, int, int, int]], row: dict[int, int], new: int) -> int:
    pairs = ((min(new, other), max(new, other)) for other in row if other != new)
    return sum((i, row[i], j, row[j]) in left for i, j in pairs)


def schema_text(model: type[BaseModel] = Prompts) -> str:
    """A model's JSON Schema without its prose, as ``data/*.schema.json`` hold it."""
    return json.dumps(_plain(model.model_json_schema()), indent=2) + "\n"


def _plain(part: Any) -> Any:
    if isinstance(part, dict):
        return {
            key: _plain(value) for key, value in part.items() if not (key == "description" and isinstance(value, str))
        }
    return [_plain(item) for item in part] if isinstance(part, list) else part
