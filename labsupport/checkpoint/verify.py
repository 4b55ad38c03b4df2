"""Is a converted checkpoint right? A ladder of three checks, each needing the one below: structure, round trip, run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from labsupport.checkpoint.config import read_config
from labsupport.checkpoint.execution import check_execution
from labsupport.checkpoint.expected import CHECKED
from labsupport.checkpoint.findings import Finding
from labsupport.checkpoint.roundtrip import check_round_trip
from labsupport.checkpoint.structure import RULES, check_structure
from labsupport.errors import CheckpointError, LabError
from labsupport.workspace import Workspace

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Rung:
    """One check of the ladder.

    Args:
        name: structure, round trip or execution.
        status: failed when there is a fault among the findings.
        detail: what was covered and measured, or why it was skipped.
        findings: faults and warnings.
    """

    name: str
    status: Status
    detail: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What ``verify`` found.

    Args:
        folder: the checkpoint.
        reference: the Hugging Face folder it was compared with, or None.
        rungs: structure, round trip, execution, in this order; after a failed one the rest are skipped.
    """

    folder: Path
    reference: Path | None
    rungs: tuple[Rung, ...]

    @property
    def passed(self) -> bool:
        """No rung failed."""
        return all(rung.status != "failed" for rung in self.rungs)

    @property
    def proven(self) -> bool:
        """Every rung passed, and against a reference."""
        return self.reference is not None and all(rung.status == "passed" for rung in self.rungs)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What is wrong, first cause first."""
        return tuple(found for rung in self.rungs for found in rung.findings if found.level == "fault")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What is odd, and does not stop TensorRT-LLM."""
        return tuple(found for rung in self.rungs for found in rung.findings if found.level == "warning")

    @property
    def first_fault(self) -> Finding | None:
        """The fault to mend first, or None."""
        return next(iter(self.faults), None)

    def to_json(self) -> dict[str, Any]:
        """As it is kept and sent: plain values, with the two conclusions first."""
        paths = {"folder": str(self.folder), "reference": self.reference and str(self.reference)}
        return {"passed": self.passed, "proven": self.proven, **asdict(self), **paths}

    def __str__(self) -> str:
        lines = [f"{rung.status:8}{rung.name:12}{rung.detail}" for rung in self.rungs]
        lines += [f"\nwarning ({found.rule}): {found}" for found in self.warnings]
        lines += [f"\nfault ({found.rule}): {found}" for found in self.faults]
        return "\n".join(lines)


def verify(folder: Path, reference: Path | None = None, *, execution: bool = True, tolerance: float = 1e-4) -> Verdict:
    """Check a TensorRT-LLM checkpoint, without a GPU and without TensorRT-LLM.

    1. **Structure**: config, files, names, shapes, types, copies on the ranks (:mod:`structure`).
    2. **Round trip**: every Hugging Face tensor, put together again from the ranks, is the original's, byte for byte
       (:mod:`roundtrip`). Needs a reference.
    3. **Execution**: all ranks are run; the logits are those of transformers (:mod:`execution`).

    Args:
        folder: the checkpoint.
        reference: the Hugging Face folder it was made from. Where it is missing, ``work/checkpoints/<model>`` is taken
            for a checkpoint in ``work/trt_checkpoints/<model>/``; where that is missing too, the round trip is skipped
            and the logits need only be finite.
        execution: False leaves out the third check.
        tolerance: largest difference of any logit, in float32.

    Returns:
        A verdict; print it, or ask for ``passed``, ``proven`` and ``first_fault``.

    Raises:
        CheckpointError: there is no such folder, or the reference has no ``config.json``. Everything else that is
            wrong is a fault in the verdict.

    Example:
        >>> print(verify(Path("work/trt_checkpoints/smollm2-135m-instruct/float32-tp3")))  # doctest: +SKIP
        passed  structure   11 rules, 0 faults, 0 warnings
        passed  round trip  272 tensors of smollm2-135m-instruct, 878,079,744 bytes compared
        passed  execution   48 tokens, largest difference 6.63e-05, logits up to 32.4
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder", why="there is no checkpoint to verify", fix="labs convert")
    chosen = _reference(folder, reference)
    rungs = [_rung("structure", lambda: _structure(folder))]
    rungs.append(_after(rungs, "round trip", lambda: _round_trip(folder, chosen)))
    if execution:
        rungs.append(_after(rungs, "execution", lambda: _execution(folder, chosen, tolerance)))
    else:
        rungs.append(Rung("execution", "skipped", "not asked for"))
    return Verdict(folder, chosen, tuple(rungs))


def _reference(folder: Path, given: Path | None) -> Path | None:
    if given is None:
        home = Workspace.current().checkpoints / folder.parent.name
        return home if (home / "config.json").is_file() else None
    if not (given / "config.json").is_file():
        raise CheckpointError(
            f"the reference {given} has no config.json",
            why="it must be the Hugging Face folder that the checkpoint was made from",
            fix="labs fetch   brings a model into work/checkpoints/",
        )
    return given.expanduser().resolve()


def _after(before: list[Rung], name: str, check: Callable[[], Rung]) -> Rung:
    failed = next((rung.name for rung in before if rung.status == "failed"), None)
    return Rung(name, "skipped", f"{failed} failed") if failed else _rung(name, check)


def _rung(name: str, check: Callable[[], Rung]) -> Rung:
    try:
        return check()
    except LabError as error:
        return _judged(name, error.what, (Finding.of(name, error),))


def _judged(name: str, detail: str, findings: tuple[Finding, ...]) -> Rung:
    failed = any(finding.level == "fault" for finding in findings)
    return Rung(name, "failed" if failed else "passed", detail, findings)


def _structure(folder: Path) -> Rung:
    findings = tuple(check_structure(folder))
    faults = sum(finding.level == "fault" for finding in findings)
    detail = f"{len(RULES) + 2} rules, {faults} faults, {len(findings) - faults} warnings"
    return _judged("structure", detail, findings)


def _round_trip(folder: Path, reference: Path | None) -> Rung:
    if reference is None:
        return Rung("round trip", "skipped", "no reference: name the Hugging Face folder that it was made from")
    if algo := _unknown(folder):
        return Rung("round trip", "skipped", f"the form of {algo} is not known here")
    found = check_round_trip(folder, reference)
    detail = f"{found.tensors} tensors of {reference.name}, {found.bytes:,} bytes compared"
    detail += f", {found.rounded:,} weights within {found.reach}" if found.rounded and not found.findings else ""
    return _judged("round trip", detail, found.findings)


def _execution(folder: Path, reference: Path | None, tolerance: float) -> Rung:
    if algo := _unknown(folder):
        return Rung("execution", "skipped", f"the form of {algo} is not known here: the engine runs it")
    found = check_execution(folder, reference, tolerance)
    against = "no reference" if found.difference is None else f"largest difference {found.difference:.2e}"
    against = against if found.divergence is None else f"mean KL {found.divergence:.2e} nats"
    detail = f"{found.tokens} tokens, {against}, logits up to {found.scale:.1f}"
    return _judged("execution", detail, found.findings)


def _unknown(folder: Path) -> str | None:
    quantization = read_config(folder).quantization
    known = not quantization.quantized or quantization.quant_algo in CHECKED
    return None if known and quantization.kv_cache_quant_algo != "NVFP4" else str(quantization.quant_algo)
