"""A model -> a quantized TensorRT-LLM checkpoint: looked at, calibrated, written whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from labsupport import __version__
from labsupport.checkpoint.config import CONFIG, CheckpointConfig, read_config, write_config
from labsupport.checkpoint.convert_joined import is_checkpoint
from labsupport.checkpoint.convert_plan import Options, Plan, make_plan, open_source
from labsupport.checkpoint.convert_record import key
from labsupport.checkpoint.convert_source import Source
from labsupport.checkpoint.quantize.assemble import write_ranks
from labsupport.checkpoint.quantize.calibrate import TEXT, Calibration, calibrate, read_pieces
from labsupport.checkpoint.quantize.recipes import QuantizeOptions, quantization_of
from labsupport.checkpoint.quantize.source import Note, look, require_float
from labsupport.errors import ParameterError
from labsupport.workspace import Workspace, atomic_folder, data_folder, read_record, require_space, write_record

STEP = "quantize"
RECIPE = 1  # raise it when the same input and options give other bytes: older checkpoints are then made again


@dataclass(frozen=True)
class QuantizedCheckpoint:
    """A quantized checkpoint on disk.

    Args:
        folder: where it lies.
        config: its config.
        notes: what was odd about the weights.
        skipped: it was there already, made from the same files with the same options.
        calibration_tokens: how many tokens were run; 0 where none were needed.
        seconds: how long it took.
    """

    folder: Path
    config: CheckpointConfig
    notes: tuple[Note, ...]
    skipped: bool
    calibration_tokens: int
    seconds: float


def quantize_model(
    model: Path,
    options: QuantizeOptions | None = None,
    *,
    output: Path | None = None,
    text: Path | None = None,
    force: bool = False,
    progress: Callable[[str], object] = lambda stage: None,  # noqa: ARG005
) -> QuantizedCheckpoint:
    """Write a quantized checkpoint of a model.

    Args:
        model: a Hugging Face folder; for recipes without calibration, an unquantized TensorRT-LLM checkpoint too.
        options: recipe, KV cache, group, ranks; int8 weights on one rank where missing.
        output: the folder to write; ``work/trt_checkpoints/<model>/<recipe>`` where missing.
        text: calibration text; that in ``data/`` where missing.
        force: make it again, and replace ``output`` whatever it is.
        progress: called with the name of each stage as it begins.

    Raises:
        CheckpointError: the model is quantized already, cannot be read, holds NaN or a layer of zeros.
        ParameterError: the recipe does not fit the model or its ranks, the text is too short.

    Example:
        >>> quantize_model(Path("work/checkpoints/smollm2-135m-instruct"), QuantizeOptions("int4_awq")).folder.name
        'float16-int4_awq-g64-tp1'
    """
    began, options = time.perf_counter(), options or QuantizeOptions()
    model = model.expanduser().resolve()
    require_float(model, calibrated=options.calibrated)
    source = open_source(model)
    try:
        plan, whole = _plans(source, options)
        folder = (output or _default_output(model, plan.config, options)).expanduser().resolve()
        identity = _identity(options, [model / CONFIG, *source.files], text)
        require_ours(folder, model, force=force)
        if not force and (read_record(folder) or {}).get("identity") == identity:
            return QuantizedCheckpoint(folder, read_config(folder), (), True, 0, time.perf_counter() - began)
        require_space(folder, sum(plan.bytes(rank) for rank in range(len(plan.ranks))))
        progress("looking at the weights")
        notes = tuple(look(source, plan.config, whole.ranks[0]))
        calibration = Calibration({}, (), 0)
        if options.calibrated:
            progress("calibrating")
            pieces = read_pieces(model, text)
            calibration = calibrate(model, options, plan.config.quantization.group_size, pieces)
        progress("writing")
        with atomic_folder(folder) as making:
            write_ranks(source, whole, plan.config, calibration, making)
            write_config(plan.config, making)
            write_record(making, _record(identity, calibration))
    finally:
        source.close()
    return QuantizedCheckpoint(folder, plan.config, notes, False, calibration.tokens, time.perf_counter() - began)


def planned(model: Path, options: QuantizeOptions) -> tuple[CheckpointConfig, Path]:
    """The config that a checkpoint would have, and the folder where it would lie; nothing is written.

    Raises:
        CheckpointError, ParameterError: as ``quantize_model``.
    """
    source = open_source(model)
    try:
        config = _plans(source, options)[0].config
    finally:
        source.close()
    return config, _default_output(model, config, options)


def require_ours(folder: Path, model: Path, *, force: bool) -> None:
    """Only an older checkpoint of this command is ever replaced, unless ``force`` says so; and never the model.

    Raises:
        ParameterError: ``folder`` holds something else.
    """
    if folder == model or folder in model.parents:
        raise ParameterError(
            f"the output {folder} holds the model", why="writing it would remove the model", fix="name another --output"
        )
    if force or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir() or (read_record(folder) or {}).get("step") != STEP:
        raise ParameterError(
            f"{folder} exists, and labs quantize did not write it",
            why="quantizing replaces the whole folder",
            fix="name another --output, or add --force if nothing in it is needed",
        )


def _plans(source: Source, options: QuantizeOptions) -> tuple[Plan, Plan]:
    """The checkpoint as its ranks will hold it, quantization settled, and the same on one rank."""
    dtype = options.dtype
    whole = make_plan(source, Options(dtype))
    if dtype == "auto" and whole.config.dtype == "float32":
        dtype = "float16"
    plan = make_plan(source, Options(dtype, options.tp_size, options.pp_size))
    quantization = quantization_of(options, plan.config)
    return Plan(plan.config.model_copy(update={"quantization": quantization}), plan.ranks), whole


def _default_output(model: Path, config: CheckpointConfig, options: QuantizeOptions) -> Path:
    name = model.parent.name if is_checkpoint(model) else model.name
    return Workspace.current().trt_checkpoints / name / options.folder(config)


def _identity(options: QuantizeOptions, inputs: Sequence[Path], text: Path | None) -> dict[str, Any]:
    texts = [text or data_folder() / TEXT] if options.calibrated else []
    return {
        "recipe": RECIPE,
        "options": asdict(options),
        "inputs": {path.name: key(path) for path in [*inputs, *texts] if path.is_file()},
    }


def _record(identity: dict[str, Any], calibration: Calibration) -> dict[str, Any]:
    versions = {"labs": __version__, "nvidia-modelopt": version("nvidia-modelopt"), "torch": version("torch")}
    return {"step": STEP, "identity": identity, "calibration_tokens": calibration.tokens, "versions": versions}
