"""A model repository as the rules see it: configs read with patience, engines and tokenizers found where they lie."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from labsupport.compatibility import Container
from labsupport.errors import LabError, RepositoryError
from labsupport.repository.assemble import is_ours
from labsupport.repository.engine_config import EngineConfig, read_engine
from labsupport.repository.parameters import UNQUOTED
from labsupport.repository.text_format import CONFIG, ModelConfig, from_text, parameter, to_text
from labsupport.repository.tokenizer_files import TokenizerFacts, read_tokenizer

_PLACEHOLDER = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class Placeholder:
    """A ``${name}`` that was left in a config."""

    name: str
    line: int
    quoted: bool


@dataclass
class Model:
    """One model folder.

    Args:
        folder: where it is.
        text: ``config.pbtxt`` as it stands.
        placeholders: what was left in it.
        config: the message, with a stand-in for each unquoted placeholder; None where it cannot be read even so.
        problem: why not.
        before: the message as text, to see whether a fix changed it.
    """

    folder: Path
    text: str
    placeholders: tuple[Placeholder, ...]
    config: ModelConfig
    problem: RepositoryError | None
    before: str = ""

    @property
    def name(self) -> str:
        """The folder's name, which is the model's."""
        return self.folder.name

    @property
    def versions(self) -> list[Path]:
        """Version folders, newest first."""
        found = [path for path in self.folder.iterdir() if path.is_dir() and path.name.isdigit()]
        return sorted(found, key=lambda path: -int(path.name))

    @property
    def ours(self) -> bool:
        """Whether it is the Python model that ``labs assemble`` writes."""
        return bool(self.versions) and is_ours(self.versions[0], self.name)

    @property
    def source(self) -> str:
        """The text of ``model.py``, or nothing."""
        path = self.versions[0] / "model.py" if self.versions else Path()
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""

    def get(self, key: str) -> str | None:
        """A parameter; None where it is missing or an unfilled placeholder."""
        value = None if self.config is None else parameter(self.config, key)
        return None if value is None or _PLACEHOLDER.search(value) else value

    def line(self, pattern: str) -> str:
        """``model/config.pbtxt:line`` of the first match."""
        found = re.search(pattern, self.text)
        number = self.text[: found.start()].count("\n") + 1 if found else 1
        return f"{self.name}/{CONFIG}:{number}"

    def at(self, key: str) -> str:
        """Where a parameter stands."""
        return self.line(rf'key:\s*"{re.escape(key)}"')


@dataclass
class Repo:
    """A repository, and what it will be served with."""

    folder: Path
    container: Container
    models: dict[str, Model] = field(default_factory=dict)
    _tokenizers: dict[Path, TokenizerFacts] = field(default_factory=dict)

    def readable(self, *names: str) -> list[Model]:
        """The models of these names (of all, where none is given) whose config could be read."""
        chosen = names or tuple(self.models)
        return [model for name in chosen if (model := self.models.get(name)) and model.config is not None]

    def engines(self) -> list[Model]:
        """The models that run an engine, whatever they are called."""
        return [
            m
            for m in self.readable()
            if m.config.backend in ("tensorrtllm", "${triton_backend}") or m.name == "tensorrt_llm"
        ]

    def find(self, value: str | None) -> Path | None:
        """A path of a config on this machine: as it stands, or without the place where a container mounts it."""
        if not value:
            return None
        pure = PurePosixPath(value)
        if not pure.is_absolute():
            return found if (found := self.folder / value).exists() else None
        tails = [self.folder.joinpath(*pure.parts[cut:]) for cut in range(1, len(pure.parts))]
        return next((path for path in [Path(value), *tails] if path.exists()), None)

    def engine(self, model: Model) -> EngineConfig | None:
        """The engine's config, or None where it cannot be read; that is for other rules to say."""
        folder = self.find(model.get("gpt_model_path"))
        try:
            return read_engine(folder, whole=False) if folder else None
        except LabError:
            return None

    def tokenizer(self, model: Model) -> TokenizerFacts | None:
        """The tokenizer of a model, or None where it cannot be read."""
        folder = self.find(model.get("tokenizer_dir"))
        try:
            return self.tokenizer_in(folder) if folder else None
        except LabError:
            return None

    def tokenizer_in(self, folder: Path) -> TokenizerFacts:
        """The tokenizer in ``folder``, read once: many rules ask for it, and a vocabulary is megabytes of JSON.

        Raises:
            RepositoryError: as ``read_tokenizer``.
        """
        if folder not in self._tokenizers:
            self._tokenizers[folder] = read_tokenizer(folder)
        return self._tokenizers[folder]


def read_repository(folder: Path, container: Container) -> Repo:
    """Read all configs of a repository.

    Raises:
        RepositoryError: the folder is missing, or holds no model.
    """
    paths = sorted(folder.glob(f"*/{CONFIG}"))
    if not paths:
        raise RepositoryError(
            f"{folder} holds no model" if folder.is_dir() else f"no folder {folder}",
            why=f"a model repository has a folder with a {CONFIG} for each model",
            fix="name the folder above preprocessing, tensorrt_llm and the others",
        )
    return Repo(folder, container, {path.parent.name: _read(path) for path in paths})


def _read(path: Path) -> Model:
    text = path.read_text(encoding="utf-8", errors="replace")
    left = [
        Placeholder(found[1], text[: found.start()].count("\n") + 1, _in_quotes(text, found.start()))
        for found in _PLACEHOLDER.finditer(text)
        if not _in_comment(text, found.start())
    ]
    unquoted = {placeholder.name for placeholder in left if not placeholder.quoted}
    readable = _PLACEHOLDER.sub(lambda found: UNQUOTED.get(found[1], "0") if found[1] in unquoted else found[0], text)
    try:
        config = from_text(readable, f"{path.parent.name}/{CONFIG}")
    except RepositoryError as problem:
        return Model(path.parent, text, tuple(left), None, problem)
    return Model(path.parent, text, tuple(left), config, None, to_text(config))


def _in_quotes(text: str, position: int) -> bool:
    return text[text.rfind("\n", 0, position) + 1 : position].count('"') % 2 == 1


def _in_comment(text: str, position: int) -> bool:
    before = text[text.rfind("\n", 0, position) + 1 : position]
    return "#" in re.sub(r'"[^"]*"?', "", before)
