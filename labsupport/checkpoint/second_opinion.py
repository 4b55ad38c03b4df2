"""A second opinion on a conversion: NVIDIA ModelOpt's own export of the same model, compared tensor by tensor.

ModelOpt 0.47 writes TensorRT-LLM checkpoints without a GPU and without TensorRT-LLM; 0.49 does so no more.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from labsupport.checkpoint.config import CONFIG, read_config
from labsupport.checkpoint.config_families import family_of
from labsupport.checkpoint.execution import config_differences
from labsupport.checkpoint.inspect import Difference, diff, inspect
from labsupport.errors import CheckpointError

# Our family -> ModelOpt's decoder type. For the others its export ends in an error: Gemma 2 and 3, OPT.
DECODER_TYPES = {
    "llama": "llama", "mistral": "llama", "gemma": "gemma", "gpt2": "gpt", "qwen2": "qwen", "qwen3": "qwen",
}  # fmt: skip


@dataclass(frozen=True)
class SecondOpinion:
    """How ModelOpt's export differs from our checkpoint.

    Args:
        folder: the export.
        tensors: compared on all ranks.
        differences: tensors that are not equal bit for bit, or that only one of the two has.
        config: fields of *its* config that would change the logits, one sentence each.
    """

    folder: Path
    tensors: int
    differences: tuple[Difference, ...]
    config: tuple[str, ...]


def second_opinion(checkpoint: Path, model: Path, folder: Path) -> SecondOpinion:
    """Export ``model`` with ModelOpt, cut as ``checkpoint`` is, and compare the two.

    Args:
        checkpoint: ours, float16 or bfloat16: ModelOpt writes no others.
        model: the Hugging Face folder.
        folder: where ModelOpt's export goes.

    Raises:
        CheckpointError: ModelOpt does not export the family, or is not installed.
    """
    config = read_config(checkpoint)
    decoder_type = DECODER_TYPES.get(family_of(config.architecture).name)
    if decoder_type is None:
        raise CheckpointError(
            f"ModelOpt does not export {config.architecture}",
            why=f"its TensorRT-LLM export knows {', '.join(DECODER_TYPES)}",
            fix="labs verify   proves the checkpoint without a second opinion",
        )
    mapping = config.mapping
    export(model, decoder_type, folder, dtype=config.dtype, tp_size=mapping.tp_size, pp_size=mapping.pp_size)
    return SecondOpinion(
        folder,
        sum(len(tensors) for tensors in inspect(checkpoint).files.values()),
        tuple(found for found in diff(checkpoint, folder) if found.where != CONFIG),
        tuple(config_differences(read_config(folder), model)),
    )


def export(
    model: Path, decoder_type: str, folder: Path, *, dtype: str = "float16", tp_size: int = 1, pp_size: int = 1
) -> Path:
    """ModelOpt's export of a Hugging Face folder, unquantized.

    Args:
        decoder_type: a value of ``DECODER_TYPES``.
        dtype: float16 or bfloat16; for float32 ModelOpt writes float16.

    Raises:
        CheckpointError: ModelOpt is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from labsupport.models.quiet import quiet_transformers

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that parts for GPUs are missing, which are not needed here
            from modelopt.torch.export import export_tensorrt_llm_checkpoint
    except ImportError as problem:
        raise CheckpointError(
            "ModelOpt is not installed", why=str(problem), fix="pip install 'nvidia-modelopt==0.47.*'"
        ) from problem
    with quiet_transformers(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        export_tensorrt_llm_checkpoint(
            network,
            decoder_type,
            dtype=getattr(torch, dtype),
            export_dir=folder,
            inference_tensor_parallel=tp_size,
            inference_pipeline_parallel=pp_size,
        )
    return folder
