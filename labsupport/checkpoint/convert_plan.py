"""What a conversion will do, before it does it: every tensor of every rank, held against its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, Mapping, read_json
from labsupport.checkpoint.config_hf import config_from_hf
from labsupport.checkpoint.convert_joined import JoinedSource, is_checkpoint
from labsupport.checkpoint.convert_source import FolderSource, Source
from labsupport.checkpoint.layout import Row, joined_rows, rows
from labsupport.checkpoint.layout_cut import Target, check_mapping, source_shapes, targets
from labsupport.checkpoint.tensor_bits import NAMES
from labsupport.checkpoint.tensor_file import TensorInfo
from labsupport.errors import CheckpointError, ParameterError


@dataclass(frozen=True)
class Options:
    """How the checkpoint is to be.

    Args:
        dtype: float32, float16, bfloat16, or auto: that of the source. (TensorRT-LLM's auto makes float32 float16.)
        tp_size: tensor-parallel ranks.
        pp_size: pipeline stages.
        use_parallel_embedding: split the embedding over the tensor-parallel ranks.
        embedding_sharding_dim: 0 splits its vocabulary, 1 its hidden size.
    """

    dtype: str = "auto"
    tp_size: int = 1
    pp_size: int = 1
    use_parallel_embedding: bool = False
    embedding_sharding_dim: int = 0

    def recipe(self, dtype: str) -> str:
        """The name of the folder, for example ``float32-tp1`` or ``bfloat16-tp2-pp2-embed0``."""
        stages = f"-pp{self.pp_size}" if self.pp_size > 1 else ""
        embedding = f"-embed{self.embedding_sharding_dim}" if self.use_parallel_embedding else ""
        return f"{dtype}-tp{self.tp_size}{stages}{embedding}"


@dataclass(frozen=True)
class Plan:
    """A conversion, ready to run: the config, and the tensors of each rank in order."""

    config: CheckpointConfig
    ranks: tuple[tuple[Target, ...], ...]

    @property
    def kind(self) -> str:
        """The type of every tensor, as a safetensors header names it."""
        return NAMES[self.config.dtype]

    def infos(self, rank: int) -> dict[str, TensorInfo]:
        """Name -> type and shape, in the order of the rank's file."""
        return {target.name: TensorInfo(self.kind, target.shape) for target in self.ranks[rank]}

    def bytes(self, rank: int) -> int:
        """The bytes of a rank's tensors."""
        return sum(info.bytes for info in self.infos(rank).values())


def open_source(folder: Path) -> Source:
    """The tensors of a Hugging Face folder, or of a TensorRT-LLM checkpoint joined over its ranks.

    Raises:
        CheckpointError: neither can be read from it.
    """
    return JoinedSource(folder) if is_checkpoint(folder) else FolderSource(folder)


def make_plan(source: Source, options: Options, config_file: Path | None = None) -> Plan:
    """Lay a conversion out and check that the source holds what it takes.

    Args:
        source: the tensors.
        config_file: the Hugging Face ``config.json``, where it does not lie beside the tensors. With a checkpoint as
            the source, it replaces the checkpoint's own (ModelOpt's leaves out what it cannot find, as rotary_base).

    Raises:
        CheckpointError: an unknown architecture; a tensor is missing, left over, or of another shape or type.
        ParameterError: an option that does not fit the model.
    """
    for name in ("tp_size", "pp_size"):
        if getattr(options, name) < 1:
            raise ParameterError(
                f"{name} is {getattr(options, name)}", why="there is at least one rank", fix="use 1 or more"
            )
    mapping = Mapping.of(options.tp_size, options.pp_size)
    joined = isinstance(source, JoinedSource)
    if isinstance(source, JoinedSource) and config_file is None:
        config = source.reshaped(options.dtype, mapping, options.use_parallel_embedding, options.embedding_sharding_dim)
        check_mapping(config)
    else:
        config_file = config_file or source.folder / CONFIG
        config = config_from_hf(
            read_json(config_file),
            dtype="float32" if options.dtype == "auto" else options.dtype,
            mapping=mapping,
            use_parallel_embedding=options.use_parallel_embedding,
            embedding_sharding_dim=options.embedding_sharding_dim,
            origin=str(config_file),
        )
    table = joined_rows(config) if joined else rows(config)
    if options.dtype == "auto":
        config = config.model_copy(update={"dtype": _source_dtype(source, table)})
    _check_source(source, config, table)
    return Plan(config, tuple(tuple(targets(config, rank, table)) for rank in range(mapping.files)))


def _source_dtype(source: Source, table: Sequence[Row]) -> str:
    kind = source.info(table[0].source).kind
    return next((name for name, kind_of in NAMES.items() if kind_of == kind), "float32")


def _check_source(source: Source, config: CheckpointConfig, table: Sequence[Row]) -> None:
    shapes = source_shapes(config, table)
    for name, shape in shapes.items():
        info = source.info(name)
        if info.kind not in NAMES.values():
            raise CheckpointError(
                f"tensor {name} is of type {info.kind}",
                why="a float checkpoint is made from F32, F16 or BF16; others are quantized or converted already",
                fix="convert the unquantized model; save float64 as float32 first",
            )
        if info.shape != shape:
            raise CheckpointError(
                f"tensor {name} has the shape {list(info.shape)}, and config.json makes it {list(shape)}",
                why="config.json and the weights belong to different models, or one of them was edited",
                fix="get both from the same place",
            )
    if left := source.leftovers(set(shapes)):
        raise CheckpointError(
            f"{len(left)} tensors of the source have no place in a {config.architecture}: {', '.join(left[:3])}",
            why="leaving them out would make another model; an adapter or another architecture may be mixed in",
            fix="merge adapters first, or correct config.json",
        )
