"""Each lab is run once in a test run, whichever tests and workers look at it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

from filelock import FileLock

from labsupport.labs.run import Outcome, run_labs

SECONDS = 60  # what a lab may take on two cores; the limit below leaves room for a busy machine


def executed(lab: Path, tmp_path_factory) -> Outcome:
    """Run ``lab`` as `labs run --handouts` does, or hand back what came of it when it was run before."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "executed"  # one folder for all workers
    shared.mkdir(exist_ok=True)
    kept = shared / f"{lab.stem}.pickle"
    with FileLock(shared / f"{lab.stem}.lock"):
        if not kept.exists():
            (outcome,) = run_labs([lab], build=shared / lab.stem, jobs=1, timeout=8 * SECONDS, handouts=True)
            kept.write_bytes(pickle.dumps(outcome))
    return pickle.loads(kept.read_bytes())
