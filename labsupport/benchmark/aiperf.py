"""A second opinion on the load generator: AIPerf, NVIDIA's, on the same server with the same prompts and users.

AIPerf speaks no gRPC of KServe, so both ask over HTTP (``generate_stream``, AIPerf with its ``template`` endpoint). It
runs in a Python of its own and is no dependency.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.benchmark.arrivals import Closed
from labsupport.benchmark.catalogue import Peer
from labsupport.benchmark.installing import installed, python_of
from labsupport.benchmark.serve import Plan, measure
from labsupport.benchmark.served import Point
from labsupport.benchmark.target_triton import HttpTarget
from labsupport.benchmark.workload import Lengths, jobs
from labsupport.errors import BenchmarkError
from labsupport.serving import Address

AIPERF = Peer("aiperf", "AIPerf", (), (("aiperf==0.13.0",),))
TIMEOUT_S = 300
_TAIL = 800
METRICS: dict[str, tuple[str, Callable[[Point], float]]] = {  # AIPerf's name -> our title, and where it stands with us
    "time_to_first_token": ("TTFT, ms", lambda one: 1e3 * one.ttft.p50.value),
    "inter_token_latency": ("ITL, ms", lambda one: 1e3 * one.itl.p50.value if one.itl else 0.0),
    "request_latency": ("request latency, ms", lambda one: 1e3 * one.latency.p50.value),
    "output_token_throughput": ("output tokens/s", lambda one: one.output_rate.value),
    "request_throughput": ("requests/s", lambda one: one.request_rate.value),
}


@dataclass(frozen=True)
class Agreement:
    """One metric by both: medians over requests for latencies. ``ratio`` is theirs by ours."""

    metric: str
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Theirs by ours."""
        return self.theirs / self.ours


def agree(
    address: Address, model: str, tokenizer: Path, *, users: int, requests: int, given: int, new: int
) -> list[Agreement]:
    """Measure with ours, with AIPerf, and with ours again, which gives the mean of two: drift hurts both alike.

    Raises:
        BenchmarkError: AIPerf is not installed, or failed.
    """
    if not installed(AIPERF):
        raise BenchmarkError(
            "AIPerf is not installed", why="it has a Python of its own", fix="labs bench agree --install   makes it"
        )
    plan = Plan((Closed(users),), requests, None, users, Lengths(given, given), Lengths(new, new))
    prompts = [job.text for job in jobs(tokenizer, plan.shapes(requests, 1), 1)]
    target = HttpTarget(address, model)
    before = measure(target, plan, tokenizer).points[0]
    theirs = _aiperf(address, model, tokenizer, prompts, users=users, new=new)
    after = measure(target, plan, tokenizer).points[0]
    return compared(before, after, theirs)


def compared(before: Point, after: Point, theirs: dict[str, Any]) -> list[Agreement]:
    """Each metric of two runs of ours beside AIPerf's summary."""
    found = []
    for name, (title, ours) in METRICS.items():
        other = theirs[name].get("p50", theirs[name]["avg"])
        found.append(Agreement(title, (ours(before) + ours(after)) / 2, float(other)))
    return found


def _aiperf(
    address: Address, model: str, tokenizer: Path, prompts: Sequence[str], *, users: int, new: int
) -> dict[str, Any]:
    body = '{"text_input": {{ text|tojson }}, "max_tokens": ' + str(new) + ', "stream": true, "end_id": -1}'
    extra = json.dumps({"payload_template": body, "response_field": "text_output"})
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "prompts.jsonl"
        file.write_text("".join(json.dumps({"text": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
        command = [
            str(python_of(AIPERF).with_name("aiperf")), "profile", "-m", model, "--url", f"http://{address.http}",
            "--endpoint-type", "template", "--custom-endpoint", f"/v2/models/{model}/generate_stream", "--streaming",
            "--extra-inputs", extra, "--tokenizer", str(tokenizer), "--input-file", str(file),
            "--custom-dataset-type", "single_turn", "--concurrency", str(users), "--request-count", str(len(prompts)),
            "--num-warmup-requests", str(users), "--ui", "none", "--artifact-dir", place,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False,
                              stdin=subprocess.DEVNULL, timeout=TIMEOUT_S)  # fmt: skip
        summary = next(Path(place).rglob("profile_export_aiperf.json"), None)
        if done.returncode or summary is None:
            raise BenchmarkError(
                "AIPerf failed",
                why=(done.stderr.strip() or done.stdout.strip())[-_TAIL:],
                fix="labs bench agree --install   makes its Python anew",
            )
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        return found
