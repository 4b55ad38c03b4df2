"""The errors that a person meets. Each says what happened, why, and what to try next.

::

    LabError
    ├── ModelError            a model cannot be found, fetched or read
    │   ├── DownloadError     the network, the index or the transfer failed
    │   ├── ChecksumError     what arrived is not what was published
    │   └── LicenseError      the model's terms were not accepted
    ├── SpaceError            the disk cannot hold what a step will write
    ├── ParameterError        a value outside what the operation allows
    ├── CheckpointError       a checkpoint cannot be read, converted or proven
    ├── EngineError           an engine cannot be built, loaded or run
    ├── RepositoryError       a model repository cannot be assembled or read
    ├── ServerError           a server cannot be started or reached
    │   └── RequestError      a server refused a request, or broke off its answer
    ├── BenchmarkError        something cannot be measured, or what was measured is of another task
    └── NotebookError         a lab is malformed, or did not run
        └── LintError         a lab breaks the house rules

The command line prints a LabError as one block and exits with 1; a traceback is a bug.
"""

from __future__ import annotations


class LabError(Exception):
    """Something a person can mend.

    Args:
        what: what happened, with the offending value. One sentence.
        why: the cause, as far as it is known. One or two sentences.
        fix: what to try next, best as a command that can be copied.

    Example:
        >>> print(LabError("no model 'llama'", why="the catalogue has no such name", fix="labs models"))
        no model 'llama'
          why: the catalogue has no such name
          try: labs models
    """

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(what)

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  try: {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.why, self.fix)


def _rebuild(kind: type[LabError], what: str, why: str, fix: str) -> LabError:
    return kind(what, why=why, fix=fix)  # keyword-only arguments do not survive pickling by themselves


class ModelError(LabError):
    """A model cannot be found, fetched or read."""


class DownloadError(ModelError):
    """The network, the index or the transfer failed."""


class ChecksumError(ModelError):
    """What arrived is not what was published."""


class LicenseError(ModelError):
    """The model's terms were not accepted."""


class SpaceError(LabError):
    """The disk cannot hold what a step will write."""


class ParameterError(LabError, ValueError):
    """A value outside what the operation allows."""


class CheckpointError(LabError):
    """A checkpoint cannot be read, converted or proven."""


class BenchmarkError(LabError):
    """Something cannot be measured, or what was measured is of another task."""


class EngineError(LabError):
    """An engine cannot be built, loaded or run."""


class RepositoryError(LabError):
    """A model repository cannot be assembled or read."""


class ServerError(LabError):
    """A server cannot be started or reached."""


class RequestError(ServerError):
    """A server refused a request, or broke off its answer."""


class NotebookError(LabError):
    """A lab is malformed, or did not run."""


class LintError(NotebookError):
    """A lab breaks the house rules."""
