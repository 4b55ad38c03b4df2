"""Engine folder + tokenizer folder -> a model repository: whole or not at all, and not twice.

::

    <repository>/preprocessing/{config.pbtxt, 1/model.py, ...}     text -> ids
                 tensorrt_llm/{config.pbtxt, 1/}                   ids -> ids; the engine lies under _assets
                 postprocessing/{config.pbtxt, 1/model.py, ...}    ids -> text
                 tensorrt_llm_bls/{config.pbtxt, 1/model.py, ...}  text -> text, with a memory
                 ensemble/{config.pbtxt, 1/}                       text -> text, in a fixed order
                 _assets/<model>/{tokenizer, engines}/
"""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labsupport import __version__
from labsupport.errors import ParameterError, RepositoryError
from labsupport.repository.contract import MODELS
from labsupport.repository.engine_config import EngineConfig, read_engine
from labsupport.repository.model_config import Assets, Options, build_configs, names_for
from labsupport.repository.text_format import CONFIG, to_text
from labsupport.repository.tokenizer_files import TokenizerFacts, read_tokenizer, tokenizer_paths
from labsupport.workspace import (
    RECORD,
    Workspace,
    atomic_folder,
    read_record,
    repository_root,
    require_space,
    sha256,
    write_record,
)

STEP = "assemble"
ASSETS = "_assets"
PACKAGED = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Assembled:
    """A repository on disk.

    Args:
        folder: where it lies.
        skipped: it was there already, made from the same files with the same options.
        seconds: how long it took.
    """

    folder: Path
    skipped: bool
    seconds: float


def assemble(
    engine: Path, tokenizer: Path, options: Options | None = None, *, output: Path | None = None, force: bool = False
) -> Assembled:
    """Assemble a model repository.

    Args:
        engine: the folder that the engine build wrote.
        tokenizer: a Hugging Face folder; only its tokenizer files are taken.
        options: names and modes; the names of the engine's own version where missing.
        output: the folder to write; ``work/model_repositories/<model>/<recipe>`` where missing.
        force: replace ``output`` even if it was not written by this command.

    Raises:
        RepositoryError: engine or tokenizer cannot be read, or do not belong together.
        ParameterError: the options do not fit the engine, or ``output`` holds something else.
        SpaceError: the disk cannot hold the engine a second time, where it must be copied.

    Example:
        >>> assemble(Path("work/engines/m/float16"), Path("work/checkpoints/m")).folder.name  # doctest: +SKIP
        'float16'
    """
    began = time.perf_counter()
    engine, tokenizer = engine.expanduser().resolve(), tokenizer.expanduser().resolve()
    config, facts = read_engine(engine), read_tokenizer(tokenizer)
    _require_one_model(config, facts)
    options = options or Options(names=names_for(config.version))
    model, recipe = _names(engine, tokenizer)
    folder = (output or Workspace.current().model_repositories / model / recipe).expanduser().resolve()
    record = _record(engine, tokenizer, model, options)
    _require_ours(folder, force=force)
    if not force and read_record(folder) == record:
        return Assembled(folder, True, time.perf_counter() - began)
    configs = build_configs(config, _assets(model, options), options)
    if not _one_disk(engine, folder):
        require_space(folder, sum(path.stat().st_size for path in engine.rglob("*") if path.is_file()))
    with atomic_folder(folder) as making:
        for name in MODELS:
            (making / name / "1").mkdir(parents=True)
            (making / name / CONFIG).write_text(to_text(configs[name]), encoding="utf-8")
            for path in model_files(name):
                shutil.copyfile(path, making / name / "1" / path.name)
        _place(engine, making / ASSETS / model / "engines")
        (making / ASSETS / model / "tokenizer").mkdir()
        for path in tokenizer_paths(tokenizer):
            shutil.copyfile(path, making / ASSETS / model / "tokenizer" / path.name)
        write_record(making, record)
    return Assembled(folder, False, time.perf_counter() - began)


