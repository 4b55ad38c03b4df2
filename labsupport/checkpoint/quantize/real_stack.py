"""The same recipes with TensorRT-LLM's own scripts: the exact call, what it calibrates, and what it makes up.

Not run here: TensorRT-LLM installs only in its container. Source: ``examples/quantization/quantize.py`` and the
``convert_checkpoint.py`` of each family, about 0.20.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.quantize.recipes import OURS, QuantizeOptions
from labsupport.checkpoint.real_stack import SCRIPTS, stack_call

SCRIPT = "examples/quantization/quantize.py"
SAMPLES, LENGTH = 512, 512  # --calib_size and --calib_max_seq_length, of cnn_dailymail


@dataclass(frozen=True)
class QuantizeCall:
    """One way to make a recipe in the container.

    Args:
        line: the command, to be pasted into a shell.
        notes: what is calibrated, what it takes, what is dummy; a sentence each.
    """

    line: str
    notes: tuple[str, ...]


def quantize_calls(
    options: QuantizeOptions, config: CheckpointConfig, source: Path, output: Path, *, tensorrt_llm: str | None = None
) -> list[QuantizeCall]:
    """The calls that make this recipe; none where the scripts have no way to.

    Args:
        config: of the checkpoint as ours is written (quantization settled).
        source: the Hugging Face folder.
        output: the folder to write.
        tensorrt_llm: the version; that of this environment, else that of the pinned container.

    Raises:
        ParameterError: that version has no script for the family.
    """
    calls = [_by_quantize(options, config, source, output)] if options.recipe not in OURS else []
    converted = _by_convert(options, config, source, output, tensorrt_llm)
    return calls + ([converted] if converted else [])


def _by_quantize(options: QuantizeOptions, config: CheckpointConfig, source: Path, output: Path) -> QuantizeCall:
    mapping = config.mapping
    argv = ["python3", str(SCRIPTS / SCRIPT), "--model_dir", str(source), "--dtype", config.dtype]
    argv += ["--qformat", options.recipe, "--tp_size", str(mapping.tp_size), "--pp_size", str(mapping.pp_size)]
    if options.recipe == "int4_awq":
        argv += ["--awq_block_size", str(config.quantization.group_size)]
    if options.quantize_lm_head:
        argv += ["--quantize_lm_head"]
    if options.kv_cache != "none":
        argv += ["--kv_cache_dtype", options.kv_cache]
    argv += ["--output_dir", str(output)]
    if not options.calibrated:
        notes = ["calibrates nothing: the scales follow from the weights, and trtllm-build makes the int8 values"]
    else:
        notes = [
            f"calibrates on {SAMPLES} articles of cnn_dailymail, up to {LENGTH} tokens each: {_work(options, config)}"
        ]
        notes += ["its dataset comes from a hub; without one, name a local copy with --calib_dataset"]
    if options.recipe == "int8_sq" and options.alpha != 1:
        notes += [f"it smooths with alpha 1, ModelOpt's own; ours used {options.alpha:g}"]
    return QuantizeCall(shlex.join(argv), tuple(notes))


def _by_convert(
    options: QuantizeOptions, config: CheckpointConfig, source: Path, output: Path, tensorrt_llm: str | None
) -> QuantizeCall | None:
    """``convert_checkpoint.py`` with its own quantization, where it makes a real one."""
    call = stack_call(config, source, output, tensorrt_llm=tensorrt_llm)
    gemma = config.architecture.startswith("Gemma")
    if options.recipe in ("int8_wo", "int4_wo") and options.kv_cache == "none" and not options.quantize_lm_head:
        precision = options.recipe.removesuffix("_wo")
        flags = ["--use_weight_only", "--weight_only_precision", precision]
        if gemma:
            flags = ["--use-weight-only-with-precision", precision]
        call = replace(call, argv=(*call.argv, *flags))
        return QuantizeCall(call.line, ("it may write int8 values in the layout of one GPU family, and takes no text",))
    if options.recipe == "int8_sq" and not gemma and options.kv_cache != "fp8":
        flags = ["--smoothquant", "0.5", "--per_channel"] + (["--int8_kv_cache"] if options.kv_cache == "int8" else [])
        call = replace(call, argv=(*call.argv, *flags))
        other = "writes W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN, whose tensors differ from ours; --per_token is dynamic"
        return QuantizeCall(call.line, (other,))
    if gemma and options.recipe in ("int4_awq", "fp8"):
        flag = "--use-weight-only-with-precision w4a16_awq" if options.recipe == "int4_awq" else "--enable_fp8"
        dummy = "AWQ factors" if options.recipe == "int4_awq" else "activation scales"
        return QuantizeCall(
            f"# not this: {call.line} {flag}",
            (f"Gemma's script writes dummy {dummy} with this flag: the engine builds, and answers nonsense or worse",),
        )
    return None


def _work(options: QuantizeOptions, config: CheckpointConfig) -> str:
    """How much is computed; AWQ tries 11 strengths of each layer in a second pass."""
    inner, hidden = config.intermediate_size, config.hidden_size
    heads = config.head_size * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    weights = config.num_hidden_layers * hidden * (heads + 3 * inner)
    passes = 1 + 12 if options.recipe == "int4_awq" else 1
    teraflop = 2 * weights * passes * SAMPLES * LENGTH / 1e12
    return f"about {teraflop:,.0f} TFLOP, seconds to minutes on a GPU" + (", AWQ the longest" if passes > 1 else "")
