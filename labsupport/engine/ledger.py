"""The memory ledger: what an engine takes, entry by entry, each with its formula and the numbers put in.

The arithmetic is that of ``labs doctor`` (:mod:`labsupport.doctor.memory`), laid out as an engine is: cache in whole
blocks, one step of ``max_num_tokens``, one share of ``tp``. The doctor's room knows no checkpoint, so this one reads
the sizes out of a checkpoint or an engine and hands them over.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, parse_config
from labsupport.doctor import memory
from labsupport.doctor.memory import PRECISIONS, Plan
from labsupport.doctor.shapes import Shape, find_shape
from labsupport.engine.build_config import BuildConfig
from labsupport.errors import ParameterError

PYTHON_BYTES = 235_000_000  # Python with torch, before any model; tests/test_engine_ledger.py prints it
GRAPH_BYTES = 15_000_000  # code of the compiled graphs and what loads them; measured with SmolLM2-135M


@dataclass(frozen=True)
class Source:
    """What the ledger is about.

    Args:
        precision: of the checkpoint or engine; None for a model that may still become anything.
        tp: likewise.
        build: the options of an engine, the default ones otherwise.
        weights: bytes of an engine's weight files, all ranks; None where there are no such files yet.
    """

    shape: Shape
    precision: str | None = None
    tp: int | None = None
    build: BuildConfig = field(default_factory=BuildConfig)
    weights: int | None = None


@dataclass(frozen=True)
class Entry:
    """One line: ``bytes``, and how they come about."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True)
class Ledger:
    """All that one device holds."""

    entries: tuple[Entry, ...]

    @property
    def total(self) -> int:
        """Bytes of all entries."""
        return sum(entry.bytes for entry in self.entries)

    def __getitem__(self, name: str) -> int:
        """Bytes of one entry."""
        return next(entry.bytes for entry in self.entries if entry.name == name)


def find_source(name: str) -> Source:
    """A known shape, a model of the workspace, or a folder: Hugging Face, checkpoint or engine.

    Raises:
        ParameterError: nothing of that name is known here.
        ModelError, CheckpointError: the folder's config.json cannot be used.
    """
    folder = Path(name).expanduser()
    raw = _read(folder / CONFIG)
    if "pretrained_config" in raw:
        config, files = parse_config(raw["pretrained_config"], str(folder / CONFIG)), folder.glob("rank*.safetensors")
        return replace(_source(config, folder), build=BuildConfig(**raw.get("build_config", {})),
                       weights=sum(path.stat().st_size for path in files) or None)  # fmt: skip
    if "architecture" in raw:
        return _source(parse_config(raw, str(folder / CONFIG)), folder)
    return Source(find_shape(name))


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there or damaged: find_shape says so
        return {}
    return raw if isinstance(raw, dict) else {}


def _source(config: CheckpointConfig, folder: Path) -> Source:
    title = "/".join(folder.resolve().parts[-2:])
    return Source(shape_of_config(config, title), precision_of(config), config.mapping.tp_size)


def shape_of_config(config: CheckpointConfig, title: str) -> Shape:
    """The sizes of a checkpoint's model; its weights are counted from the layout tables, a tied head not twice.

    A head of fewer bits is no longer the table, and counts beside it, as if it had the bits of the table.
    """
    from labsupport.checkpoint.expected import is_quantized
    from labsupport.checkpoint.layout_cut import source_shapes

    shapes = source_shapes(config)
    shared = config.tie_word_embeddings or "lm_head.weight" not in shapes
    tied = shared and not is_quantized(config, "lm_head")
    kept = [shape for name, shape in shapes.items() if name != "lm_head.weight"]
    kept += [] if tied else [(config.vocab_size, config.hidden_size)]
    return Shape(
        title=title,
        architecture=config.architecture,
        parameters=sum(math.prod(shape) for shape in kept),
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_size=config.head_size,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        tied=tied,
        context=config.max_position_embeddings or 2048,
    )


def precision_of(config: CheckpointConfig) -> str:
    """The row of the doctor's table that a checkpoint belongs to."""
    algorithm = config.quantization.quant_algo if config.quantization.quantized else None
    if algorithm is None:
        return config.dtype
    return "fp8" if algorithm.startswith("FP8") else "int4" if algorithm.startswith("W4") else "int8"


