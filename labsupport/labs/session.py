"""``start("02", ...)``: the first line of a lab. It checks the parameters and says on what the lab runs."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labsupport.errors import ParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROFILES = ("cpu", "gpu", "trtllm")


@dataclass(frozen=True)
class Lab:
    """A running lab. Model and tokenizer are fetched and loaded when they are first used.

    Args:
        number: the lab, "02".
        profile: "cpu", "gpu" or "trtllm".
        model_name: a catalogue name, a hub id or a folder.
        seed: the seed of the lab's random draws, 0 to 2^64 - 1.
        fast: short runs, for a first look and for automatic runs.
    """

    number: str
    profile: str
    model_name: str
    seed: int
    fast: bool

    @cached_property
    def folder(self) -> Path:
        """The model's Hugging Face folder."""
        from labsupport.models import fetch

        return fetch(self.model_name)

    @cached_property
    def model(self) -> PreTrainedModel:
        """The model, float32, in evaluation mode, on the profile's device."""
        from labsupport.models import load

        model, _ = load(str(self.folder))
        return model.to(self.device)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer; the model itself is not loaded for it."""
        from labsupport.models import load_tokenizer

        return load_tokenizer(str(self.folder))

    @property
    def device(self) -> str:
        """Where torch computes: "cpu" or "cuda"."""
        return "cpu" if self.profile == "cpu" else "cuda"

    def close(self) -> None:
        """Let go of model and tokenizer. A lab that is used again loads them again."""
        for name in ("model", "tokenizer", "folder"):
            self.__dict__.pop(name, None)


def start(
    number: str, *, profile: str = "cpu", model: str = "smollm2-135m-instruct", seed: int = 0, fast: bool = True
) -> Lab:
    """Begin a lab: check its parameters, print one line of versions and device, and return the :class:`Lab`.

    Args:
        number: the lab, "02".
        profile: "cpu", "gpu" (needs CUDA) or "trtllm" (needs TensorRT-LLM, so its container).
        model: a catalogue name, a hub id ("owner/name") or a folder.
        seed: 0 to 2^64 - 1.
        fast: short runs.

    Raises:
        ParameterError: a value outside of that, or a profile that this machine cannot serve.
    """
    _check_profile(profile)
    _check_model(model)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise ParameterError(
            f"SEED = {seed!r}", why="a seed is a whole number from 0 to 2^64 - 1", fix="set SEED = 0 in the parameters"
        )
    lab = Lab(number, profile, model, seed, bool(fast))
    click.echo(describe(lab))
    return lab


def describe(lab: Lab) -> str:
    """One line: the lab, its parameters, the versions and the device."""
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {_version(name)}" for name in ("torch", "transformers", "numpy")]
    settings = [f"Lab {lab.number}", lab.profile, Path(lab.model_name).name, f"seed {lab.seed}"]
    return " · ".join([*settings, *(["fast"] if lab.fast else []), *versions, f"on {_device_name(lab)}"])


def _check_profile(profile: str) -> None:
    if profile not in PROFILES:
        raise ParameterError(
            f"PROFILE = {profile!r}",
            why=f"the profiles are {', '.join(PROFILES)}",
            fix='set PROFILE = "cpu" in the parameters',
        )
    if profile == "trtllm" and find_spec("tensorrt_llm") is None:
        raise ParameterError(
            "PROFILE = 'trtllm', and TensorRT-LLM is not installed",
            why="it installs only in its container",
            fix='run the lab inside the container, or set PROFILE = "cpu"',
        )
    if profile != "cpu" and not _has_cuda():
        raise ParameterError(
            f"PROFILE = {profile!r}, and torch sees no CUDA device",
            why="there is no GPU, no driver, or this torch was built for the CPU",
            fix='see what `labs doctor` says about the GPU, or set PROFILE = "cpu"',
        )


def _check_model(model: str) -> None:
    from labsupport.models import CATALOGUE

    is_folder = bool(model) and Path(model).expanduser().is_dir()
    if model in CATALOGUE or is_folder or re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return
    raise ParameterError(
        f"MODEL = {model!r}",
        why=f"it is no folder, no hub id (owner/name), and not in the catalogue: {', '.join(CATALOGUE)}",
        fix="set MODEL to one of these; `labs models` shows them",
    )


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _device_name(lab: Lab) -> str:
    if lab.device == "cpu":
        return f"CPU ({platform.machine()})"
    import torch

    return str(torch.cuda.get_device_name())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
