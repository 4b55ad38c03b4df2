"""Where the tensors come from: a folder of safetensors files, with an index or without.

What other tools write is recognized by its files. What cannot be read here ends in a message that names the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from labsupport.checkpoint.config import read_json
from labsupport.checkpoint.tensor_bits import Array
from labsupport.checkpoint.tensor_file import TensorFile, TensorInfo
from labsupport.errors import CheckpointError

INDEX = "model.safetensors.index.json"
# What training leaves in a file and no inference needs; anything else that finds no place is an error.
_BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
_PREFIXES = ("model.", "transformer.")  # of the inner model: some files are saved without it


class Source(Protocol):
    """What conversion reads: tensors by their Hugging Face names, a few rows at a time."""

    @property
    def folder(self) -> Path:
        """Where they lie."""

    @property
    def files(self) -> list[Path]:
        """The files that it reads, for the record."""

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor."""

    def blocks(self, name: str, start: int, stop: int) -> Iterator[Array]:
        """Rows of a tensor, block by block."""

    def span(self, name: str) -> tuple[int, int] | None:
        """(descriptor, first byte) where the tensor's bytes lie in one run of a file; None where they do not."""

    def leftovers(self, used: set[str]) -> list[str]:
        """Tensors of the source that are not among ``used`` and that an inference engine would need."""

    def close(self) -> None:
        """Close the files."""


class FolderSource:
    """A Hugging Face folder; or a state dict saved as safetensors, of DeepSpeed or plain PyTorch, beside a config.json.

    Names are matched with and without the ``module.`` that wrappers put in front, and the ``model.`` or
    ``transformer.`` that a model saved without its head lacks.

    Raises:
        CheckpointError: no safetensors, a shard is missing or cut short, two files hold the same tensor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: list[TensorFile] = []
        self._homes: dict[str, TensorFile] = {}
        try:
            for path in tensor_files(folder):
                self._add(TensorFile(path))
            _require_indexed(folder, set(self._homes))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> FolderSource:
        return self

    def __exit__(self, _k: type[BaseException] | None, _v: BaseException | None, _t: TracebackType | None) -> None:
        self.close()

    @property
    def files(self) -> list[Path]:
        return [file.path for file in self._files]

    def info(self, name: str) -> TensorInfo:
        file, spelled = self._find(name)
        return file.tensors[spelled]

    def blocks(self, name: str, start: int, stop: int) -> Iterator[Array]:
        file, spelled = self._find(name)
        return file.blocks(spelled, start, stop)

    def span(self, name: str) -> tuple[int, int] | None:
        file, spelled = self._find(name)
        return file.fileno(), file.tensors[spelled].start

    def leftovers(self, used: set[str]) -> list[str]:
        read = {self._find(name)[1] for name in used}
        return [name for name in self._homes if name not in read and not name.endswith(_BUFFERS)]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _add(self, file: TensorFile) -> None:
        self._files.append(file)
        for name in file.tensors:
            if name in self._homes:
                raise CheckpointError(
                    f"tensor {name} is both in {self._homes[name].path.name} and in {file.path.name}",
                    why="two models, or two ways of sharding one, lie in the same folder",
                    fix="leave only the files of one model in the folder",
                )
            self._homes[name] = file

    def _find(self, name: str) -> tuple[TensorFile, str]:
        bare = next((name[len(prefix) :] for prefix in _PREFIXES if name.startswith(prefix)), name)
        for spelled in (name, bare, f"module.{name}"):
            if spelled in self._homes:
                return self._homes[spelled], spelled
        raise CheckpointError(
            f"{self.folder} has no tensor {name}",
            why="config.json and the weights belong to different models, or a shard is missing",
            fix="get the model again; labs inspect shows what a folder holds",
        )


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors files of a model: those of its index, or all.

    Raises:
        CheckpointError: there are none, or the index names one that is not there.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder", why="there is nothing at this path", fix="labs fetch   brings a model here"
        )
    if (folder / INDEX).is_file():
        index: dict[str, Any] = read_json(folder / INDEX)
        weights = index.get("weight_map")
        if not isinstance(weights, dict) or not weights:
            raise CheckpointError(
                f"{folder / INDEX} has no weight_map", why="the index is damaged", fix="get the file again"
            )
        missing = sorted({name for name in weights.values() if not (folder / name).is_file()})
        if missing:
            raise CheckpointError(
                f"{folder} lacks {len(missing)} of the {len(set(weights.values()))} files of its index: {missing[0]}",
                why="a download stopped early, or a file was moved",
                fix="get the missing files; nothing was converted",
            )
        return [folder / name for name in sorted(set(weights.values()))]
    if found := sorted(folder.glob("*.safetensors")):
        return found
    raise explain_foreign(folder)


def _require_indexed(folder: Path, held: set[str]) -> None:
    """Every tensor that the index promises must be in the file it names."""
    if not (folder / INDEX).is_file():
        return
    absent = [name for name in read_json(folder / INDEX)["weight_map"] if name not in held]
    if absent:
        raise CheckpointError(
            f"{folder} lacks the tensor {absent[0]} that its index promises" + f" (and {len(absent) - 1} more)",
            why="a shard was replaced by one of another model, or by an older version",
            fix="get the model again",
        )


def explain_foreign(folder: Path) -> CheckpointError:
    """What a folder without safetensors most likely is, and the way from it to one that can be converted."""
    names = [str(path.relative_to(folder)) for path in folder.glob("**/*") if len(path.relative_to(folder).parts) < 4]

    def has(*endings: str) -> bool:
        return any(name.endswith(endings) for name in names)

    if has(".nemo", "model_config.yaml") or "context/model.yaml" in names or "weights/metadata.json" in names:
        return CheckpointError(
            f"{folder} is a NeMo checkpoint",
            why="NeMo keeps its weights in the layout of Megatron, sharded by its own tools",
            fix="export it to Hugging Face with NeMo: llm.export_ckpt(path=..., target='hf', output_path=...)",
        )
    if has("checkpoint/_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", ".orbax-checkpoint", "flax_model.msgpack"):
        return CheckpointError(
            f"{folder} is a JAX checkpoint (Orbax or Flax)",
            why="it is written by JAX, and reading it needs JAX",
            fix="take the model's Hugging Face folder; or --backend tensorrt_llm for Gemma: --ckpt-type jax",
        )
    if has("_model_states.pt", "_optim_states.pt", "zero_to_fp32.py"):
        return CheckpointError(
            f"{folder} is a DeepSpeed training checkpoint",
            why="ZeRO spreads each tensor over pickle files, and a pickle file can run any code when it is opened",
            fix="python zero_to_fp32.py . out --safe_serialization   in that folder, then labs convert out",
        )
    if has(".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        return CheckpointError(
            f"{folder} holds its weights as pickle files only",
            why="a pickle file can run any code when it is opened, so the labs never open one",
            fix="where you trust it: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(new_folder)",
        )
    if has(".gguf"):
        return CheckpointError(
            f"{folder} holds a GGUF file",
            why="its weights are packed in blocks, with other names",
            fix="AutoModelForCausalLM.from_pretrained(folder, gguf_file=..., dtype='float32').save_pretrained(new)",
        )
    return CheckpointError(
        f"{folder} holds no safetensors files",
        why="conversion reads model.safetensors, or the files that model.safetensors.index.json names",
        fix="labs fetch   brings a model here",
    )
