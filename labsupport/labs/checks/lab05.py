"""Checks of lab 05, checkpoint conversion; and the broken checkpoint that its last exercise mends."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labsupport.checkpoint.config import CheckpointConfig, parse_config
from labsupport.checkpoint.config_old import translate
from labsupport.checkpoint.layout_cut import targets
from labsupport.labs.checks import Wrong, exercise, expect, expect_choice, show

Array = NDArray[np.float32]
Cut = Callable[..., Array]
MISNAMED = "rank01.safetensors"
COPIED_BIAS = "transformer.layers.0.attention.dense.bias"
SWAPPED = ("transformer.layers.1.mlp.fc", "transformer.layers.1.mlp.gate")


def qkv_of_rank(
    q: Array, k: Array, v: Array, heads: int, kv_heads: int, head_size: int, tp_size: int, tp_rank: int
) -> Array:
    """The rows of ``attention.qkv.weight`` on one rank: its queries, its keys, its values.

    Args:
        q: [heads * head_size, hidden]; k and v: [kv_heads * head_size, hidden].

    Returns:
        [(heads / tp_size + 2 * max(1, kv_heads / tp_size)) * head_size, hidden].
    """
    if kv_heads < tp_size:  # each KV head serves several ranks, neighbors first
        k, v = (
            np.repeat(part.reshape(kv_heads, head_size, -1), tp_size // kv_heads, axis=0).reshape(-1, part.shape[1])
            for part in (k, v)
        )
    assert heads % tp_size == 0
    return np.concatenate([np.split(part, tp_size)[tp_rank] for part in (q, k, v)])


def quant_algo(old: Mapping[str, Any]) -> str | None:
    """Today's ``quant_algo`` for the switches of 2023; None where no switch is on."""
    if old.get("use_smooth_quant"):
        channel = "PER_CHANNEL" if old.get("per_channel") else "PER_TENSOR"
        token = "PER_TOKEN_" if old.get("per_token") else "PER_TENSOR_" if old.get("per_channel") else ""
        return f"W8A8_SQ_{channel}_{token}PLUGIN"
    if old.get("enable_fp8"):
        return "FP8"
    if old.get("use_weight_only"):
        return {"int8": "W8A16", "int4": "W4A16"}[old.get("weight_only_precision", "int8")]
    return None


def repair(folder: Path) -> None:
    """Mend the checkpoint that ``broken_checkpoint`` wrote, in place."""
    from safetensors.numpy import load_file, save_file

    files = [folder / f"rank{rank}.safetensors" for rank in (0, 1)]
    (folder / MISNAMED).rename(files[1])
    bias = load_file(files[0])[COPIED_BIAS]
    for file in files:
        tensors = load_file(file)
        tensors[COPIED_BIAS] = bias
        for kind in ("weight", "bias"):
            fc, gate = (f"{name}.{kind}" for name in SWAPPED)
            tensors[fc], tensors[gate] = tensors[gate], tensors[fc]
        save_file(tensors, file)


def broken_checkpoint(home: Path) -> tuple[Path, Path]:
    """A tiny Llama with biases, converted for two ranks, with three faults planted.

    Args:
        home: where the folders ``model`` and ``checkpoint`` go.

    Returns:
        The checkpoint and the Hugging Face folder that it was made from.
    """
    from safetensors.numpy import load_file, save_file

    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options
    from labsupport.models.tiny import make_tiny

    model = make_tiny("llama", home / "model", num_hidden_layers=2, attention_bias=True, mlp_bias=True)
    folder = convert(model, Options(tp_size=2), output=home / "checkpoint", force=True).folder
    for rank in (0, 1):
        file = folder / f"rank{rank}.safetensors"
        tensors = load_file(file)
        for kind in ("weight", "bias"):
            fc, gate = (f"{name}.{kind}" for name in SWAPPED)
            tensors[fc], tensors[gate] = tensors[gate], tensors[fc]
        if rank == 1:
            tensors[COPIED_BIAS] = np.zeros_like(tensors[COPIED_BIAS])
        save_file(tensors, file)
    (folder / "rank1.safetensors").rename(folder / MISNAMED)
    return folder, model


@exercise("05.1", reference="c")
def prediction(attempt: str) -> None:
    """Why SmolLM2 is refused on nine ranks."""
    expect_choice(
        attempt,
        "c",
        reasons={
            "a": "9 heads over 9 ranks are one head each.",
            "b": "3 KV heads over 9 ranks: each is copied to 3 ranks, as each of Llama 3.1's 8 is copied at TP 16.",
            "d": "the vocabulary never stands in the way: rows of zeros pad it (49,152 becomes 9 x 5,462).",
        },
    )