def model_files(name: str) -> list[Path]:
    """The files of a packaged Python model: ``model.py`` first, its helpers after it; none for the other models."""
    own = PACKAGED / name
    if not (own / "model.py").is_file():
        return []
    helpers = [path for folder in (own, PACKAGED / "shared") for path in sorted(folder.glob("*.py"))]
    return [own / "model.py", *(path for path in helpers if path.name not in ("__init__.py", "model.py"))]


def is_ours(version_folder: Path, name: str) -> bool:
    """Whether a repository's model is the packaged one, byte for byte."""
    files = model_files(name)
    return bool(files) and all(
        (version_folder / path.name).is_file() and (version_folder / path.name).read_bytes() == path.read_bytes()
        for path in files
    )


def _names(engine: Path, tokenizer: Path) -> tuple[str, str]:
    """Model and recipe: of an engine in the workspace by its folders, of any other by those that were given."""
    engines = Workspace.current().root / "engines"
    model = engine.parent.name if engines in engine.parents and engine.parent != engines else tokenizer.name
    return _plain(model), _plain(engine.name)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _assets(model: str, options: Options) -> Assets:
    """Paths that hold wherever the repository lies, unless the caller names a place."""
    root = options.mounted_at.rstrip("/") + "/" if options.mounted_at else ""
    return Assets(engine=f"{root}{ASSETS}/{model}/engines", tokenizer=f"{root}{ASSETS}/{model}/tokenizer")


def _require_one_model(config: EngineConfig, facts: TokenizerFacts) -> None:
    size = config.pretrained_config.vocab_size
    if facts.size > size:
        raise RepositoryError(
            f"the tokenizer has {facts.size} tokens, and the engine knows {size}",
            why="they belong to different models: the engine would read beyond its table of embeddings",
            fix=f"name the tokenizer of the model that the engine was built from, not {facts.folder}",
        )


def _require_ours(folder: Path, *, force: bool) -> None:
    if force or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if (read_record(folder) or {}).get("step") != STEP:
        raise ParameterError(
            f"{folder} is not a repository that labs assemble wrote",
            why="replacing it would take away what somebody else keeps there",
            fix="name another --output, or give --force to replace it",
        )


def _place(engine: Path, target: Path) -> None:
    """Engine files by hard link: no second copy on the disk, and a container that mounts the repository sees them.

    A symbolic link would point outside the mount. Where a link cannot be made (another disk), files are copied.
    """

    def link(source: str, destination: str) -> str:
        try:
            os.link(source, destination)
        except OSError:
            shutil.copy2(source, destination)
        return destination

    shutil.copytree(engine, target, copy_function=link, ignore=shutil.ignore_patterns(RECORD))


def _one_disk(engine: Path, folder: Path) -> bool:
    existing = next(parent for parent in folder.parents if parent.exists())
    return engine.stat().st_dev == existing.stat().st_dev


def _record(engine: Path, tokenizer: Path, model: str, options: Options) -> dict[str, Any]:
    """What a repository is made from; equal records mean equal repositories."""
    ours = [path for name in MODELS for path in model_files(name)]
    parts = {
        "engine": {str(path.relative_to(engine)): _stamp(path) for path in sorted(engine.rglob("*")) if path.is_file()},
        "tokenizer": {path.name: sha256(path) for path in tokenizer_paths(tokenizer)},
        "models": {str(path.relative_to(PACKAGED)): sha256(path) for path in ours},
    }
    plain = asdict(replace(options, parameters=dict(options.parameters)))
    root = repository_root()
    places = {"engine": engine, "tokenizer": tokenizer}
    shown = {key: str(path.relative_to(root) if root in path.parents else path) for key, path in places.items()}
    return {
        "step": STEP,
        "model": model,
        "options": plain,
        "inputs": parts,
        "from": shown,
        "versions": {"labs": __version__},
    }


def _stamp(path: Path) -> str:
    """A small file by its SHA-256; an engine by size and time, because hashing it takes longer than linking it."""
    status = path.stat()
    return sha256(path) if status.st_size < 1 << 20 else f"{status.st_size} bytes, {status.st_mtime_ns}"
