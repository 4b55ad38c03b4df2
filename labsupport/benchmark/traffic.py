"""What a served model must read and compute, and the rates that no server of it can beat on this machine."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.benchmark.limits import header
from labsupport.benchmark.machine import Limits
from labsupport.benchmark.served import Point, Share
from labsupport.errors import ModelError

TABLE = "vocab_embedding"  # only looked up, unless it is the head too
SIZES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1}
KV_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Traffic:
    """Bytes and operations of a checkpoint or an engine.

    Args:
        weight_bytes: read by each step, once for all requests in it.
        kv_bytes: of one token in the cache, read for each later token of its request.
        weights: numbers that a token is multiplied with.
        float32: the products are in float32, the type whose rate is measured.
    """

    weight_bytes: float
    kv_bytes: float
    weights: float
    float32: bool = True

    @property
    def flops(self) -> float:
        """Operations of a token: a multiplication and an addition for each weight. Attention is left out."""
        return 2 * self.weights

    def output_limit(self, limits: Limits, batch: float, given: float, new: float) -> float:
        """Output tokens a second of ``batch`` requests with ``given`` tokens in and ``new`` out.

        A step reads the weights once and each request's cache; prompts cost operations too.
        """
        context = given + new / 2
        memory = batch * limits.read / (self.weight_bytes + batch * context * self.kv_bytes)
        if not self.float32:
            return memory
        return min(memory, limits.flops / (self.flops * (given + new) / new))

    def ttft_limit(self, limits: Limits, given: float) -> float:
        """Seconds that a prompt of ``given`` tokens takes at least."""
        reading = self.weight_bytes / limits.read
        return max(reading, given * self.flops / limits.flops) if self.float32 else reading

    def share(self, one: Point, limits: Limits, slots: int) -> Share:
        """A point beside its limits; ``slots`` requests run at once at most."""
        given, new = one.input_tokens / one.requests, one.output_tokens / one.requests
        output = self.output_limit(limits, max(1.0, min(one.in_flight, slots)), given, new)
        first = self.ttft_limit(limits, given)
        return Share(output=one.output_rate.value / output, ttft=first / one.ttft.p50.value, output_limit=output,
                     ttft_limit=first)  # fmt: skip


def traffic_of(folder: Path) -> tuple[Traffic, int]:
    """The traffic of a TensorRT-LLM checkpoint or of one of our engines, all ranks, and its ``max_batch_size``.

    Raises:
        ModelError: the folder is neither.
    """
    try:
        raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = raw.get("pretrained_config", raw)
        heads, layers = config.get("num_key_value_heads") or config["num_attention_heads"], config["num_hidden_layers"]
        head = config.get("head_size") or config["hidden_size"] // config["num_attention_heads"]
        entries = [pair for file in sorted(folder.glob("rank*.safetensors")) for pair in header(file).items()]
    except (OSError, ValueError, KeyError) as problem:
        raise ModelError(
            f"{folder} is no checkpoint and no engine",
            why=f"{type(problem).__name__}: {problem}",
            fix="name the folder of labs build or labs convert",
        ) from None
    tensors = [(name, entry) for name, entry in entries if name != "__metadata__"]
    if not tensors:
        raise ModelError(
            f"no weights in {folder}", why="it has no rank*.safetensors", fix="name one of our engines or checkpoints"
        )
    tied = not any("lm_head" in name for name, _ in tensors)
    read = [(name, entry) for name, entry in tensors if tied or TABLE not in name]
    four_bit = "W4" in str((config.get("quantization") or {}).get("quant_algo"))
    count = sum(_numbers(name, entry, four_bit=four_bit) for name, entry in read)
    size = sum(math.prod(entry["shape"]) * SIZES[entry["dtype"]] for _, entry in read)
    kv = 2 * layers * heads * head * KV_BYTES.get(config["dtype"], 2)
    slots = int(raw.get("build_config", {}).get("max_batch_size", 1 << 30))
    return Traffic(size, kv, count, config["dtype"] == "float32"), slots


def _numbers(name: str, entry: dict[str, Any], *, four_bit: bool) -> int:
    """Weights of a tensor: an engine packs four bytes into a word, and four bits make two weights of a byte."""
    stored: int = math.prod(entry["shape"]) * (4 if name.endswith(".words") else 1)
    return stored * 2 if four_bit and (name.endswith(".words") or entry["dtype"] in ("I8", "U8")) else stored
