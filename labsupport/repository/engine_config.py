"""What a repository needs to know of an engine, read from the ``config.json`` that ``trtllm-build`` writes.

Source: TensorRT-LLM 0.20, ``tensorrt_llm/builder.py`` (``EngineConfig``: version, pretrained_config, build_config).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from labsupport.errors import RepositoryError

CONFIG = "config.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class EngineMapping(_Part):
    """How the engine is spread: one ``rankN.engine`` a rank."""

    world_size: int = Field(default=1, ge=1)
    tp_size: int = Field(default=1, ge=1)
    pp_size: int = Field(default=1, ge=1)


class Plugins(_Part):
    """``build_config.plugin_config``, as far as serving depends on it."""

    use_paged_context_fmha: bool = False
    tokens_per_block: int = 32
    lora_plugin: str | None = None


class LoraSettings(_Part):
    """``build_config.lora_config``."""

    max_lora_rank: int = 64


class Limits(_Part):
    """``build_config``: the limits that were built in, in tokens and requests."""

    max_batch_size: int = Field(default=2048, ge=1)
    max_input_len: int = Field(default=1024, ge=1)
    max_seq_len: int | None = None
    max_num_tokens: int = Field(default=8192, ge=1)
    max_beam_width: int = Field(default=1, ge=1)
    kv_cache_type: str | None = None
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    plugin_config: Plugins = Plugins()
    lora_config: LoraSettings = LoraSettings()


class Pretrained(_Part):
    """``pretrained_config``: the checkpoint's config, as far as serving depends on it."""

    architecture: str = "unknown"
    vocab_size: int = Field(ge=1)
    logits_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    mapping: EngineMapping = EngineMapping()


class EngineConfig(_Part):
    """An engine folder, as its repository sees it."""

    version: str
    pretrained_config: Pretrained
    build_config: Limits

    @property
    def padded_vocab_size(self) -> int:
        """Entries of one token's logits: the vocabulary, padded so that the ranks divide it."""
        ranks = self.pretrained_config.mapping.tp_size
        return -(-self.pretrained_config.vocab_size // ranks) * ranks

    @property
    def reuses_kv_cache(self) -> bool:
        """Whether the engine can reuse blocks and take a prompt in chunks: it needs paged context attention."""
        limits = self.build_config
        return limits.plugin_config.use_paged_context_fmha and (limits.kv_cache_type or "PAGED").upper() == "PAGED"

    @property
    def logits_type(self) -> str:
        """Triton's type of the logits; the C++ backend knows these two only."""
        return "TYPE_FP16" if self.pretrained_config.logits_dtype == "float16" else "TYPE_FP32"

    def rank_files(self) -> list[str]:
        """The engine files that must lie beside ``config.json``."""
        return [f"rank{rank}.engine" for rank in range(self.pretrained_config.mapping.world_size)]


def read_engine(folder: Path, *, whole: bool = True) -> EngineConfig:
    """Read ``folder/config.json``.

    Args:
        whole: also ask for every rank's file.

    Raises:
        RepositoryError: no such folder, no engine's config, or a rank's file is missing.
    """
    path = folder / CONFIG
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RepositoryError(
            f"{path} does not exist",
            why="an engine folder holds config.json and one rankN.engine for each rank",
            fix="name the folder that the engine build wrote (its --output_dir)",
        ) from None
    except (ValueError, OSError) as problem:
        raise RepositoryError(
            f"{path} cannot be read: {problem}", why="the file was cut short or edited", fix="build the engine again"
        ) from None
    config = _parse(raw, path)
    missing = [name for name in config.rank_files() if whole and not (folder / name).is_file()]
    if missing:
        raise RepositoryError(
            f"{folder} lacks {', '.join(missing)}",
            why=f"config.json tells of {config.pretrained_config.mapping.world_size} rank(s), each with its own file",
            fix="copy the missing files, or build the engine again",
        )
    return config


def _parse(raw: object, path: Path) -> EngineConfig:
    if isinstance(raw, dict) and "build_config" not in raw:
        raise RepositoryError(
            f"{path} is not an engine's config: it has no build_config",
            why="a checkpoint and a Hugging Face folder have a config.json too; only a build writes build_config",
            fix="name the folder that the engine build wrote (its --output_dir)",
        )
    try:
        return EngineConfig.model_validate(raw)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise RepositoryError(
            f"{path}: {'.'.join(str(part) for part in first['loc']) or 'the file'}: {first['msg']}",
            why="the engine was built by another version, or the file was edited",
            fix="build the engine again with the version that serves it",
        ) from None
