"""Our engine's files for a comparison: the model converted or quantized, and built, each step done once."""

from __future__ import annotations

from pathlib import Path

from labsupport.checkpoint.convert import convert
from labsupport.checkpoint.convert_plan import Options
from labsupport.checkpoint.quantize.quantize import quantize_model
from labsupport.checkpoint.quantize.recipes import QuantizeOptions
from labsupport.engine.build import build


def engine_of(model: Path, precision: str) -> Path:
    """The engine folder of a Hugging Face folder: ``fp32``, ``bf16``, ``int8`` (W8A16) or ``int4`` (groups of 64).

    At int8 the head has 8 bits too, as it has in the other engines; at int4 it keeps 16, as in TensorRT-LLM.
    """
    if precision == "int8":
        checkpoint = quantize_model(model, QuantizeOptions("int8_wo", dtype="bfloat16", quantize_lm_head=True)).folder
    elif precision == "int4":
        checkpoint = quantize_model(model, QuantizeOptions("int4_rtn", dtype="bfloat16")).folder
    else:
        dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
        checkpoint = convert(model, Options(dtype)).folder
    return build(checkpoint).folder
