"""``start``: the parameters of a lab are checked, and model and tokenizer come when they are used."""

from __future__ import annotations

import sys

import pytest

from labsupport.errors import ParameterError
from labsupport.labs.session import start
from labsupport.models.tiny import make_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make_tiny("llama", tmp_path_factory.mktemp("model") / "tiny-llama")


def test_one_line_says_on_what_the_lab_runs(tiny, capsys):
    import torch

    start("02", profile="cpu", model=str(tiny), seed=7, fast=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("Lab 02 · cpu · tiny-llama · seed 7 · fast · Python ")
    assert f"torch {torch.__version__}" in line
    assert "CPU" in line


def test_the_model_is_loaded_once_and_closed(tiny):
    lab = start("02", model=str(tiny))
    assert "model" not in vars(lab)
    model = lab.model
    assert lab.model is model
    assert not model.training
    assert lab.tokenizer.decode(lab.tokenizer("Paris")["input_ids"], skip_special_tokens=True) == "Paris"
    assert lab.folder == tiny
    lab.close()
    lab.close()
    assert "model" not in vars(lab)
    assert lab.model is not model  # and it comes back when it is needed again


@pytest.mark.parametrize("profile", ["gpus", "", "CPU", None])
def test_an_unknown_profile_is_refused(profile):
    with pytest.raises(ParameterError, match="PROFILE") as caught:
        start("02", profile=profile)
    assert "cpu, gpu, trtllm" in str(caught.value)


def test_the_gpu_profile_needs_a_gpu():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ParameterError, match="torch sees no CUDA device"):
        start("02", profile="gpu")


def test_the_trtllm_profile_needs_tensorrt_llm():
    if "tensorrt_llm" in sys.modules:
        pytest.skip("it is there")
    with pytest.raises(ParameterError, match="TensorRT-LLM is not installed"):
        start("02", profile="trtllm")


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "0", None, True])
def test_a_seed_is_a_64_bit_whole_number(seed):
    with pytest.raises(ParameterError, match="SEED"):
        start("02", seed=seed)


@pytest.mark.parametrize("model", ["smollm", "", "a/b/c", "a/", "/no/such/folder"])
def test_a_model_that_cannot_be_is_refused_before_anything_is_fetched(model):
    with pytest.raises(ParameterError, match="MODEL") as caught:
        start("02", model=model)
    assert "smollm2-135m-instruct" in str(caught.value)


def test_a_hub_id_is_taken_as_it_is(capsys):
    start("02", model="owner/name")
    assert "· name ·" in capsys.readouterr().out
