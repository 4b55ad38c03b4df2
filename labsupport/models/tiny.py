"""Tiny random models of real families, for tests: the whole architecture, a few thousand weights, made in a blink.

Every parameter is random, also norms and biases, which an ordinary initialization leaves at 1 and 0: a conversion that
drops a bias or swaps two norms then changes the logits, and a test sees it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labsupport.errors import ParameterError
from labsupport.models.quiet import quiet_transformers
from labsupport.workspace import atomic_folder

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>")  # the first three as in SmolLM2
VOCABULARY = 256 + len(SPECIAL_TOKENS)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,  # divides by tensor parallel sizes 1, 2 and 4
    "max_position_embeddings": 512,
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# What a family has of its own. Heads of 16 make heads x head_dim differ from hidden_size; a window of 16 bites.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "tie_word_embeddings": False},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "gemma": {"model_type": "gemma", "num_key_value_heads": 1, "head_dim": 16},
    "gemma2": {"model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 32, "sliding_window": 16},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "query_pre_attn_scalar": 32,
        "sliding_window": 16,
    },
    "opt": {"model_type": "opt", "word_embed_proj_dim": 64},
    "gpt2": {"model_type": "gpt2"},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
}
OWN_NAMES = {"gpt2": {"intermediate_size": "n_inner"}, "opt": {"intermediate_size": "ffn_dim"}}
MULTI_HEAD = ("gpt2", "opt")  # one key-value head for each head: the field does not exist


def make_tiny(family: str, folder: Path, *, seed: int = 0, **overrides: Any) -> Path:
    """Write a random model with its tokenizer to ``folder`` as Hugging Face does, in float32 safetensors.

    Args:
        family: llama, mistral, gemma, gemma2, gemma3, opt, gpt2, qwen2 or qwen3.
        folder: where; it is replaced if it exists.
        seed: the same seed gives the same weights.
        overrides: fields of the configuration, by their common names (``hidden_size``, ``num_hidden_layers``, ...)
            or the family's own.

    Returns:
        The folder: config.json, generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json.
        The tokenizer has one token a byte (ids 4 to 259) after four special tokens.

    Raises:
        ParameterError: an unknown family or field, or sizes that do not go together.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(family, **overrides)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        _randomize(model, torch.Generator().manual_seed(seed))
        with atomic_folder(folder) as making:
            model.save_pretrained(making)
            byte_tokenizer(config.max_position_embeddings).save_pretrained(making, save_jinja_files=False)
    return folder


def tiny_config(family: str, **overrides: Any) -> Any:
    """The configuration of ``make_tiny``, as transformers' own class of the family."""
    from transformers import AutoConfig

    if family not in FAMILIES:
        raise ParameterError(
            f"family {family!r}", why="no tiny model of it is known", fix=f"one of {', '.join(FAMILIES)}"
        )
    shape = {key: value for key, value in SHAPE.items() if not (family in MULTI_HEAD and key == "num_key_value_heads")}
    settings = {**shape, **FAMILIES[family], **overrides}
    if settings["vocab_size"] < VOCABULARY:
        raise ParameterError(
            f"vocab_size {settings['vocab_size']}",
            why=f"the byte tokenizer has {VOCABULARY} tokens",
            fix=f"{VOCABULARY} or more",
        )
    if settings["hidden_size"] % settings["num_attention_heads"]:
        raise ParameterError(
            f"hidden_size {settings['hidden_size']} with {settings['num_attention_heads']} heads",
            why="each head gets an equal part of the hidden size",
            fix="a hidden_size that the number of heads divides",
        )
    heads, groups = settings["num_attention_heads"], settings.get("num_key_value_heads", 1)
    if heads % groups:
        raise ParameterError(
            f"{heads} heads with {groups} key-value heads",
            why="each key-value head serves an equal number of heads",
            fix="a number of key-value heads that divides the number of heads",
        )
    if family == "gemma3":  # local layers, and one global at the end, for any number of layers
        local = settings["num_hidden_layers"] - 1
        settings.setdefault("layer_types", ["sliding_attention"] * local + ["full_attention"])
    model_type = settings.pop("model_type")
    own = {OWN_NAMES.get(family, {}).get(key, key): value for key, value in settings.items()}
    known = AutoConfig.for_model(model_type)
    unknown = [key for key in own if not hasattr(known, key)]
    if unknown:
        raise ParameterError(
            f"{family} has no setting {unknown[0]!r}",
            why="its configuration has no such field",
            fix="check the spelling",
        )
    return AutoConfig.for_model(model_type, **own)


def byte_tokenizer(max_length: int) -> Any:
    """A fast tokenizer with four special tokens and one token for each byte, and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={token: id for id, token in enumerate([*SPECIAL_TOKENS, *alphabet])}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end_of_text, start, end, unknown = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=start,
        eos_token=end,
        pad_token=end_of_text,
        unk_token=unknown,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
    )


def _randomize(model: Any, generator: Any) -> None:
    """Matrices with a spread of 0.2 (logits then spread by about 1.5); vectors 0.1 around where they start."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.2 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
