"""What is found wrong with a checkpoint, and the checkpoint as the checks see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, parse_config, read_json
from labsupport.checkpoint.tensor_file import TensorFile
from labsupport.errors import LabError


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or odd.

    Args:
        rule: the rule that was broken, in a word or two.
        what, why, fix: as in a ``LabError``.
        level: a ``fault`` makes the checkpoint wrong; TensorRT-LLM builds in spite of a ``warning``.
    """

    rule: str
    what: str
    why: str
    fix: str
    level: Literal["fault", "warning"] = "fault"

    @classmethod
    def of(cls, rule: str, error: LabError) -> Finding:
        """An error that a reader raised, as a finding."""
        return cls(rule, error.what, error.why, error.fix)

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  try: {self.fix}"


@dataclass(frozen=True)
class Opened:
    """A checkpoint whose config could be read.

    Args:
        folder: where it is.
        raw: ``config.json`` as written, before defaults were filled in.
        config: the same, typed.
        ranks: the rank files that could be opened, by rank.
        unreadable: what is wrong with the others.
    """

    folder: Path
    raw: dict[str, Any]
    config: CheckpointConfig
    ranks: dict[int, TensorFile]
    unreadable: tuple[Finding, ...] = ()


@contextmanager
def opened(folder: Path) -> Iterator[Opened]:
    """Open a checkpoint; the rank files are closed at the end of the block.

    Raises:
        CheckpointError: ``config.json`` is missing or is not one that TensorRT-LLM would take.
    """
    raw = read_json(folder / CONFIG)
    config = parse_config(raw, str(folder / CONFIG))
    ranks: dict[int, TensorFile] = {}
    unreadable = []
    with ExitStack() as stack:
        for rank in range(config.mapping.files):
            try:
                ranks[rank] = stack.enter_context(TensorFile(folder / f"rank{rank}.safetensors"))
            except LabError as error:
                unreadable.append(Finding.of("files", error))
        yield Opened(folder, raw, config, ranks, tuple(unreadable))
