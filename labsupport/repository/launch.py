"""How a server must be started to serve a repository."""

from __future__ import annotations

from pathlib import Path

from labsupport.errors import RepositoryError
from labsupport.repository.text_format import CONFIG


def server_arguments(repository: Path) -> list[str]:
    """The arguments of ``tritonserver`` that name the repository and its models.

    Left to itself, Triton takes each folder for a model, finds no config in ``_assets``, and ends with "failed to load
    all models". So the models are named. Paths in the configs are relative: start the server in ``repository``.

    Raises:
        RepositoryError: there is no model in the folder.
    """
    names = sorted(path.parent.name for path in repository.glob(f"*/{CONFIG}"))
    if not names:
        raise RepositoryError(
            f"{repository} holds no model",
            why=f"a model repository has a folder with a {CONFIG} for each model",
            fix="labs assemble ENGINE --tokenizer FOLDER   writes one",
        )
    models = [f"--load-model={name}" for name in names]
    return [f"--model-repository={repository}", "--model-control-mode=explicit", *models]
