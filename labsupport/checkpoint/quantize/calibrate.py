"""What the activations look like: ModelOpt runs the model over texts and watches every linear layer.

Only what it measures is taken over (largest inputs, factors on the inputs, largest keys and values); the tensors are
made in :mod:`forms`. ModelOpt 0.47 does this on a CPU.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labsupport.checkpoint.quantize.recipes import QuantizeOptions
from labsupport.checkpoint.quantize.sensitivity import grams
from labsupport.errors import CheckpointError, ParameterError
from labsupport.workspace import data_folder

TEXT = "texts/calibration.txt"
LENGTH = 128  # tokens of a piece
AWQ_PIECES = 4  # AWQ runs every layer 12 times; it needs means, which settle sooner than the largest values
BATCH = 4  # pieces at a time
FEWEST = 1024  # tokens, below which a scale says more about the text than about the model


@dataclass(frozen=True)
class Inputs:
    """What one linear layer was given, over all texts.

    Args:
        channel_max: largest absolute value of each input, [in]; of SmoothQuant only.
        largest: largest absolute value of any input, before ``prequant``; nan where nothing was measured.
        prequant: the factors that the method puts on the inputs, [in], or None.
        gram: which errors matter, [in, in] (:mod:`sensitivity`); of ``int8_gptq`` only.
    """

    largest: float
    channel_max: Tensor | None = None
    prequant: Tensor | None = None
    gram: Tensor | None = None


@dataclass(frozen=True)
class Calibration:
    """All layers.

    Args:
        inputs: Hugging Face module name (``model.layers.0.mlp.up_proj``) -> what it was given.
        caches: largest absolute key or value of each layer; empty where the KV cache was not watched.
        tokens: how many were run.
    """

    inputs: dict[str, Inputs]
    caches: tuple[float, ...]
    tokens: int


def read_pieces(model: Path, text: Path | None = None, length: int = LENGTH, fewest: int = FEWEST) -> Tensor:
    """A text as token ids, cut into pieces: int64 [pieces, length]; what does not fill a piece is left out.

    Args:
        model: the Hugging Face folder with the tokenizer.
        text: a UTF-8 file; the calibration text in ``data/`` where missing.

    Raises:
        ParameterError: the text is too short, or the file is missing.
        CheckpointError: the model has no tokenizer.
    """
    from tokenizers import Tokenizer

    path = text or data_folder() / TEXT
    if not path.is_file():
        raise ParameterError(f"{path} does not exist", why="the text was to be read from it", fix="name a text file")
    if not (model / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{model} has no tokenizer.json",
            why="texts are turned into tokens with the model's own tokenizer",
            fix="labs fetch   brings whole models; or copy tokenizer.json beside the weights",
        )
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(path.read_text(encoding="utf-8")).ids
    if len(ids) < max(fewest, length):
        raise ParameterError(
            f"{path} has {len(ids)} tokens",
            why=f"at least {max(fewest, length)} are needed: from fewer, a scale misses inputs that do occur",
            fix="use a longer text, best of the kind that the model will be given",
        )
    return torch.tensor(ids[: len(ids) // length * length]).reshape(-1, length)


def calibrate(model: Path, options: QuantizeOptions, group: int, pieces: Tensor) -> Calibration:
    """Run ``pieces`` through the model under ModelOpt's quantizers.

    Args:
        model: the Hugging Face folder.
        group: inputs that share a scale, for AWQ.
        pieces: token ids, int64 [pieces, length].

    Raises:
        CheckpointError: ModelOpt is not installed or cannot quantize the model, or an input was zero throughout.
    """
    inputs = {}
    if options.recipe == "int8_gptq":
        inputs = {name: Inputs(math.nan, gram=gram) for name, gram in grams(model, pieces).items()}
        if options.kv_cache == "none":
            return Calibration(inputs, (), pieces.numel())
    network, tokens = observed(model, options, group, pieces)
    return Calibration(
        inputs or _inputs(network, options), _caches(network) if options.kv_cache != "none" else (), tokens
    )


def observed(model: Path, options: QuantizeOptions, group: int, pieces: Tensor) -> tuple[nn.Module, int]:
    """The model with ModelOpt's quantizers in it, calibrated, and how many tokens they saw.

    Raises:
        CheckpointError: ModelOpt is not installed or cannot quantize the model.
    """
    mtq = _modelopt()
    from transformers import AutoModelForCausalLM

    from labsupport.models.quiet import quiet_transformers

    if options.recipe == "int4_awq":
        pieces = pieces[:: max(1, len(pieces) // AWQ_PIECES)]

    def run(network: nn.Module) -> None:
        for start in range(0, len(pieces), BATCH):
            network.base_model(pieces[start : start + BATCH], use_cache=False)  # type: ignore[operator]  # no head

    with quiet_transformers(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        try:
            return mtq.quantize(network, modelopt_config(mtq, options, group), run), pieces.numel()
        except (RuntimeError, ValueError, AssertionError, AttributeError, NotImplementedError) as problem:
            raise CheckpointError(
                f"ModelOpt could not calibrate {model} for {options.recipe}",
                why=(str(problem).strip().splitlines() or [type(problem).__name__])[0],
                fix="labs quantize --recipe int8_wo   needs no calibration",
            ) from problem


def modelopt_config(mtq: Any, options: QuantizeOptions, group: int) -> dict[str, Any]:
    """ModelOpt's own settings for the recipe; only the group, alpha and the KV cache are ours."""
    named = {"int4_awq": "INT4_AWQ_CFG", "int8_sq": "INT8_SMOOTHQUANT_CFG", "fp8": "FP8_DEFAULT_CFG"}
    if options.recipe in named:
        config = copy.deepcopy(getattr(mtq, named[options.recipe]))
    else:
        config = {"quant_cfg": [{"quantizer_name": "*", "enable": False}], "algorithm": "max"}
    if options.recipe == "int4_awq":
        weights = next(one for one in config["quant_cfg"] if one["quantizer_name"] == "*weight_quantizer")
        weights["cfg"]["block_sizes"][-1] = group
    if options.recipe == "int8_sq":
        config["algorithm"] = {"method": "smoothquant", "alpha": options.alpha}
    if options.kv_cache != "none":
        bits = 8 if options.kv_cache == "int8" else (4, 3)
        config["quant_cfg"].append({"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": bits, "axis": None}})
    return dict(config)


