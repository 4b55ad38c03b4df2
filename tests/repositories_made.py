"""Repositories for tests: an engine folder whose engine is never run, small tokenizers, a good repository."""

from __future__ import annotations

import atexit
import copy
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from labsupport.models.gemma_like import gemma_like_tokenizer
from labsupport.models.tiny import byte_tokenizer
from labsupport.repository.assemble import assemble
from labsupport.repository.model_config import Options

VOCABULARY = 512
ENGINE: dict[str, Any] = {
    "version": "0.20.0",
    "pretrained_config": {
        "architecture": "LlamaForCausalLM",
        "vocab_size": VOCABULARY,
        "logits_dtype": "float32",
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
    },
    "build_config": {
        "max_batch_size": 8,
        "max_input_len": 512,
        "max_seq_len": 1024,
        "max_num_tokens": 2048,
        "max_beam_width": 4,
        "kv_cache_type": "PAGED",
        "plugin_config": {"tokens_per_block": 32, "use_paged_context_fmha": True},
    },
}


@cache
def home() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="labs-repositories-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def engine_json(**changes: Any) -> dict[str, Any]:
    """The engine's config; ``build_config__max_batch_size=4`` reaches into its parts."""
    raw = copy.deepcopy(ENGINE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = raw
        for parent in parents:
            part = part[parent]
        part[last] = value
    return raw


def make_engine(folder: Path, **changes: Any) -> Path:
    """An engine folder: a config, and a file of a few bytes for each rank."""
    folder.mkdir(parents=True)
    raw = engine_json(**changes)
    (folder / "config.json").write_text(json.dumps(raw))
    for rank in range(raw["pretrained_config"]["mapping"]["world_size"]):
        (folder / f"rank{rank}.engine").write_bytes(b"engine")
    return folder


def sentencepiece_like() -> Any:
    """A tokenizer as Llama 2 has it: a space becomes a mark, the first is dropped again, unknown text becomes bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [
        "▁",
        "▁▁",
        *"abcdefghijklmnopqrstuvwxyz.,!?'",
        "▁a",
        "▁the",
        "▁is",
        "▁field",
        "learn",
        "ing",
        "▁machine",
        "é",
    ]
    special = ["<unk>", "<s>", "</s>", "<|turn|>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    backend = Tokenizer(
        models.Unigram([(piece, -float(rank)) for rank, piece in enumerate(pieces)], unk_id=0, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    template = "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}<|turn|>{% endfor %}"
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=template
    )


def word_piece() -> Any:
    """A tokenizer whose words are joined by spaces when they are decoded, as BERT's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "[UNK]",
        "[SEP]",
        *"abcdefghijklmnopqrstuvwxyz.,!?'",
        *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    ]
    backend = Tokenizer(models.WordPiece({piece: id for id, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]")


MAKERS = {
    "bytes": lambda: byte_tokenizer(1024),
    "gemma": gemma_like_tokenizer,
    "sentencepiece": sentencepiece_like,
    "wordpiece": word_piece,
}


@cache
def tokenizer(kind: str) -> Any:
    return MAKERS[kind]()


@cache
def tokenizer_folder(kind: str) -> Path:
    """A tokenizer, saved; its generation config names two end tokens."""
    folder = home() / f"tokenizer-{kind}"
    tokenizer(kind).save_pretrained(folder, save_jinja_files=False)
    end = tokenizer(kind).eos_token_id
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [end, 3]}))
    return folder


@cache
def _good(kind: str, decoupled: bool) -> Path:
    engine = home() / "engine"
    if not engine.exists():
        make_engine(engine)
    target = home() / f"good-{kind}-{decoupled}"
    return assemble(engine, tokenizer_folder(kind), Options(decoupled=decoupled), output=target).folder


def good(folder: Path, kind: str = "bytes", *, decoupled: bool = True) -> Path:
    """A copy of a freshly assembled repository."""
    shutil.copytree(_good(kind, decoupled), folder)
    return folder
