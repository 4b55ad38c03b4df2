"""Hold a repository against all rules, and mend what is safe to mend."""

from __future__ import annotations

from pathlib import Path

from labsupport.compatibility import load_compatibility
from labsupport.repository.lint.repo import Repo, read_repository
from labsupport.repository.lint.rules import RULES, Finding
from labsupport.repository.text_format import CONFIG, to_text
from labsupport.workspace import atomic_text

BACKUP = f"{CONFIG}.before-fix"


def lint(folder: Path, container: str | None = None) -> list[Finding]:
    """What is wrong with a repository: errors first, each rule in the order of the data.

    Args:
        folder: the repository.
        container: the tag that will serve it; the pinned one where missing.

    Raises:
        RepositoryError: there is no repository.
        ParameterError: the container is not in the table.
    """
    return _findings(_read(folder, container))


def mend(folder: Path, container: str | None = None) -> tuple[list[Finding], list[Finding]]:
    """Apply every safe fix. Changed configs are rewritten whole, the old text stays beside them (``.before-fix``).

    Returns:
        What was mended, and what is still there.
    """
    repo = _read(folder, container)
    mended = [finding for finding in _findings(repo) if finding.hit.fix]
    for finding in mended:
        assert finding.hit.fix
        finding.hit.fix()
    if mended:
        _write(repo)
    left = lint(folder, container)
    still = {(finding.rule.name, finding.hit.where.split(":")[0]) for finding in left}
    return [one for one in mended if (one.rule.name, one.hit.where.split(":")[0]) not in still], left


def _read(folder: Path, container: str | None) -> Repo:
    return read_repository(folder.expanduser().resolve(), load_compatibility().container(container))


def _findings(repo: Repo) -> list[Finding]:
    found = [Finding(rule, hit) for rule in RULES for hit in rule.check(repo)]
    return sorted(found, key=lambda finding: finding.rule.level != "error")


def _write(repo: Repo) -> None:
    for model in repo.readable():
        text = to_text(model.config)
        path = model.folder / CONFIG
        whole = all(left.quoted for left in model.placeholders)  # a stand-in must not be written as if it were meant
        if whole and text != model.before:
            if not (model.folder / BACKUP).exists():
                atomic_text(model.folder / BACKUP, model.text)
            atomic_text(path, text)
