"""What is measured: divergences by hand, agreement with transformers, bytes counted, the table and its bars."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from checkpoints_made import converted, tiny
from click.testing import CliRunner
from quantized_made import llama, quantized

from labsupport.benchmark.commands import bench
from labsupport.checkpoint.config import read_config
from labsupport.checkpoint.network import load_network
from labsupport.checkpoint.quantize.bench import SWEEP, Row, Sweep, bars, caption, line, sweep
from labsupport.checkpoint.quantize.calibrate import read_pieces
from labsupport.checkpoint.quantize.commands import _RECIPES, quantize
from labsupport.checkpoint.quantize.cost import Cost, cost, linear_bytes
from labsupport.checkpoint.quantize.quality import Judge, Quality, kl
from labsupport.checkpoint.quantize.recipes import OURS, RECIPES, QuantizeOptions
from labsupport.errors import ParameterError
from labsupport.figures.quantization import Spent, best, quality_against_bits

WINDOWS = torch.randint(0, 260, (3, 40), generator=torch.Generator().manual_seed(1))


def test_divergence_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
    wanted = 0.5 * math.log(2) + 0.25 * math.log(0.5)
    assert float(kl(p.log(), q.log())) == pytest.approx(wanted, rel=1e-6)
    assert float(kl(p.log(), p.log())) == 0


def test_a_network_does_not_differ_from_itself() -> None:
    judge = Judge(converted(llama()), WINDOWS)
    found = judge.measure(load_network(converted(llama())))
    assert found.tokens == WINDOWS.numel()
    assert found.kl_mean < 1e-9
    assert found.agreement == 1
    assert found.perplexity == pytest.approx(judge.perplexity)


def test_the_measures_are_those_of_whole_logits() -> None:
    """The same from two plain forward passes, without the detour over hidden states."""
    folder = quantized(llama(), "int4_wo")
    with torch.no_grad():
        p, q = (load_network(one)(WINDOWS).log_softmax(-1) for one in (converted(llama()), folder))
    every = (p.exp() * (p - q)).sum(-1).flatten().double()
    found = Judge(converted(llama()), WINDOWS).measure(load_network(folder))
    assert found.kl_mean == pytest.approx(float(every.mean()), rel=1e-4)
    assert found.kl_p999 == pytest.approx(float(every.quantile(0.999)), rel=1e-4)
    assert found.agreement == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).float().mean()))
    surprise = -q[:, :-1].gather(-1, WINDOWS[:, 1:, None]).mean()
    assert found.perplexity == pytest.approx(math.exp(surprise), rel=1e-4)


def test_bytes_by_hand() -> None:
    config = read_config(quantized(llama(), "int4_rtn", dtype="float16"))
    group = config.quantization.group_size
    name = "transformer.layers.0.mlp.proj.weight"
    assert linear_bytes(config, name, 128, 256) == 128 * 256 // 2 + 128 * 256 // group * 2 + 256 * 2
    found = cost(
        quantized(llama(), "full_prec", dtype="float16"), read_config(quantized(llama(), "full_prec", dtype="float16"))
    )
    assert found.bits == 16
    assert found.layers == found.weights * 2
    heads = config.num_key_value_heads * config.head_size
    assert found.cache == 2 * 2 * heads * 2  # keys and values, two layers, two bytes
    eight = quantized(llama(), "int8_wo", dtype="float16", kv_cache="int8")
    assert cost(eight, read_config(eight)).cache == found.cache // 2
    assert 8 < cost(eight, read_config(eight)).bits < 8.3
    assert cost(eight, read_config(eight)).disk > 0.95 * found.disk  # the portable form is float on disk


def test_ranks_hold_the_same_bytes_together() -> None:
    one, two = (quantized(llama(), "fp8", **cut) for cut in ({}, {"tp_size": 2}))
    assert cost(one, read_config(one)).weights == cost(two, read_config(two)).weights


def test_a_sweep_and_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    found = sweep(llama(), [QuantizeOptions("int8_wo"), QuantizeOptions("int4_rtn")], tokens=512)
    assert found.kl("int8_wo") < found.kl("int4_rtn")
    assert [line(row).split()[0] for row in found.rows] == ["int8_wo", "int4_rtn"]
    assert caption(found).startswith(f"{llama().name}, 512 tokens")
    assert list((tmp_path / "runs").glob("quantize-*.json"))
    with pytest.raises(ParameterError, match="tokens"):
        sweep(llama(), [], tokens=10**6)


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    made = CliRunner().invoke(quantize, [str(llama()), "--recipe", "int4_rtn", "--group", "32"])
    assert made.exit_code == 0, made.output
    assert made.stdout.strip().endswith("float16-int4_rtn-g32-tp1")
    assert "groups of 32" in made.stderr
    printed = CliRunner().invoke(bench, ["quantize", str(llama()), "--tokens", "512", "--recipe", "int8_wo"])
    assert printed.exit_code == 1, printed.output  # 5e-3: random weights have near ties everywhere
    assert "NOT met  W8A16 (int8_wo): mean KL at most 1e-3" in printed.stdout


def table(**divergence: float) -> Sweep:
    rows = [Row(name, Quality(4096, kl, kl, 1.0, 20.0), Cost(1, 1, 1, 1, 1), 0) for name, kl in divergence.items()]
    return Sweep("made up", 20.0, tuple(rows))


def test_the_bars() -> None:
    assert [met for _, met in bars(table(int8_wo=3e-3, int8_gptq=9e-4, int4_rtn=0.4, int4_awq=0.2))] == [True, True]
    assert [met for _, met in bars(table(int8_wo=3e-3, int8_gptq=1.1e-3, int4_rtn=0.3, int4_awq=0.21))] == [False] * 2
    assert "int8_gptq" in bars(table(int8_wo=3e-3, int8_gptq=9e-4))[0][0]
    assert bars(table(fp8=1.0)) == []


@pytest.mark.parametrize(("divergence", "code"), [(9e-4, 0), (1.1e-3, 1)])
def test_a_bar_that_is_not_met_is_a_failure(divergence: float, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labsupport.checkpoint.quantize.bench.sweep", lambda *_, **__: table(int8_wo=divergence))
    done = CliRunner().invoke(bench, ["quantize", str(llama())])
    assert done.exit_code == code
    assert ("NOT met" in done.stdout) == bool(code)


def test_the_command_knows_every_recipe() -> None:
    assert tuple(RECIPES) == _RECIPES
    assert {one.recipe for one in SWEEP} == set(RECIPES)
    listed = CliRunner().invoke(quantize, ["--list"]).stdout
    assert all(name in listed for name in RECIPES)


# ---- TensorRT-LLM's own calls


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_real_stacks_calls(recipe: str) -> None:
    done = CliRunner().invoke(quantize, [str(llama()), "--recipe", recipe, "--tp", "2", "--real-stack"])
    assert done.exit_code == 0, done.output
    assert "not run here" in done.stderr
    if recipe in OURS:
        assert f"do not make {recipe}" in done.stdout
    else:
        assert f"quantize.py --model_dir {llama()} --dtype float16 --qformat {recipe} --tp_size 2" in done.stdout


def test_awqs_group_and_the_cache_are_handed_on() -> None:
    arguments = [str(llama()), "--recipe", "int4_awq", "--group", "32", "--kv-cache", "int8", "--real-stack"]
    printed = CliRunner().invoke(quantize, arguments).stdout
    assert "--awq_block_size 32 --kv_cache_dtype int8" in printed
    assert "512 articles of cnn_dailymail" in printed


def test_a_quantized_head_needs_the_script_that_has_a_flag_for_it() -> None:
    printed = CliRunner().invoke(quantize, [str(llama()), "--quantize-lm-head", "--real-stack"]).stdout
    assert "--qformat int8_wo --tp_size 1 --pp_size 1 --quantize_lm_head" in printed
    assert "convert_checkpoint.py" not in printed


def test_gemmas_dummy_awq_is_named() -> None:
    printed = CliRunner().invoke(quantize, [str(tiny("gemma3")), "--recipe", "int4_awq", "--real-stack"]).stdout
    assert "# not this:" in printed
    assert "w4a16_awq" in printed
    assert "dummy" in printed


# ---- the figure


ALT = "Three recipes: eight bits cost a hundredth of what four bits cost."


def test_the_figure_draws_in_both_themes() -> None:
    figure = quality_against_bits(
        [Spent("a", 4, 0.1), Spent("b", 4.3, 0.05, chosen=True), Spent("c", 8, 1e-3)], alt=ALT
    )
    assert figure.png("light") != figure.png("dark")


def test_what_nothing_else_beats() -> None:
    spent = [Spent("wasteful", 9, 0.2), Spent("small", 4, 0.1), Spent("exact", 16, 1e-6), Spent("worse", 4.5, 0.3)]
    assert [one.name for one in best(spent)] == ["small", "exact"]


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(ParameterError, match="0 recipes"):
        quality_against_bits([], alt=ALT)
    with pytest.raises(ParameterError, match="least divergence 0"):
        quality_against_bits([Spent("float", 16, 0.0)], alt=ALT)


# ---- texts


@pytest.mark.real_model
def test_the_texts_are_long_enough_and_share_no_paragraph() -> None:
    from labsupport.models import DEFAULT_MODEL, fetch
    from labsupport.workspace import data_folder

    model, texts = fetch(DEFAULT_MODEL, progress=False), data_folder() / "texts"
    assert read_pieces(model).numel() >= 1024
    assert read_pieces(model, texts / "evaluation.txt", 512, 4096).numel() >= 4096
    first, second = (set((texts / f"{name}.txt").read_text().split("\n\n")) for name in ("calibration", "evaluation"))
    assert not first & second
