"""What requests ask for: lengths from a distribution or a trace, and prompts that share no beginning."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labsupport.errors import ParameterError
from labsupport.workspace import data_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TEXT = "texts/evaluation.txt"


@dataclass(frozen=True)
class Job:
    """One request to send.

    Args:
        ids: the prompt's tokens, as the server's tokenizer makes them of ``text``.
        new: tokens to write.
        at: seconds from the start, where a trace says so.
    """

    ids: tuple[int, ...]
    text: str
    new: int
    at: float | None = None


@dataclass(frozen=True)
class Lengths:
    """A distribution of lengths in tokens.

    Args:
        low, high: whole numbers from ``low`` to ``high``, each as likely; equal: always that length.
        mean, spread: where given, a normal distribution, cut off below one token.
    """

    low: int = 0
    high: int = 0
    mean: float = 0.0
    spread: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """``64`` (always), ``32-128`` (uniform) or ``64~16`` (normal: mean and standard deviation).

        Raises:
            ParameterError: anything else.

        Example:
            >>> Lengths.parse("32-128")
            Lengths(low=32, high=128, mean=0.0, spread=0.0)
        """
        if match := re.fullmatch(r"(\d+)(?:-(\d+))?", text):
            low, high = int(match[1]), int(match[2] or match[1])
            if 1 <= low <= high:
                return cls(low, high)
        if (match := re.fullmatch(r"(\d+)~(\d+)", text)) and int(match[1]) >= 1:
            return cls(mean=float(match[1]), spread=float(match[2]))
        raise ParameterError(
            f"{text!r} is no distribution of lengths",
            why="lengths are whole numbers of tokens, at least 1",
            fix="64 (always 64), 32-128 (each as likely), or 64~16 (mean 64, standard deviation 16)",
        )

    def sample(self, count: int, chance: np.random.Generator) -> list[int]:
        """``count`` lengths."""
        if self.mean:
            return [max(1, round(one)) for one in chance.normal(self.mean, self.spread, count)]
        return [int(one) for one in chance.integers(self.low, self.high + 1, count)]


def drawn(inputs: Lengths, outputs: Lengths, count: int, seed: int) -> list[tuple[int, int, float | None]]:
    """``count`` pairs of input and output length, without times."""
    chance = np.random.default_rng(seed)
    pairs = zip(inputs.sample(count, chance), outputs.sample(count, chance), strict=True)
    return [(given, wanted, None) for given, wanted in pairs]


def read_trace(path: Path) -> list[tuple[int, int, float | None]]:
    """Input length, output length and time of each line of a trace.

    A line is JSON with ``input_length``, ``output_length`` and, for a replay, ``timestamp`` in milliseconds: the format
    of the Mooncake traces, which AIPerf reads too.

    Raises:
        ParameterError: no such file, or a line that lacks a length.
    """
    found: list[tuple[int, int, float | None]] = []
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as problem:
        raise ParameterError(f"cannot read {path}", why=str(problem), fix="name a file of JSON lines") from None
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            given, wanted, at = int(entry["input_length"]), int(entry["output_length"]), entry.get("timestamp")
            if given < 1 or wanted < 1:
                raise ValueError("a length below 1")
            found.append((given, wanted, None if at is None else float(at) / 1000))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ParameterError(
                f"{path.name}, line {number} is no request: {line[:80]}",
                why=f"{type(problem).__name__}: {problem}",
                fix='{"timestamp": 0, "input_length": 64, "output_length": 32}',
            ) from None
    if not found:
        raise ParameterError(f"{path.name} has no requests", why="it is empty", fix="a line of JSON for each request")
    start = min((at for _, _, at in found if at is not None), default=0.0)
    return [(given, wanted, None if at is None else at - start) for given, wanted, at in found]


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, for cutting and counting.

    Raises:
        ParameterError: there is none.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ParameterError(
            f"{folder} has no tokenizer.json",
            why="prompts of a known length are cut with the model's own tokenizer",
            fix="--tokenizer FOLDER, such as work/checkpoints/smollm2-135m-instruct",
        )
    return Tokenizer.from_file(str(file))


def jobs(
    tokenizer: Path, shapes: Sequence[tuple[int, int, float | None]], seed: int, text: Path | None = None
) -> list[Job]:
    """A prompt for each shape, cut from a text at places that differ, so that no cache of prefixes helps.

    The length is exact for an engine that takes ids. As text a piece may come back from the tokenizer a token or two
    longer or shorter: ``ids`` is what the server will count.

    Args:
        tokenizer: a folder with ``tokenizer.json``.
        text: where prompts are cut from; the evaluation text of the labs where missing.

    Raises:
        ParameterError: the text is shorter than the longest prompt, or there is no tokenizer.
    """
    words = read_tokenizer(tokenizer)
    ids = words.encode((text or data_folder() / TEXT).read_text(encoding="utf-8"), add_special_tokens=False).ids
    longest = max(given for given, _, _ in shapes)
    if longest >= len(ids):
        raise ParameterError(
            f"a prompt of {longest} tokens",
            why=f"prompts are cut from a text of {len(ids)} tokens",
            fix="ask for shorter ones",
        )
    room = len(ids) - longest
    chance = np.random.default_rng([seed, 1])
    starts = chance.permutation(room)
    made = []
    for number, (given, wanted, at) in enumerate(shapes):
        start = int(starts[number % room])
        piece = words.decode(ids[start : start + given], skip_special_tokens=False)
        made.append(Job(tuple(ids[start : start + given]), piece, wanted, at))
    return made
