"""From whatever a person names to a model repository: the steps that are missing are done, each with a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from labsupport.errors import ParameterError
from labsupport.repository.text_format import CONFIG as MODEL_CONFIG

Say = Callable[[str], object]


def repository_for(source: str | None, *, dtype: str = "auto", say: Say = lambda line: None) -> Path:  # noqa: ARG005
    """The repository that serves ``source``.

    Args:
        source: a repository, an engine, a TensorRT-LLM checkpoint, a Hugging Face folder, or a model's name; the labs'
            model where missing.
        dtype: of the checkpoint, where one is made: float32, bfloat16, float16; auto is the model's own.
        say: called with one line for each step.

    Raises:
        ParameterError: a folder that is none of these.
        LabError: whatever a step raises.
    """
    folder = Path(source).expanduser().resolve() if source else None
    if folder is None or not folder.is_dir():
        from labsupport.models import DEFAULT_MODEL, fetch

        folder = fetch(source or DEFAULT_MODEL)
        say(f"model        {folder}")
    if any(folder.glob(f"*/{MODEL_CONFIG}")):
        return folder
    config = _config(folder)
    if "build_config" in config:
        return _assemble(folder, None, say)
    tokenizer = None
    if "mapping" not in config:
        tokenizer, folder = folder, _convert(folder, dtype, say)
    return _assemble(_build(folder, say), tokenizer, say)


def _config(folder: Path) -> dict[str, object]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ParameterError(
            f"{folder} cannot be served",
            why="it is no repository (a config.pbtxt for each model), and it has no config.json",
            fix="name a repository, an engine, a checkpoint or a model: labs models",
        )
    return found


def _convert(folder: Path, dtype: str, say: Say) -> Path:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options

    done = convert(folder, Options(dtype))
    say(f"checkpoint   {done.folder}{_took(done.skipped, done.seconds)}")
    return done.folder


def _build(checkpoint: Path, say: Say) -> Path:
    from labsupport.engine.build import build

    done = build(checkpoint)
    say(f"engine       {done.folder}{_took(done.skipped, done.seconds)}")
    return done.folder


def _assemble(engine: Path, tokenizer: Path | None, say: Say) -> Path:
    from labsupport.models import fetch
    from labsupport.repository.assemble import assemble

    done = assemble(engine, tokenizer or fetch(engine.parent.name))
    say(f"repository   {done.folder}{_took(done.skipped, done.seconds)}")
    return done.folder


def _took(skipped: bool, seconds: float) -> str:
    return "" if skipped else f"  made in {seconds:.1f} s"
