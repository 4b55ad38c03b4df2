"""How fast conversion is, and how much memory it takes: each run in its own process, one way and the other in turn.

Peak memory is what the operating system counted for the process (``ru_maxrss``), with pages of mapped files.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labsupport.checkpoint.config import CONFIG
from labsupport.checkpoint.tensor_bits import HELD, Array
from labsupport.checkpoint.tensor_file import BLOCK, TensorInfo, write_tensors
from labsupport.errors import LabError, ParameterError
from labsupport.workspace import require_space

OURS = """
import sys, time
from pathlib import Path
began = time.perf_counter()
from labsupport.checkpoint.convert import Options, convert
convert(Path(sys.argv[1]), Options(dtype=sys.argv[3], tp_size=int(sys.argv[4])), output=Path(sys.argv[2]))
print(time.perf_counter() - began)
"""
MODELOPT = """
import sys, time, warnings
warnings.filterwarnings("ignore")
import torch
from modelopt.torch.export import export_tensorrt_llm_checkpoint
from transformers import AutoModelForCausalLM
began = time.perf_counter()  # what it imports is not held against it
dtype = getattr(torch, sys.argv[3])
with torch.inference_mode():
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=dtype)
    export_tensorrt_llm_checkpoint(model, "llama", dtype, sys.argv[2], inference_tensor_parallel=int(sys.argv[4]))
print(time.perf_counter() - began)
"""
COPY = """
import shutil, sys, time
from pathlib import Path
began = time.perf_counter()
Path(sys.argv[2]).mkdir()
for file in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    shutil.copyfile(file, Path(sys.argv[2]) / file.name)
print(time.perf_counter() - began)
"""
# The shape of a LLaMA that fills about 8 GB in bfloat16 with 32 layers (hidden 4096, 32 heads, 8 KV heads, inner 9728)
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "vocab_size": 32000,
    "hidden_size": 4096, "intermediate_size": 9728, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One process: the seconds of its work, of the whole process, and its peak memory in bytes."""

    work: float
    whole: float
    peak: int


@dataclass(frozen=True)
class Comparison:
    """Two ways of doing the same, run in turn.

    Args:
        what: a sentence that says what was done.
        ours, theirs: the runs, in order.
        bytes: what each run reads.
    """

    what: str
    ours: tuple[Run, ...]
    theirs: tuple[Run, ...]
    bytes: int

    @property
    def time_ratio(self) -> float:
        """Median seconds of theirs over ours, of the work alone."""
        return statistics.median(run.work for run in self.theirs) / statistics.median(run.work for run in self.ours)

    @property
    def process_ratio(self) -> float:
        """The same for the whole processes: what a person waits for."""
        return statistics.median(run.whole for run in self.theirs) / statistics.median(run.whole for run in self.ours)

    @property
    def peak_ratio(self) -> float:
        """Median peak memory of ours over theirs."""
        return statistics.median(run.peak for run in self.ours) / statistics.median(run.peak for run in self.theirs)

    @property
    def peak(self) -> int:
        """The largest peak memory of our runs, in bytes."""
        return max(run.peak for run in self.ours)


def against_modelopt(model: Path, *, rounds: int = 3, dtype: str = "float16") -> Comparison:
    """Our conversion and ModelOpt's export of the same model to one rank, in turn. Both write ``dtype``.

    Not float32, where ModelOpt 0.47 writes float16. The work of ModelOpt runs from loading the model to the finished
    files, without its imports; ours runs with its imports.
    """
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    with tempfile.TemporaryDirectory(dir=_scratch(3 * size)) as folder:
        runs = _in_turn(OURS, MODELOPT, model, Path(folder), rounds, dtype, 1)
    return Comparison(f"{model.name} to {dtype}: labs convert, ModelOpt", *runs, size)


