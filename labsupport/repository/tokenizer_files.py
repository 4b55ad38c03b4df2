"""The tokenizer's part of a Hugging Face folder: which files belong to it, and what serving must know of it.

Everything is read from JSON; no tokenizer is loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.errors import RepositoryError

VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
FILES = (
    *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json",
)  # fmt: skip
# AutoTokenizer needs the model's type where tokenizer_config.json names no class.
MODEL_CONFIG = "config.json"


@dataclass(frozen=True)
class TokenizerFacts:
    """What the JSON files say.

    Args:
        settings: ``tokenizer_config.json``.
        backend: ``tokenizer.json``, or empty where there is only an older form.
        end_ids: every end token of ``generation_config.json``, in its order.
        chat_template: the template's text, or None.
    """

    folder: Path
    settings: dict[str, Any]
    backend: dict[str, Any]
    end_ids: tuple[int, ...]
    chat_template: str | None

    @property
    def bos_token(self) -> str | None:
        """The text of the BOS token."""
        return _text(self.settings.get("bos_token"))

    @property
    def adds_bos(self) -> bool:
        """Whether encoding a plain text puts BOS in front."""
        if self.settings.get("add_bos_token") is not None:
            return bool(self.settings["add_bos_token"])
        return self.bos_token is not None and self.bos_token in json.dumps(
            self.backend.get("post_processor") or {}, ensure_ascii=False
        )

    @property
    def template_writes_bos(self) -> bool:
        """Whether the chat template writes BOS itself."""
        template = self.chat_template or ""
        return "bos_token" in template or bool(self.bos_token and self.bos_token in template)

    @property
    def size(self) -> int:
        """How many ids the vocabulary goes up to; 0 where only an older form is there."""
        vocabulary = (self.backend.get("model") or {}).get("vocab") or {}
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary))
        added = [token["id"] for token in self.backend.get("added_tokens") or []]
        return max([*ids, *added], default=-1) + 1

    @property
    def remote_code(self) -> bool:
        """Whether loading it runs a program from the model's folder."""
        return "auto_map" in self.settings


def read_tokenizer(folder: Path) -> TokenizerFacts:
    """Read the tokenizer files of ``folder``.

    Raises:
        RepositoryError: no such folder, or no vocabulary in it, or a file that is not JSON.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise RepositoryError(
            f"{folder} has no tokenizer" if folder.is_dir() else f"no tokenizer folder {folder}",
            why=f"none of {', '.join(VOCABULARIES)} is there; AutoTokenizer would take the path for a name on the hub",
            fix="name a Hugging Face folder, such as work/checkpoints/<model>, or run: labs fetch",
        )
    settings = _json(folder / "tokenizer_config.json")
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else settings.get("chat_template")
    found = _json(folder / "generation_config.json").get("eos_token_id")
    ids = found if isinstance(found, list) else [] if found is None else [found]
    return TokenizerFacts(
        folder,
        settings,
        _json(folder / "tokenizer.json"),
        tuple(int(id) for id in ids),
        json.dumps(text) if isinstance(text, list) else text,
    )


def tokenizer_paths(folder: Path) -> list[Path]:
    """The files of ``folder`` that a server's tokenizer reads."""
    return [folder / name for name in (*FILES, MODEL_CONFIG) if (folder / name).is_file()]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise RepositoryError(
            f"{path} is not JSON: {problem}", why="the file was cut short or edited", fix="copy it again"
        ) from None
    return raw if isinstance(raw, dict) else {}


def _text(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
