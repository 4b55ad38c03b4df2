"""Hugging Face folder -> TensorRT-LLM checkpoint: whole or not at all, and not twice."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, write_config
from labsupport.checkpoint.convert_plan import Options, Plan, make_plan, open_source
from labsupport.checkpoint.convert_record import is_done, made_by_us, record
from labsupport.checkpoint.convert_source import Source
from labsupport.checkpoint.convert_write import Progress, write_rank
from labsupport.errors import ParameterError
from labsupport.workspace import Workspace, atomic_folder, require_space, write_record


@dataclass(frozen=True)
class Converted:
    """A checkpoint on disk.

    Args:
        folder: where it lies.
        config: its config.
        skipped: it was there already, made from the same files with the same options.
        seconds: how long it took.
    """

    folder: Path
    config: CheckpointConfig
    skipped: bool
    seconds: float


def convert(
    source: Path,
    options: Options | None = None,
    *,
    output: Path | None = None,
    config_file: Path | None = None,
    force: bool = False,
    progress: Callable[[int, int], object] = lambda written, total: None,  # noqa: ARG005
) -> Converted:
    """Convert a model.

    Args:
        source: a Hugging Face folder, a folder with a state dict as safetensors, or a TensorRT-LLM checkpoint.
        options: dtype, ranks, embedding; one rank in the source's dtype where missing.
        output: the folder to write; ``work/trt_checkpoints/<model>/<recipe>`` where missing.
        config_file: the model's ``config.json`` where it is not in ``source``.
        force: replace ``output`` even if it was not written by this command.
        progress: called with the number of bytes just written, and that of all.

    Raises:
        CheckpointError: the source cannot be read or does not fit its config.
        ParameterError: the options do not fit the model, or ``output`` holds something else.
        SpaceError: the disk cannot hold the result. In every case nothing half-written is left.

    Example:
        >>> convert(Path("work/checkpoints/smollm2-135m-instruct"), Options(tp_size=3)).folder.name  # doctest: +SKIP
        'float32-tp3'
    """
    began, options = time.perf_counter(), options or Options()
    source = source.expanduser().resolve()
    opened = open_source(source)
    try:
        plan = make_plan(opened, options, config_file)
        folder = (output or default_output(source, options, plan)).expanduser().resolve()
        inputs = [config_file or source / CONFIG, *opened.files]
        require_ours(folder, source, force=force)
        if not force and is_done(folder, options, inputs):
            return Converted(folder, plan.config, True, time.perf_counter() - began)
        total = sum(plan.bytes(rank) for rank in range(len(plan.ranks)))
        require_space(folder, total)
        _write(opened, plan, folder, options, inputs, lambda written: progress(written, total))
    finally:
        opened.close()
    return Converted(folder, plan.config, False, time.perf_counter() - began)


def default_output(source: Path, options: Options, plan: Plan) -> Path:
    """``work/trt_checkpoints/<model>/<recipe>``; a checkpoint that is cut anew stays with its model."""
    from labsupport.checkpoint.convert_joined import is_checkpoint

    model = source.parent.name if is_checkpoint(source) else source.name
    return Workspace.current().trt_checkpoints / model / options.recipe(plan.config.dtype)


def _write(source: Source, plan: Plan, folder: Path, options: Options, inputs: list[Path], progress: Progress) -> None:
    with atomic_folder(folder) as making:
        for rank in range(len(plan.ranks)):
            write_rank(source, plan, rank, making / f"rank{rank}.safetensors", progress)
        write_config(plan.config, making)
        write_record(making, record(options, inputs, making))


def require_ours(folder: Path, source: Path, *, force: bool) -> None:
    """Nothing but an older conversion is ever replaced, unless ``force`` says so; and never the source.

    Raises:
        ParameterError: ``folder`` holds something else.
    """
    if folder == source or folder in source.parents:
        raise ParameterError(
            f"the output {folder} holds the source",
            why="writing it would remove the model",
            fix="name another --output",
        )
    if force or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or not made_by_us(folder):
        raise ParameterError(
            f"{folder} exists, and labs convert did not write it",
            why="converting replaces the whole folder",
            fix="name another --output, or add --force if nothing in it is needed",
        )