def _modelopt() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that parts for GPUs are missing, which are not needed here
            import modelopt.torch.quantization as mtq
    except ImportError as problem:
        raise CheckpointError(
            "ModelOpt is not installed", why=str(problem), fix="pip install 'nvidia-modelopt==0.47.*'"
        ) from problem
    return mtq


def _inputs(network: nn.Module, options: QuantizeOptions) -> dict[str, Inputs]:
    if not options.chosen.calibrated:
        return {}
    found = {}
    for name, module in network.named_modules():
        quantizer, weights = getattr(module, "input_quantizer", None), getattr(module, "weight_quantizer", None)
        if quantizer is None or weights is None or not weights.is_enabled:
            continue
        channels = getattr(quantizer, "_amax_for_smoothing", None)
        largest = float(channels.max()) if channels is not None else _amax(quantizer)
        if options.recipe != "int4_awq" and not largest > 0:
            raise CheckpointError(
                f"every input of {name} was zero on the calibration text",
                why="its largest input is to become its scale; the layer before it may hold nothing but zeros",
                fix="calibrate with another text, or look at the layer's weights",
            )
        prequant = getattr(quantizer, "_pre_quant_scale", None)
        found[name] = Inputs(
            largest,
            None if channels is None else channels.float().reshape(-1),
            None if prequant is None else prequant.float().reshape(-1),
        )
    return found


def _caches(network: nn.Module) -> tuple[float, ...]:
    found = [
        max(_amax(module.k_bmm_quantizer), _amax(module.v_bmm_quantizer))
        for module in network.modules()
        if hasattr(module, "k_bmm_quantizer")
    ]
    if not found or any(not value > 0 for value in found):
        raise CheckpointError(
            "the keys and values of this model were not measured",
            why="ModelOpt knows the attention of another kind of model, or every key and value was zero",
            fix="leave the KV cache in its own type: --kv-cache none",
        )
    return tuple(found)


def _amax(quantizer: Any) -> float:
    found = getattr(quantizer, "_amax", None)
    return math.nan if found is None else float(found.max())


def merge(given: Sequence[Inputs]) -> Inputs:
    """Layers that read the same input share its factors (the mean of theirs) and its range (the largest).

    Their errors count together.
    """
    if known := [one.gram for one in given if one.gram is not None]:
        return Inputs(math.nan, gram=torch.stack(known).sum(0))
    factors = [one.prequant for one in given if one.prequant is not None]
    channels = [one.channel_max for one in given if one.channel_max is not None]
    prequant = torch.stack(factors).mean(0) if factors else None
    if prequant is None or not channels:
        return Inputs(max(one.largest for one in given), None, prequant)
    shared = torch.stack(channels).amax(0)
    return Inputs(float((shared * prequant).max()), shared, prequant)
