"""From the tables to boxes: which part of which source tensor lands where, on each rank.

Every tensor of a rank is a stack of ``Piece``s, boxes cut out of source tensors, and perhaps rows of zeros at its end.
That is all that conversion does; the way back puts each box where it came from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.checkpoint.config_families import family_of
from labsupport.checkpoint.layout import Cut, Row, rows
from labsupport.errors import ParameterError

ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True)
class Piece:
    """A box of a source tensor that lands as whole rows of a target tensor.

    Args:
        source: the Hugging Face name.
        rows: (start, stop), counted in the target's orientation.
        columns: (start, stop), or None for a vector.
        transposed: the source is stored the other way round: the box is ``source.T[rows, columns]``.
        plus_one: 1 is added on the way.
    """

    source: str
    rows: tuple[int, int]
    columns: tuple[int, int] | None
    transposed: bool = False
    plus_one: bool = False

    @property
    def height(self) -> int:
        """Rows of the target that the box fills."""
        return self.rows[1] - self.rows[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The box's shape, in the target's orientation."""
        return (self.height,) if self.columns is None else (self.height, self.columns[1] - self.columns[0])


@dataclass(frozen=True)
class Target:
    """One tensor of one rank: the pieces from top to bottom, then rows of zeros."""

    name: str
    pieces: tuple[Piece, ...]
    zero_rows: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape on this rank."""
        height = sum(piece.height for piece in self.pieces) + self.zero_rows
        return (height, *self.pieces[0].shape[1:])


@dataclass(frozen=True)
class Origin:
    """Where a box of a source tensor is found in a checkpoint: rows from ``top`` on of a rank's tensor."""

    rank: int
    target: str
    top: int
    piece: Piece


@dataclass(frozen=True)
class Link:
    """A flow of bytes, for a Sankey, from a Hugging Face tensor (or ``zeros``) into a tensor of a rank."""

    source: str
    rank: int
    target: str
    bytes: int


def sizes(config: CheckpointConfig) -> dict[str, int]:
    """The words of ``Row.dims`` in numbers, for the whole model.

    Example: SmolLM2-135M has hidden 576, heads 9 * 64 = 576, kv 3 * 64 = 192, qkv 576 + 2 * 192 = 960.
    """
    heads, kv = config.num_attention_heads * config.head_size, config.num_key_value_heads * config.head_size
    return {
        "hidden": config.hidden_size,
        "inner": config.intermediate_size,
        "vocab": config.vocab_size,
        "positions": config.max_position_embeddings or 0,
        "head": config.head_size,
        "heads": heads,
        "kv": kv,
        "qkv": heads + 2 * kv,
    }


def targets(config: CheckpointConfig, rank: int, table: Sequence[Row] | None = None) -> list[Target]:
    """The tensors of a rank file, in the order in which they are written.

    Args:
        table: the rows to follow; the family's own where it is missing.

    Raises:
        ParameterError: the model cannot be cut this way (see ``check_mapping``).
    """
    check_mapping(config)
    mapping, layers = config.mapping, config.layers_of(rank)
    first, last = mapping.pp_rank(rank) == 0, mapping.pp_rank(rank) == mapping.pp_size - 1
    table, tp = table or rows(config), mapping.tp_rank(rank)
    found = [_target(config, row, None, 0, tp) for row in table if first and row.place == "first"]
    for local, layer in enumerate(layers):
        found += [_target(config, row, layer, local, tp) for row in table if row.place == "layer"]
    return found + [_target(config, row, None, 0, tp) for row in table if last and row.place == "last"]


def source_shapes(config: CheckpointConfig, table: Sequence[Row] | None = None) -> dict[str, tuple[int, ...]]:
    """The name and shape of every Hugging Face tensor that the model is made of."""
    found: dict[str, tuple[int, ...]] = {}
    for row in table or rows(config):
        for layer in range(config.num_hidden_layers) if row.place == "layer" else [None]:
            for source, start, count in _parts(config, row, layer):
                height = max(start + count, found.get(source, (0,))[0])
                found[source] = (height, *_width(config, row))
        if row.transposed:
            names = {name for layer in range(config.num_hidden_layers) for name in row.sources(layer)}
            found |= {name: found[name][::-1] for name in names}
    return found


def origins(config: CheckpointConfig, table: Sequence[Row] | None = None) -> dict[str, list[Origin]]:
    """For every source tensor, all the places of a checkpoint that hold a part of it: the way back."""
    found: dict[str, list[Origin]] = defaultdict(list)
    for rank in range(config.mapping.files):
        for target in targets(config, rank, table):
            top = 0
            for piece in target.pieces:
                found[piece.source].append(Origin(rank, target.name, top, piece))
                top += piece.height
    return dict(found)


