"""``config.pbtxt``: Triton's ``ModelConfig`` as protobuf text, written from typed messages and read back.

A message cannot hold a misspelt field or a word where a number belongs, so what is written here always parses.
The message types are Triton's own (``model_config.proto``), as tritonclient ships them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

from labsupport.errors import RepositoryError

CONFIG = "config.pbtxt"
ModelConfig: TypeAlias = Any  # tritonclient.grpc.model_config_pb2.ModelConfig: generated code, without types


def messages() -> Any:
    """The module of generated message types; importing it loads grpc, so it is done late."""
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2


def to_text(config: ModelConfig) -> str:
    """A config as protobuf text."""
    from google.protobuf import text_format

    text: str = text_format.MessageToString(config, as_utf8=True)
    return text


def from_text(text: str, origin: str = CONFIG) -> ModelConfig:
    """Protobuf text as a config.

    Raises:
        RepositoryError: the text is not a ``ModelConfig``; the message holds line and column.
    """
    from google.protobuf import text_format

    config = messages().ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as problem:
        line = problem.GetLine() or 0
        shown = text.splitlines()[line - 1].strip() if 0 < line <= len(text.splitlines()) else ""
        raise RepositoryError(
            f"{origin}:{line}: {re.sub(r'^[0-9]+:[0-9]+ : ', '', str(problem))}",
            why=f"Triton reads this line as protobuf text and stops there: {shown}",
            fix="mend the line; labs lint-repo names what can be mended for you",
        ) from None
    return config


def read_model_config(path: Path) -> ModelConfig:
    """The config in a file.

    Raises:
        RepositoryError: no such file, or not a ``ModelConfig``.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise RepositoryError(
            f"{path} cannot be read", why=str(problem), fix="name the folder of a model repository"
        ) from None
    return from_text(text, str(path))


def parameter(config: ModelConfig, key: str) -> str | None:
    """The string value of a parameter, or None where the key is missing."""
    return str(config.parameters[key].string_value) if key in config.parameters else None


def set_parameter(config: ModelConfig, key: str, value: str) -> None:
    """Write a parameter, new or not."""
    config.parameters[key].string_value = value