def against_copy(gigabytes: float = 8.0, *, rounds: int = 3, tp_size: int = 1) -> Comparison:
    """Our conversion of a synthetic LLaMA, and a plain copy of its files (``shutil.copyfile``), in turn.

    Needs twice ``gigabytes`` of disk, and removes it afterwards.
    """
    with tempfile.TemporaryDirectory(dir=_scratch(int(2.1e9 * gigabytes))) as folder:
        model = Path(folder) / "model"
        size = make_synthetic(model, gigabytes)
        runs = _in_turn(OURS, COPY, model, Path(folder), rounds, "bfloat16", tp_size)
    return Comparison(f"a LLaMA of {size / 1e9:.1f} GB, tp {tp_size}: labs convert, copy", *runs, size)


def make_synthetic(folder: Path, gigabytes: float, shard_layers: int = 8) -> int:
    """A LLaMA folder of about ``gigabytes`` in bfloat16, sharded with an index; the values are noise.

    Returns:
        The bytes of its tensors.
    """
    from labsupport.checkpoint.config_hf import config_from_hf
    from labsupport.checkpoint.layout_cut import source_shapes

    one = _tensors(LLAMA | {"num_hidden_layers": 1}, config_from_hf, source_shapes)
    layer = sum(info.bytes for name, info in one.items() if ".layers." in name)
    rest = sum(info.bytes for info in one.values()) - layer
    layers = max(1, round((gigabytes * 1e9 - rest) / layer))
    hf = LLAMA | {"num_hidden_layers": layers}
    tensors = _tensors(hf, config_from_hf, source_shapes)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(hf), encoding="utf-8")
    shards: dict[int, dict[str, TensorInfo]] = {}
    for name, info in tensors.items():
        shards.setdefault(int(name.split(".")[2]) // shard_layers if ".layers." in name else 0, {})[name] = info
    noise = np.random.default_rng(0).integers(0x3C00, 0x3D00, BLOCK // 2).astype(HELD["BF16"])
    for index, members in shards.items():
        path = folder / f"model-{index:05d}.safetensors"
        write_tensors(path, members, (_noise(noise, info.bytes // 2) for info in members.values()))
    weights = {name: f"model-{index:05d}.safetensors" for index, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}), encoding="utf-8")
    return sum(info.bytes for info in tensors.values())


def _tensors(hf: dict[str, Any], parse: Callable[..., Any], shapes: Callable[..., Any]) -> dict[str, TensorInfo]:
    return {name: TensorInfo("BF16", shape) for name, shape in shapes(parse(hf, dtype="bfloat16")).items()}


def _noise(noise: Array, count: int) -> Iterator[Array]:
    while count:
        yield noise[:count]
        count -= min(count, len(noise))


def _in_turn(
    ours: str, theirs: str, model: Path, folder: Path, rounds: int, dtype: str, tp_size: int
) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    if rounds < 1:
        raise ParameterError(f"{rounds} rounds", why="at least one run is needed", fix="--rounds 3")
    found: tuple[list[Run], list[Run]] = ([], [])
    for turn in range(rounds + 1):  # the first round only warms the page cache
        pair = list(zip(found, (ours, theirs), strict=True))
        for runs, code in pair if turn % 2 else pair[::-1]:
            os.sync()  # what an earlier run left to be written is not held against this one
            run = _measure(code, str(model), str(folder / "out"), dtype, str(tp_size))
            shutil.rmtree(folder / "out", ignore_errors=True)
            if turn:
                runs.append(run)
    return tuple(found[0]), tuple(found[1])


def _measure(code: str, *arguments: str) -> Run:
    """Run ``code`` in a fresh Python; its last line of output is the seconds that its work took."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stdout.close()
        complaints.seek(0)
        if child.returncode:
            raise LabError(
                "a run of the benchmark ended with an error",
                why=complaints.read().decode(errors="replace").strip()[-500:] or f"exit code {child.returncode}",
                fix="run it again; the comparison with ModelOpt needs the packages of requirements.lock",
            )
    return Run(float(output.strip().splitlines()[-1]), time.perf_counter() - began, _peak(usage))


def _peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _scratch(needed: int) -> Path:
    from labsupport.workspace import Workspace

    folder = Workspace.current().runs
    folder.mkdir(parents=True, exist_ok=True)
    require_space(folder / "bench", needed)
    return folder