def links(config: CheckpointConfig) -> list[Link]:
    """Every flow from a Hugging Face tensor into a rank's tensor. The bytes into a target are the target's bytes."""
    found = []
    for rank in range(config.mapping.files):
        for target in targets(config, rank):
            for piece in target.pieces:
                found.append(Link(piece.source, rank, target.name, _bytes(config, piece.shape)))
            if target.zero_rows:
                shape = (target.zero_rows, *target.shape[1:])
                found.append(Link("zeros", rank, target.name, _bytes(config, shape)))
    return found


def check_mapping(config: CheckpointConfig) -> None:
    """Whether the model can be spread like this.

    Raises:
        ParameterError: a size does not divide, or the family has no pipeline stages.
    """
    family, mapping = family_of(config.architecture), config.mapping
    tp, pp = mapping.tp_size, mapping.pp_size
    if pp > 1 and not family.pipeline:
        raise ParameterError(
            f"{family.name} cannot be split into pp_size {pp} pipeline stages",
            why="TensorRT-LLM's converter for this family knows tensor parallelism only",
            fix=f"use --pp 1 --tp {tp * pp}",
        )
    if pp > config.num_hidden_layers:
        raise ParameterError(
            f"pp_size {pp} is more than the model's {config.num_hidden_layers} layers",
            why="every pipeline stage needs at least one layer",
            fix=f"use --pp {config.num_hidden_layers} or fewer",
        )
    if reason := _indivisible(config, tp):
        fitting = [str(n) for n in range(1, config.num_attention_heads + 1) if not _indivisible(config, n)]
        raise ParameterError(
            f"tp_size {tp} does not fit this model", why=reason, fix=f"use --tp {' or '.join(fitting)}"
        )


def _indivisible(config: CheckpointConfig, tp: int) -> str:
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    if heads % tp:
        return f"{heads} attention heads do not divide by {tp}, and a head must not be cut in two"
    shares = family_of(config.architecture).shares_kv or kv == 1
    if kv % tp and not (shares and tp > kv and tp % kv == 0):
        return f"{kv} KV heads neither divide by {tp} nor can be repeated evenly over {tp} ranks"
    if config.intermediate_size % tp:
        return f"the feed-forward width {config.intermediate_size} does not divide by {tp}"
    if config.use_parallel_embedding and config.embedding_sharding_dim == 1 and config.hidden_size % tp:
        return f"the hidden size {config.hidden_size} does not divide by {tp}, along which the embedding is cut"
    return ""


def _target(config: CheckpointConfig, row: Row, layer: int | None, local: int, tp_rank: int) -> Target:
    cut, tp, width = _resolve(config, row.cut), config.mapping.tp_size, _width(config, row)
    columns = (0, width[0]) if width else None
    if cut == "in":
        each = width[0] // tp
        columns = (tp_rank * each, (tp_rank + 1) * each)
    pieces, zeros = [], 0
    for index, (source, start, count) in enumerate(_parts(config, row, layer)):
        top, stop = 0, count
        if cut == "vocab":
            each = -(-count // tp)
            top, stop = min(tp_rank * each, count), min((tp_rank + 1) * each, count)
            zeros = each - (stop - top)
        elif cut == "heads" and index and tp > config.num_key_value_heads:  # each KV head serves several ranks
            top = tp_rank * config.num_key_value_heads // tp * config.head_size
            stop = top + config.head_size
        elif cut in ("out", "heads"):
            top, stop = tp_rank * (count // tp), (tp_rank + 1) * (count // tp)
        pieces.append(Piece(source, (start + top, start + stop), columns, row.transposed, row.plus_one))
    return Target(row.name.replace("*", str(local)), tuple(pieces), zeros)


def _parts(config: CheckpointConfig, row: Row, layer: int | None) -> list[tuple[str, int, int]]:
    """The whole tensor as (source, first row in it, number of rows), from top to bottom."""
    size, names, height = sizes(config), row.sources(layer), row.dims.split()[0]
    if height != "qkv":
        return [(names[0], row.skip, size[height])]
    counts = (size["heads"], size["kv"], size["kv"])
    if len(names) == 3:
        return [(name, 0, count) for name, count in zip(names, counts, strict=True)]
    return [(names[0], sum(counts[:part]), count) for part, count in enumerate(counts)]


def _width(config: CheckpointConfig, row: Row) -> tuple[int, ...]:
    return tuple(sizes(config)[word] for word in row.dims.split()[1:])


def _resolve(config: CheckpointConfig, cut: Cut) -> Cut:
    if cut != "embedding":
        return cut
    if not config.use_parallel_embedding:
        return "whole"
    return "vocab" if config.embedding_sharding_dim == 0 else "in"


def _bytes(config: CheckpointConfig, shape: tuple[int, ...]) -> int:
    count = ITEMSIZE[config.dtype]
    for size in shape:
        count *= size
    return count