@exercise("05.2", reference=qkv_of_rank)
def stacked_rows(attempt: Cut) -> None:
    """Held against the layout tables of ``labs convert``, on rows that carry their own names."""
    for heads, kv_heads, head_size, tp_size in _CASES:
        for rank in range(tp_size):
            parts = _named_rows(heads, kv_heads, head_size)
            want = _by_layout(parts, heads, kv_heads, head_size, tp_size, rank)
            got = np.asarray(attempt(*(part.copy() for part in parts), heads, kv_heads, head_size, tp_size, rank))
            expect(
                got.ndim == 2 and got.shape[1] == 1,
                f"expected rows of the 1 column that q, k and v have here; you got the shape {list(got.shape)}",
            )
            given = f"{heads} heads, {kv_heads} KV heads of size {head_size}, rank {rank} of {tp_size}"
            if _names(got) != _names(want):
                raise Wrong(f"For {given}:\n  you got  {_names(got)}\n  expected {_names(want)}")


@exercise("05.3", reference=quant_algo)
def translation(attempt: Callable[[dict[str, Any]], str | None]) -> None:
    """Held against the translation that ``labs inspect --translate`` prints."""
    for old in _old_switches():
        got, want = attempt(dict(old)), translate({"quantization": dict(old)}).config["quantization"]["quant_algo"]
        expect(got == want, f"For {old}:\n  you got  {show(got)}\n  expected {want!r}")


@exercise("05.4", reference=repair)
def mended(attempt: Callable[[Path], object]) -> None:
    """The mended checkpoint passes all rungs of ``labs verify``, its bytes those of the original."""
    from labsupport.checkpoint.verify import verify

    checkpoint, model = _broken_once()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(shutil.copytree(checkpoint, Path(home) / "checkpoint"))
        attempt(folder)
        verdict = verify(folder, model)
        if verdict.first_fault is not None:
            raise Wrong(f"labs verify still finds a fault: {verdict.first_fault}".replace(f"{folder}/", ""))
        left = [path.name for path in folder.glob("rank*.safetensors")]
        expect(len(left) == 2, f"two ranks need two files, and {', '.join(sorted(left))} are there")


_CASES = ((2, 2, 1, 1), (4, 2, 1, 2), (9, 3, 2, 3), (4, 2, 1, 4), (8, 1, 2, 4))


def _named_rows(heads: int, kv_heads: int, head_size: int) -> tuple[Array, Array, Array]:
    """Three one-column matrices whose values say which row of which matrix they are: 1003 is row 3 of k."""
    counts = (heads, kv_heads, kv_heads)
    rows = [np.arange(count * head_size, dtype=np.float32) + 1000 * part for part, count in enumerate(counts)]
    return rows[0][:, None], rows[1][:, None], rows[2][:, None]


def _names(rows: NDArray[Any]) -> str:
    return " ".join(f"{'qkv'[min(int(row) // 1000, 2)]}{int(row) % 1000}" for row in rows[:, 0])


def _by_layout(
    parts: tuple[Array, Array, Array], heads: int, kv_heads: int, head_size: int, tp_size: int, rank: int
) -> Array:
    target = next(one for one in targets(_config(heads, kv_heads, head_size, tp_size), rank) if "qkv" in one.name)
    return np.concatenate([part[slice(*piece.rows)] for part, piece in zip(parts, target.pieces, strict=True)])


def _config(heads: int, kv_heads: int, head_size: int, tp_size: int) -> CheckpointConfig:
    sizes = {"hidden_size": heads * head_size, "intermediate_size": 12, "vocab_size": 12, "num_hidden_layers": 1}
    counts = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_size": head_size}
    mapping = {"world_size": tp_size, "tp_size": tp_size, "pp_size": 1}
    return parse_config({"architecture": "LlamaForCausalLM", "dtype": "float32", "mapping": mapping} | sizes | counts)


def _old_switches() -> Iterator[dict[str, Any]]:
    yield {"use_weight_only": False, "weight_only_precision": "int8"}  # the notes' own
    yield {"use_weight_only": True}
    for bits in ("int8", "int4"):
        yield {"use_weight_only": True, "weight_only_precision": bits}
    for channel, token in product((True, False), repeat=2):
        yield {"use_smooth_quant": True, "per_channel": channel, "per_token": token}
    yield {"use_smooth_quant": True}
    yield {"enable_fp8": True, "use_weight_only": False, "weight_only_precision": "int8"}
    yield {"use_smooth_quant": False, "per_channel": False, "per_token": False}


@cache
def _broken_once() -> tuple[Path, Path]:
    home = Path(tempfile.mkdtemp(prefix="labs-broken-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return broken_checkpoint(home)
