"""A GGUF file becomes an ordinary Hugging Face folder: float32 safetensors, tokenizer, chat template.

Dequantizing is exact in one direction only: the float32 weights are the numbers that the quantized file stands for,
not those that the model was trained with. The folder's record names the precision that was published.

Source: the GGUF specification of ggml; names and permutations as in transformers' ``modeling_gguf_pytorch_utils``.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from labsupport.models.catalogue import CatalogueModel
from labsupport.models.quiet import quiet_transformers


def convert_gguf(gguf: Path, folder: Path, model: CatalogueModel, *, progress: bool = True) -> dict[str, int]:
    """Write the Hugging Face folder of ``gguf`` into ``folder``; return how many tensors had which GGUF type.

    Weights are float32 in ``model.safetensors`` under their Hugging Face names; a tied output head is not stored.
    """
    with quiet_transformers(), contextlib.nullcontext() if progress else contextlib.redirect_stderr(io.StringIO()):
        config = _config(gguf)
        tokenizer = _tokenizer(gguf, model, config)
        _write_weights(gguf, folder, config)
        _write_tokenizer(tokenizer, folder)
        _write_configs(config, folder, [tokenizer.convert_tokens_to_ids(stop) for stop in model.stops])
    return _precisions(gguf)


def _config(gguf: Path) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.architectures = [AutoModelForCausalLM._model_mapping[type(config)].__name__]
    config.dtype = "float32"
    config.rms_norm_eps = _shortest(config.rms_norm_eps)
    return config


def _shortest(value: float) -> float:
    """The decimal that was meant: GGUF stores 1e-5 as a float32, which reads back as 9.999999747378752e-06."""
    import numpy as np

    return float(str(np.float32(value)))


def _write_weights(gguf: Path, folder: Path, config: Any) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with torch.device("meta"):  # names and shapes only; the weights come from the file
        skeleton = AutoModelForCausalLM.from_config(config)
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=skeleton)["tensors"]
    expected = {name: tuple(weight.shape) for name, weight in skeleton.state_dict().items()}
    if config.tie_word_embeddings:
        expected.pop("lm_head.weight")
    found = {name: tuple(weight.shape) for name, weight in tensors.items()}
    if found != expected:
        raise ValueError(
            f"{gguf.name} and its architecture differ in {sorted(set(found.items()) ^ set(expected.items()))}"
        )
    save_file(
        {name: weight.float().contiguous() for name, weight in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def _tokenizer(gguf: Path, model: CatalogueModel, config: Any) -> Any:
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = config.max_position_embeddings
    if model.split_digits:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    return tokenizer


def _write_tokenizer(tokenizer: Any, folder: Path) -> None:
    tokenizer.save_pretrained(folder, save_jinja_files=False)  # the template inside the config: older readers find it
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in ("backend", "is_local", "local_files_only"):
        settings.pop(key, None)
    if settings["tokenizer_class"] == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # the name that every version of transformers knows
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_configs(config: Any, folder: Path, stops: list[int]) -> None:
    """config.json as transformers 5 writes it, and beside it the names by which version 4 reads the same facts."""
    from transformers import GenerationConfig

    config.save_pretrained(folder)
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.pop("_model_name_or_path", None)
    settings["torch_dtype"] = settings["dtype"]
    if "rope_theta" in settings["rope_parameters"]:
        settings["rope_theta"] = settings["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=stops,
        pad_token_id=config.pad_token_id,
    ).save_pretrained(folder)


def _precisions(gguf: Path) -> dict[str, int]:
    from gguf import GGUFReader

    return dict(Counter(tensor.tensor_type.name for tensor in GGUFReader(gguf).tensors))
