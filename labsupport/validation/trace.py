"""Parameter tracing: each number of a request as it was sent, as every model received it, and as the sampler uses it.

A copy of the repository is served in which each ``model.py`` has another one in front that writes down what comes in
(:mod:`labsupport.validation.tap.tap`); no model is changed. The copied models would do the same in NVIDIA's container
(not run here), whose C++ backend keeps its last step to itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from labsupport.repository.contract import CLIENT_NAMES, ENCODED_NAMES, PROMPT_NAMES
from labsupport.serving import Server
from labsupport.validation.levels.l0_parameters import f32, same

TAP = Path(__file__).parent / "tap" / "tap.py"
SENT, SAMPLER = "sent", "sampler"
OTHER_NAMES = {theirs: ours for ours, theirs in (CLIENT_NAMES | PROMPT_NAMES).items()}
OTHER_NAMES |= {"min_length": "min_tokens", "request_output_len": "max_tokens"}
OTHER_NAMES |= {theirs: OTHER_NAMES.get(ours, ours) for ours, theirs in ENCODED_NAMES.items() if ours in OTHER_NAMES}


@dataclass(frozen=True)
class Stage:
    """What one place received, by the client's names; a float is its value and the bits of its float32."""

    name: str
    values: Mapping[str, Any]

    def number(self, field: str) -> Any:
        """The number of a field; None where it did not come."""
        value = self.values.get(field)
        value = value["v"] if isinstance(value, dict) and "v" in value else value
        return int(value) if isinstance(value, str) and value.isdigit() else value


@contextmanager
def traced_server(repository: Path, **how: Any) -> Iterator[tuple[Server, Path]]:
    """A server on a traced copy of a repository, and the file that it writes to.

    Args:
        how: keywords of ``Server``.

    Raises:
        ServerError: it cannot run here.
    """
    from labsupport.backends import folder

    with TemporaryDirectory(prefix="labs-trace-") as place:
        log, copy, backend = Path(place, "trace.jsonl"), Path(place, "repository"), Path(place, "tensorrtllm")
        log.touch()
        traced_repository(repository, copy, log)
        shutil.copytree(folder() / "tensorrtllm", backend, ignore=shutil.ignore_patterns("__pycache__"))
        _tap(backend, log)
        with Server(copy, engine=backend, **how) as server:
            yield server, log


def traced_repository(repository: Path, copy: Path, log: Path) -> None:
    """Copy a repository, with a tap before each Python model; what is no model, such as weights, is linked."""
    copy.mkdir()
    for entry in repository.iterdir():
        if not (entry / "config.pbtxt").is_file():
            (copy / entry.name).symlink_to(entry.resolve())
            continue
        shutil.copytree(entry, copy / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        for model in (copy / entry.name).glob("*/model.py"):
            _tap(model.parent, log)


def _tap(folder: Path, log: Path) -> None:
    (folder / "model.py").rename(folder / "traced_model.py")
    shutil.copy(TAP, folder / "model.py")
    (folder / "trace_to.txt").write_text(str(log), encoding="utf-8")


def stages(log: Path) -> list[Stage]:
    """What was written down, in its order."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [
        Stage(line["stage"], {OTHER_NAMES.get(name, name): value for name, value in line["values"].items()})
        for line in lines
    ]


def table(sent: Mapping[str, Any], found: Sequence[Stage]) -> list[list[str]]:
    """Rows of text: a head, then a field each: as sent, and as each place received it, with ✓ or ✗.

    Args:
        sent: the numbers of the request, by the client's names.
        found: of one request.
    """
    rows = [["field", SENT, *(stage.name for stage in found)]]
    for field, value in sent.items():
        row = [field, _shown(value)]
        for stage in found:
            got = stage.number(field)
            row.append("" if got is None else f"{_shown(got)} {'✓' if same(field, value, got) else '✗'}")
        rows.append(row)
    return rows


def changed(sent: Mapping[str, Any], found: Sequence[Stage]) -> list[str]:
    """Fields that some place received with other bits, and fields that did not reach the last one."""
    wrong = []
    for field, value in sent.items():
        wrong += [
            f"{field} in {stage.name}"
            for stage in found
            if stage.number(field) is not None and not same(field, value, stage.number(field))
        ]
        if found and found[-1].number(field) is None:
            wrong.append(f"{field} did not reach {found[-1].name}")
    return wrong


def _shown(value: Any) -> str:
    return f"{value!r} 0x{f32(value)}" if isinstance(value, float) else str(value)
