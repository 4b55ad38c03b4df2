"""``load``: a model and its tokenizer in memory, ready to be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from labsupport.errors import ModelError, ParameterError
from labsupport.models.fetching import fetch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16")


def load(name_or_path: str | Path, *, dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model in evaluation mode, with its tokenizer.

    Args:
        name_or_path: a catalogue name, a hub id or a local folder; it is fetched where it is missing.
        dtype: the weights' type in memory: float32, bfloat16 or float16.

    Raises:
        ModelError: the folder is not one that transformers can load without running code from it.
        ParameterError: another dtype.

    Example:
        >>> model, tokenizer = load("smollm2-135m-instruct")
        >>> prompt = tokenizer("The capital of France is", return_tensors="pt")
        >>> tokenizer.decode(model(**prompt).logits[0, -1].argmax())
        ' Paris'
    """
    if dtype not in DTYPES:
        raise ParameterError(
            f"dtype {dtype!r}", why="weights are loaded in a floating type", fix=f"one of {', '.join(DTYPES)}"
        )
    folder = fetch(str(name_or_path))
    import torch
    from transformers import AutoModelForCausalLM

    from labsupport.models.quiet import quiet_transformers

    try:
        with quiet_transformers():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (ValueError, OSError, KeyError, RuntimeError) as problem:
        raise _unloadable(folder, str(problem) or type(problem).__name__) from problem
    if report["missing_keys"]:  # transformers would fill them with random numbers
        raise _unloadable(folder, f"its files lack weights, among them {min(report['missing_keys'])}")
    return model.eval(), load_tokenizer(folder)


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer alone.

    Raises:
        ModelError: the folder's tokenizer is not one that transformers can load without running code from it.
    """
    folder = fetch(str(name_or_path))
    from transformers import AutoTokenizer

    from labsupport.models.quiet import quiet_transformers

    try:
        with quiet_transformers():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (ValueError, OSError, KeyError) as problem:
        raise _unloadable(folder, str(problem) or type(problem).__name__) from problem
    return tokenizer


def _unloadable(folder: Path, problem: str) -> ModelError:
    return ModelError(
        f"transformers cannot load {folder}",
        why=next(line.strip() for line in problem.splitlines() if line.strip()),
        fix="name a causal language model of a family that transformers knows; code from the folder is not run",
    )
