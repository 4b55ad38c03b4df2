"""What an engine is built for: the limits and layouts of ``trtllm-build``, by its own names.

Source: TensorRT-LLM 0.20, ``tensorrt_llm/builder.py`` (BuildConfig) and ``plugin/plugin.py``. World size and precision
are no options: they stand in the checkpoint.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.errors import ParameterError

KvCacheType = Literal["paged", "continuous", "disabled"]


class PluginConfig(BaseModel):
    """``plugin_config``: the part of it that an engine's user needs to know.

    Args:
        tokens_per_block: tokens in a block of the paged KV cache; a power of two.
        paged_kv_cache, remove_input_padding, use_paged_context_fmha: how this engine works, always.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    tokens_per_block: int = Field(default=32, ge=1)
    paged_kv_cache: Literal[True] = True
    remove_input_padding: Literal[True] = True
    use_paged_context_fmha: Literal[True] = True


class BuildConfig(BaseModel):
    """The build options. ``trtllm-build`` has larger defaults (2048 requests, 8192 tokens): they cost memory.

    Args:
        max_batch_size: requests that are served at once.
        max_input_len: tokens of a prompt.
        max_seq_len: prompt and output together; the model's ``max_position_embeddings`` where it is None.
        max_num_tokens: tokens of one step, over all requests; a longer prompt is run in chunks.
        max_beam_width: beams of a request.
        kv_cache_type: this engine has the paged one.
        gather_context_logits: whether the logits of every prompt token can be asked for.
        gather_generation_logits: whether those of every generated token can.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    max_batch_size: int = Field(default=8, ge=1)
    max_input_len: int = Field(default=1024, ge=1)
    max_seq_len: int | None = Field(default=None, ge=2)
    max_num_tokens: int = Field(default=1024, ge=1)
    max_beam_width: int = Field(default=1, ge=1)
    kv_cache_type: KvCacheType = "paged"
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    plugin_config: PluginConfig = PluginConfig()

    @property
    def tokens_per_block(self) -> int:
        """Tokens in a block of the KV cache."""
        return self.plugin_config.tokens_per_block

    @property
    def max_rows(self) -> int:
        """Sequences that one step of generation may hold: every beam of every request."""
        return self.max_batch_size * self.max_beam_width

    @property
    def length(self) -> int:
        """``max_seq_len``, once :func:`resolve` has filled it in."""
        return self.max_seq_len or self.max_input_len

    @property
    def max_blocks(self) -> int:
        """Blocks of the longest sequence."""
        return -(-self.length // self.tokens_per_block)


def build_config(tokens_per_block: int = 32, **options: Any) -> BuildConfig:
    """The options as keywords, ``tokens_per_block`` among them.

    Raises:
        ParameterError: a value that is no option.
    """
    unknown = sorted(set(options) - set(BuildConfig.model_fields))
    if unknown:
        raise ParameterError(
            f"build has no option '{unknown[0]}'",
            why=f"the options are {', '.join(BuildConfig.model_fields)}, tokens_per_block",
            fix="leave it out; trtllm-build has more, and `labs build --backend tensorrt_llm` prints its line",
        )
    try:
        return BuildConfig(plugin_config=PluginConfig(tokens_per_block=tokens_per_block), **options)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise ParameterError(
            f"{first['loc'][-1]} {first['input']!r}",
            why=str(first["msg"]),
            fix=f"use --{first['loc'][-1]} with a value in range",
        ) from None


def resolve(options: BuildConfig, model: CheckpointConfig) -> tuple[BuildConfig, tuple[str, ...]]:
    """The options with nothing left open, and what was changed, in sentences.

    Raises:
        ParameterError: limits that contradict each other, or that the model cannot serve.
    """
    notes = []
    context = model.max_position_embeddings
    length = options.max_seq_len or context or 2048
    if context is not None and length > context:
        raise ParameterError(
            f"max_seq_len {length} is beyond the {context} positions of the model",
            why="it has seen no later position; trtllm-build warns, and the output would be noise",
            fix=f"--max_seq_len {context}",
        )
    longest = options.max_input_len
    if longest > length:
        notes.append(f"max_input_len {longest} is clipped to max_seq_len {length}, as trtllm-build does")
        longest = length
    if options.kv_cache_type != "paged":
        raise ParameterError(
            f"kv_cache_type {options.kv_cache_type}",
            why="this engine batches in flight, and that needs the paged cache",
            fix="--kv_cache_type paged",
        )
    block = options.tokens_per_block
    if block & (block - 1):
        raise ParameterError(
            f"tokens_per_block {block} is not a power of two",
            why="TensorRT-LLM's kernels find a token's block by shifting bits",
            fix="--tokens_per_block 32",
        )
    if options.max_num_tokens < options.max_rows:
        raise ParameterError(
            f"max_num_tokens {options.max_num_tokens} is below max_batch_size x max_beam_width = {options.max_rows}",
            why="each step of generation runs one token for every sequence",
            fix=f"--max_num_tokens {options.max_rows} or more",
        )
    return options.model_copy(update={"max_seq_len": length, "max_input_len": longest}), tuple(notes)
