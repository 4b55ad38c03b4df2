"""The same conversion with TensorRT-LLM's own ``convert_checkpoint.py``: the exact call, and whether it can work.

Where each family's script stands in each version is in ``data/compatibility.json``. Not run here: TensorRT-LLM installs
only in its container.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from labsupport.checkpoint.config import CheckpointConfig
from labsupport.compatibility import load_compatibility, version_key
from labsupport.errors import CheckpointError, ParameterError

SCRIPTS = Path("TensorRT-LLM")  # a clone of the repository, where the container's user works


@dataclass(frozen=True)
class StackCall:
    """A call of ``convert_checkpoint.py``.

    Args:
        tensorrt_llm: the version it is for.
        script: relative to the root of the TensorRT-LLM repository.
        argv: the whole command.
    """

    tensorrt_llm: str
    script: str
    argv: tuple[str, ...]

    @property
    def line(self) -> str:
        """The command, to be pasted into a shell."""
        return shlex.join(self.argv)

    @property
    def clone(self) -> str:
        """How to get the scripts of exactly this version."""
        return (
            f"git clone --depth 1 --branch v{self.tensorrt_llm} https://github.com/NVIDIA/TensorRT-LLM {SCRIPTS}"
            if self.tensorrt_llm
            else ""
        )


def stack_call(
    config: CheckpointConfig, source: Path, output: Path, *, tensorrt_llm: str | None = None, scripts: Path = SCRIPTS
) -> StackCall:
    """The call that makes the checkpoint ``config`` describes.

    Args:
        config: as our own conversion would write it.
        source: the Hugging Face folder.
        tensorrt_llm: the version; that of this environment, else that of the pinned container.
        scripts: the clone of the TensorRT-LLM repository.

    Raises:
        ParameterError: that version has no script for the family, or the script cannot split it this way.
    """
    wanted = tensorrt_llm or installed_version() or load_compatibility().container().tensorrt_llm
    script = load_compatibility().convert_script(config.architecture, wanted)
    mapping, flags = config.mapping, [script.tp_flag, str(config.mapping.tp_size)]
    if mapping.pp_size > 1:
        if script.pp_flag is None:
            raise ParameterError(
                f"{script.path} cannot split {config.architecture} into pipeline stages",
                why="the script has no option for it",
                fix="use --pp 1",
            )
        flags += [script.pp_flag, str(mapping.pp_size)]
    if config.architecture.startswith("Gemma"):  # its config splits the embedding by itself; the script has no flag
        flags = ["--ckpt-type", "hf", *flags]
    elif config.use_parallel_embedding:
        flags += ["--use_parallel_embedding", "--embedding_sharding_dim", str(config.embedding_sharding_dim)]
    argv = ["python3", str(scripts / script.path), script.model_flag, str(source)]
    argv += ["--dtype", config.dtype, *flags, script.output_flag, str(output)]
    return StackCall(wanted, script.path, tuple(argv))


def installed_version() -> str | None:
    """The version of TensorRT-LLM in this environment; None where there is none. It is not imported."""
    try:
        return version("tensorrt_llm")
    except PackageNotFoundError:
        return None


def scripts_version(scripts: Path) -> str:
    """The version that a clone of the TensorRT-LLM repository is of.

    Raises:
        CheckpointError: the folder is no such clone.
    """
    path = scripts / "tensorrt_llm" / "version.py"
    found = re.search(r'__version__\s*=\s*"([^"]+)"', path.read_text(encoding="utf-8")) if path.is_file() else None
    if found is None:
        raise CheckpointError(
            f"{scripts} is not a clone of the TensorRT-LLM repository",
            why="tensorrt_llm/version.py is not there; the wheel holds the library, and not the conversion scripts",
            fix="clone the tag of your version, and name the folder with --scripts",
        )
    return found[1]


def require_same_version(scripts: Path, library: str) -> None:
    """Scripts and library must be of one version.

    A call that breaks between the two (an argument that lands on another's place, such as ``quant_config`` taken for
    ``mapping``) most likely comes from scripts of ``main`` in the container of a release: every version of the Gemma
    script that was read passes both by keyword, so within one version they cannot be mixed up. Likely, not proven.

    Raises:
        CheckpointError: they differ.
    """
    found = scripts_version(scripts)
    if _release(found) != _release(library):
        raise CheckpointError(
            f"version skew: the scripts in {scripts} are {found}, the installed tensorrt_llm is {library}",
            why="scripts call the library in the way of their own version; with another one, arguments are unknown, or "
            "are taken for something else (quant_config for mapping is the likely case)",
            fix=f"git -C {scripts} fetch --depth 1 origin tag v{library} && git -C {scripts} checkout v{library}",
        )


def _release(text: str) -> tuple[tuple[int, ...], str]:
    """Numbers, and the mark of a pre-release: 1.0.0rc4 is not 1.0.0."""
    mark = re.search(r"(a|b|rc)\d+", text)
    return version_key(text)[:3], mark[0] if mark else ""
