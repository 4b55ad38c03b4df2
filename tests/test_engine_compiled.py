"""Compiled engines against transformers: every family, ranks, quantized weights, the real model, and no compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints_made import ALL_FAMILIES, converted, original_logits, tiny
from engines_made import BLOCK, built, check_a_shared_step, engine, run
from quantized_made import llama as wide_llama
from quantized_made import quantized

from labsupport.engine.build import build, read_report
from labsupport.engine.eager import EagerModel
from labsupport.engine.loaded import Engine
from labsupport.engine.runner import Runner

PROMPTS, STEPS, TOLERANCE = 64, 32, 1e-3


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_gives_the_logits_of_transformers(family: str) -> None:
    """64 prompts of 1 to 40 tokens, 32 steps each; Gemma's windows of 16 tokens are passed, blocks lie in no order."""
    model = tiny(family)
    compiled = engine(converted(model, dtype="float32"))
    draw = np.random.default_rng(11)
    for _ in range(PROMPTS // 8):
        prompt = int(draw.integers(1, 41))
        tokens = draw.integers(3, 260, (8, prompt + STEPS))
        expected = original_logits(model, torch.from_numpy(tokens)).numpy()
        for row, other in zip(tokens.tolist(), expected, strict=True):
            assert np.abs(run(compiled, row, prompt) - other[prompt - 1 :]).max() < TOLERANCE


def test_all_ranks_of_a_checkpoint_run_in_one_engine() -> None:
    model = tiny("llama")
    folder = built(converted(model, dtype="float32", tp_size=2, pp_size=2))
    assert {path.name for path in folder.glob("rank*")} == {
        name for rank in range(4) for name in (f"rank{rank}.engine", f"rank{rank}_managed_weights.safetensors")
    }
    tokens = list(range(3, 40))
    found = run(Engine(folder), tokens, 30)
    assert np.abs(found - original_logits(model, torch.tensor([tokens]))[0, 29:].numpy()).max() < TOLERANCE


# where activations are rounded too, a sum that differs in its last bit may fall on the next whole number
@pytest.mark.parametrize(("recipe", "allowed"), [("int8_wo", 1e-3), ("int4_awq", 1e-3), ("int8_sq", 0.1)])
def test_quantized_checkpoints_run_as_the_network_runs_them(recipe: str, allowed: float) -> None:
    checkpoint = quantized(wide_llama(), recipe, quantize_lm_head=recipe == "int8_wo")
    compiled, plain = engine(checkpoint), EagerModel(checkpoint, tokens_per_block=BLOCK)
    tokens = list(range(5, 50))
    difference = np.abs(run(compiled, tokens, 40) - run(plain, tokens, 40))  # type: ignore[arg-type]
    assert difference.max() < allowed
    assert np.median(difference) < 1e-3


def test_several_sequences_share_a_step_and_more_than_a_graph_has_rows_take_turns() -> None:
    checkpoint = converted(tiny("qwen2"), dtype="float32")
    compiled, plain = engine(checkpoint, max_batch_size=10), EagerModel(checkpoint, tokens_per_block=BLOCK)
    caches = check_a_shared_step(compiled, plain, TOLERANCE)
    for model, cache in zip((compiled, plain), caches, strict=True):
        model.copy_blocks(cache, [(1, 39)])
    again = [model.generation(cache, [5], [6], [[39]]) for model, cache in zip((compiled, plain), caches, strict=True)]
    assert np.abs(again[0] - again[1]).max() < TOLERANCE


def test_a_recorded_step_goes_with_its_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new cache may lie where an old one lay; a graph that wrote to the old one must not be found for it."""
    compiled = Engine(built(converted(tiny("llama"), dtype="float32")))
    monkeypatch.setattr("labsupport.engine.loaded.Captured", lambda step, rows, width: object())  # noqa: ARG005
    one, other = compiled.new_cache(2), compiled.new_cache(2)
    compiled.device = "cuda"  # now it only asks whether steps are recorded
    assert compiled._step(one, 1, 2) is compiled._step(one, 1, 2) is not compiled._step(one, 1, 4)
    assert compiled._step(one, 1, 2) is not compiled._step(other, 1, 2)
    del one
    assert len(compiled._captured) == 1


def test_the_folder_holds_what_an_engine_of_tensorrt_llm_holds_and_a_report() -> None:
    folder = built(converted(tiny("llama"), dtype="float32"))
    written = json.loads((folder / "config.json").read_text())
    assert set(written) == {"version", "pretrained_config", "build_config"}
    assert written["build_config"]["plugin_config"]["tokens_per_block"] == BLOCK
    report = read_report(folder)
    assert len(report.kernels["layer.1"]) == 1, "a layer of one token is one kernel"
    assert "aoti_torch_cpu_mm_out" in report.kernels["layer.context"], "a prompt goes through the library's product"
    assert {phase.name for phase in report.phases} >= {"read", "export", "compile layer.1", "write rank0.engine"}
    with zipfile.ZipFile(folder / "rank0.engine") as archive:
        assert {"engine.json", "layer.1.pt2", "layer.context.pt2", "head.1.pt2"} == set(archive.namelist())


def test_code_for_all_cores_is_compiled_under_a_limit_of_one_thread() -> None:
    assert os.environ["OMP_NUM_THREADS"] == "1", "tests and labs limit their threads; whoever runs the engine may not"
    folder = built(converted(tiny("llama"), dtype="float32"))
    with zipfile.ZipFile(folder / "rank0.engine") as archive, zipfile.ZipFile(archive.open("layer.1.pt2")) as package:
        (kernels,) = (name for name in package.namelist() if name.endswith(".kernel.cpp"))
        parallel = package.read(kernels).decode().count("#pragma omp parallel\n")
    assert (parallel > 0) == ((os.cpu_count() or 1) > 1)


def test_it_runs_in_a_fresh_process_without_a_compiler(tmp_path: Path) -> None:
    model = tiny("llama")
    folder, out = built(converted(model, dtype="float32")), tmp_path / "logits.npy"
    program = (
        "import shutil, sys, numpy; from pathlib import Path; from labsupport.engine.loaded import Engine\n"
        "assert shutil.which('g++') is None and shutil.which('c++') is None and shutil.which('gcc') is None\n"
        "engine = Engine(Path(sys.argv[1])); cache = engine.new_cache(4)\n"
        "numpy.save(sys.argv[2], engine.context(cache, [5, 6, 7, 8], 0, [2]))\n"
        "assert 'torch._inductor' not in sys.modules, 'the compiler was imported'\n"
    )
    bare = {"PATH": str(tmp_path), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"), "CXX": "none",
            "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}  # fmt: skip
    subprocess.run([sys.executable, "-c", program, str(folder), str(out)], env=bare, check=True)
    expected = original_logits(model, torch.tensor([[5, 6, 7, 8]]))[0, -1].numpy()
    assert np.abs(np.load(out) - expected).max() < TOLERANCE


@pytest.mark.real_model
def test_the_real_model_writes_the_same_256_tokens_as_transformers() -> None:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options
    from labsupport.models import fetch, load

    folder = fetch("smollm2-135m-instruct", progress=False)
    done = build(convert(folder, Options("float32")).folder)
    model, tokenizer = load(str(folder))
    prompt = tokenizer("A server that batches its requests", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        theirs = model.generate(prompt, max_new_tokens=256, min_new_tokens=256, do_sample=False)[0, prompt.shape[1] :]
        runner = Runner(done.folder)
        [[result]] = runner.generate([prompt[0].tolist()], max_new_tokens=256)
        assert list(result.output_token_ids[0]) == theirs.tolist()
        tokens = prompt[0].tolist() + theirs.tolist()[:STEPS]
        compiled = Engine(done.folder)
        cache, table = compiled.new_cache(4), [3, 1]
        found = [compiled.context(cache, tokens[: prompt.shape[1]], 0, table)]
        found += [
            compiled.generation(cache, [tokens[at]], [at], [table])[0] for at in range(prompt.shape[1], len(tokens))
        ]
        expected = model(torch.tensor([tokens])).logits[0, prompt.shape[1] - 1 :].numpy()
    assert np.abs(np.stack(found) - expected).max() < TOLERANCE


def test_a_build_with_the_same_inputs_is_not_done_again() -> None:
    checkpoint = converted(tiny("llama"), dtype="float32")
    folder = built(checkpoint)
    from labsupport.engine.build_config import build_config

    again = build(checkpoint, build_config(max_batch_size=1, tokens_per_block=BLOCK, max_input_len=64), output=folder)
    assert again.skipped
    assert again.seconds < 1