def plan_for(build: BuildConfig, *, gpu: bool, tp: int, length: int) -> Plan:
    """The layout: TensorRT-LLM's flash attention on a GPU; on a CPU our engine, which writes its scores out.

    A GPU's step is that of ``trtllm-build``'s defaults; ours is shorter, and a sequence may be shorter still.
    """
    block = build.tokens_per_block
    if gpu:
        return Plan(tp, memory.STEP_TOKENS, block)
    return Plan(tp, min(build.max_num_tokens, length), block, length, PYTHON_BYTES + GRAPH_BYTES)


def check_tp(shape: Shape, tp: int) -> None:
    """Whether ``tp`` devices can share the model.

    Raises:
        ParameterError: heads would be cut in two.
    """
    if tp < 1 or shape.heads % tp or (shape.kv_heads % tp and tp % shape.kv_heads):
        fitting = [str(n) for n in range(1, shape.heads + 1)
                   if not shape.heads % n and not (shape.kv_heads % n and n % shape.kv_heads)]  # fmt: skip
        raise ParameterError(
            f"tp {tp} does not fit {shape.title}",
            why=f"{shape.heads} attention heads and {shape.kv_heads} KV heads are shared out whole",
            fix=f"--tp {' or '.join(fitting)}",
        )


def ledger(source: Source, precision: str, plan: Plan, *, batch: int, length: int) -> Ledger:
    """What one device holds while ``batch`` sequences of ``length`` tokens are served.

    Args:
        source: the model; an engine's weights are those of its files where the plan and the precision are its own.

    Example:
        >>> from labsupport.doctor.shapes import known_shapes
        >>> llama = Source(known_shapes()["llama-2-7b"])
        >>> ledger(llama, "float16", Plan(tokens_per_block=32), batch=8, length=2048)["KV cache"] == 8 * 2**30
        True
    """
    shape, form, tp = source.shape, PRECISIONS[precision], plan.tp
    linear, table = shape.parameters - shape.table_parameters, shape.vocab * shape.hidden
    tables = 1 if shape.tied and tp == 1 else 2
    share = "" if tp == 1 else f" / {tp}"
    weights = f"{linear:,} x {form.bits / 8:g} B{share} + {table:,} x {form.rest_bytes} B"
    weights += f" + {table:,} x {form.rest_bytes} B{share}" if tables == 2 else " (tied head)"
    taken = memory.weight_bytes(shape, precision, tp)
    if source.weights is not None and (precision, tp) == (source.precision, source.tp):
        taken, weights = source.weights, f"the engine's files; by the formula {taken:,} = {weights}"
    per_token, block = memory.kv_bytes_per_token(shape, precision, tp), plan.tokens_per_block
    blocks = batch * -(-length // block)
    lines = [
        Entry("weights", taken, weights),
        Entry("KV cache", blocks * block * per_token,
              f"{blocks:,} blocks x {block} tokens x 2 x {shape.layers} layers x {-(-shape.kv_heads // tp)} KV heads x "
              f"{shape.head_size} x {form.kv_bytes} B"),
        Entry("activations", memory.step_bytes(shape, precision, plan),
              f"{plan.step_tokens:,} tokens x (2 x {shape.hidden:,} + 2 x {shape.intermediate:,}{share}) x "
              f"{form.rest_bytes} B"),
        Entry("scores", memory.score_bytes(shape, plan),
              f"{plan.step_tokens:,} tokens x {plan.score_keys:,} keys x "
              f"(2 x {shape.heads} heads{share} + 1 mask) x 4 B"),
        Entry("logits", memory.logit_bytes(shape, batch), f"{batch} x {shape.vocab:,} x 4 B"),
        Entry("fixed", plan.fixed, "CUDA context, kernels, workspaces: a rule of thumb" if not plan.score_keys else
              f"Python with torch {PYTHON_BYTES / 1e6:.0f} MB + compiled graphs {GRAPH_BYTES / 1e6:.0f} MB, measured"),
    ]  # fmt: skip
    return Ledger(tuple(line for line in lines if line.bytes))
