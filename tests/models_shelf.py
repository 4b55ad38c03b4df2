"""A shelf of small real wheels: a tiny model becomes a GGUF file, cut in parts, packed in wheels for pip."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from labsupport.models.catalogue import CatalogueModel, Wheel
from labsupport.models.local import read_json

MERGED = ["Ġt", "at"]  # tokens that the GGUF has beyond the bytes, each with its merge
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def use_index(monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    """Let pip see only what ``settings`` name (``PIP_...`` variables), whatever this machine has configured."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_CONFIG_FILE": os.devnull, **settings}.items():
        monkeypatch.setenv(name, value)


def write_gguf(folder: Path, path: Path) -> Path:
    """Write a tiny Llama with tied embeddings as llama.cpp does: its names, its order of rows in q and k, float32."""
    config, tokenizer = read_json(folder / "config.json"), read_json(folder / "tokenizer.json")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(50_000.0)
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].__getitem__) + MERGED
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if id < 4 else 1 for id in range(len(tokens))])
    writer.add_token_merges([f"{token[0]} {token[1]}" for token in MERGED])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(read_json(folder / "tokenizer_config.json")["chat_template"])
    for name, weight in load_file(folder / "model.safetensors").items():
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
        turned = next((interleave(weight, count) for key, count in heads.items() if key in name), weight)
        writer.add_tensor(_gguf_name(name), np.ascontiguousarray(turned))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from Hugging Face's order (all first halves, all second halves) to llama.cpp's (pair by pair)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _gguf_name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def shelve(path: Path, shelf: Path, *, parts: int = 2, terms: str | None = None) -> CatalogueModel:
    """Pack a GGUF file into ``parts`` wheels on ``shelf``, and return what a catalogue would say of it."""
    whole = path.read_bytes()
    cut = -(-len(whole) // parts)
    shelf.mkdir(exist_ok=True)
    wheels = tuple(_wheel(shelf, part + 1, whole[part * cut : (part + 1) * cut]) for part in range(parts))
    return CatalogueModel(
        name="shelf-llama",
        title="a random Llama",
        parameters=200_000,
        license="Apache-2.0",
        terms=terms,
        precision="float32",
        wheels=wheels,
        gguf=path.name,
        gguf_size=len(whole),
        gguf_sha256=hashlib.sha256(whole).hexdigest(),
        stops=("<|im_end|>", "<|endoftext|>"),
        split_digits=True,
    )


def _wheel(shelf: Path, number: int, payload: bytes) -> Wheel:
    package, info = f"shelf_llama_part{number}", f"shelf_llama_part{number}-1.0.dist-info"
    path, part = shelf / f"{package}-1.0-py3-none-any.whl", f"{package}/model.gguf.part{number}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(part, payload)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: shelf-llama-part{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(f"{info}/LICENSE", "the terms of a random model\n")
    return Wheel(
        requirement=f"shelf-llama-part{number}==1.0",
        filename=path.name,
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        part=part,
        notices=(f"{info}/LICENSE",) if number == 1 else (),
    )
