"""The memory ledger: its entries by hand, sizes against checkpoints, and its sum against a real engine's process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from labsupport.cli import labs
from labsupport.doctor.memory import ONE_GPU, Plan, kv_bytes_per_token, need, weight_bytes
from labsupport.doctor.shapes import find_gpu, known_shapes, shape_of_folder
from labsupport.engine.ledger import PYTHON_BYTES, Source, check_tp, find_source, ledger, plan_for, shape_of_config
from labsupport.errors import ParameterError
from labsupport.models.tiny import make_tiny

SMOL_NAME = "smollm2-135m-instruct"
LLAMA, SMOL = known_shapes()["llama-2-7b"], known_shapes()[SMOL_NAME]
ENGINE_ON_CPU = {"batch": 8, "length": 1024}  # 256 blocks of 32 tokens

PROBE = """
import json, re, sys
from pathlib import Path

import torch

from labsupport.engine.loaded import Engine

def held(file, name):
    return 1024 * int(re.search(rf"^{name}:\\s+(\\d+)", Path(f"/proc/self/{file}").read_text(), re.MULTILINE)[1])

folder, blocks, tokens = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
before = held("smaps_rollup", "Rss")
engine = Engine(folder)
cache = engine.new_cache(blocks + 1)
for keys, values in (pool for layer in cache for pool in layer):
    keys.fill_(0.1), values.fill_(0.1)
table = list(range(1, 1 + tokens // engine.tokens_per_block))
for _ in range(3):  # the kernel notes a peak late
    engine.context(cache, [7] * tokens, 0, table)
engine.generation(cache, [7] * 8, [tokens - 1] * 8, [table] * 8)
print(json.dumps({"before": before, "now": held("smaps_rollup", "Rss"), "peak": held("status", "VmHWM")}))
"""


def memory(*arguments: str) -> str:
    found = CliRunner().invoke(labs, ["memory", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found.output


# --- by hand ---


def test_llama_2_7b_entry_by_entry() -> None:
    told = ledger(Source(LLAMA), "float16", Plan(tokens_per_block=32), batch=8, length=2048)
    assert [entry.name for entry in told.entries] == ["weights", "KV cache", "activations", "logits", "fixed"]
    assert told["weights"] == 2 * 6_738_415_616
    assert told["KV cache"] == 8 * 64 * 32 * 524_288  # 64 blocks a sequence
    assert told.total == need(LLAMA, find_gpu("4090"), "float16", batch=8, length=2048).total


def test_the_last_block_of_a_sequence_counts_whole() -> None:
    told = ledger(Source(LLAMA), "float16", Plan(tokens_per_block=32), batch=3, length=33)
    assert told["KV cache"] == 3 * 2 * 32 * 524_288


def test_two_gpus_share_all_but_the_embedding() -> None:
    # by hand: 6,476,271,616 linear weights and the head of 131,072,000 halved, the embedding of 131,072,000 whole
    assert weight_bytes(LLAMA, "float16", 2) == 2 * (3_238_135_808 + 65_536_000 + 131_072_000)
    assert kv_bytes_per_token(LLAMA, "float16", 2) == 256 * 1024
    gemma = known_shapes()["gemma-2b"]  # one KV head: every GPU holds it
    assert kv_bytes_per_token(gemma, "float16", 4) == kv_bytes_per_token(gemma, "float16")


@pytest.mark.parametrize(  # float32 needs both GPUs
    ("precision", "tp"),
    [("float32", 2), *((precision, tp) for precision in ("float16", "int8", "int4") for tp in (1, 2))],
)
@pytest.mark.parametrize("block", [1, 32])
def test_the_borders_are_the_borders(precision: str, tp: int, block: int) -> None:
    """The batch and the length that are named as the largest fit; one more of either does not."""
    device, plan = find_gpu("4090"), Plan(tp=tp, tokens_per_block=block)
    told = need(LLAMA, device, precision, batch=8, length=1000, plan=plan)
    assert told.largest_batch > 0
    pool = told.pool  # logits grow with the batch, so the border is that of the pool that was told
    each = -(-1000 // block) * block * told.kv_per_token
    assert told.largest_batch * each <= pool < (told.largest_batch + 1) * each
    blocks = -(-(told.longest + 1) // block) * block
    assert told.longest == LLAMA.context or 8 * blocks * told.kv_per_token > pool


def test_heads_are_not_cut() -> None:
    with pytest.raises(ParameterError, match="tp 2 does not fit") as problem:
        check_tp(SMOL, 2)
    assert problem.value.fix == "--tp 1 or 3 or 9"


# --- against checkpoints: the doctor's table and the typed config describe one model ---


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "opt", "gpt2", "qwen2", "qwen3"])
def test_a_checkpoint_has_the_sizes_of_its_model(family: str, tmp_path: Path) -> None:
    from labsupport.checkpoint.config import read_config
    from labsupport.checkpoint.convert import convert

    model = make_tiny(family, tmp_path / family)
    convert(model, output=tmp_path / "made" / "float32")
    found = shape_of_config(read_config(tmp_path / "made" / "float32"), family)
    wanted = shape_of_folder(model)
    assert {**vars(found), "title": "", "architecture": ""} == {**vars(wanted), "title": "", "architecture": ""}
    source = find_source(str(tmp_path / "made" / "float32"))
    assert (source.precision, source.tp, source.weights) == ("float32", 1, None)


def test_a_quantized_head_counts_beside_the_table_that_it_was(tmp_path: Path) -> None:
    from labsupport.checkpoint.quantize.quantize import quantize_model
    from labsupport.checkpoint.quantize.recipes import QuantizeOptions

    model = make_tiny("gemma2", tmp_path / "tied")
    shapes = [
        shape_of_config(
            quantize_model(model, QuantizeOptions(quantize_lm_head=head), output=tmp_path / name).config, ""
        )
        for name, head in (("plain", False), ("head", True))
    ]
    assert [one.tied for one in shapes] == [True, False]
    assert shapes[1].parameters - shapes[0].parameters == shapes[0].vocab * shapes[0].hidden


def test_ranks_of_a_checkpoint_hold_what_the_formula_says(tmp_path: Path) -> None:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options
    from labsupport.doctor.shapes import count_safetensors

    model = make_tiny("llama", tmp_path / "tiny")
    convert(model, Options(tp_size=2), output=tmp_path / "made" / "tp2")
    (tmp_path / "made" / "tp2" / "rank1.safetensors").unlink()
    one = count_safetensors(tmp_path / "made" / "tp2")
    assert weight_bytes(shape_of_folder(model), "float32", 2) == pytest.approx(4 * one, rel=0.02)  # norms are whole


# --- the command ---


def test_the_question_of_llama_on_a_4090() -> None:
    said = memory("llama-2-7b", "--gpu", "4090")
    assert "weights        13.477 GB  = 6,476,271,616 x 2 B + 131,072,000 x 2 B + 131,072,000 x 2 B" in said
    assert "KV cache        8.590 GB  = 512 blocks x 32 tokens x 2 x 32 layers x 32 KV heads x 128 x 2 B" in said
    assert "Fits: the cache has room for 18,496 tokens, 16,384 are asked. Largest batch at 2048 tokens: 9." in said
    assert "Does not fit" in memory("llama-2-7b", "--gpu", "4090", "--batch", "10")
    assert "weights, activations and the fixed part alone" in memory(
        "llama-2-7b", "--gpu", "4090", "--dtype", "float32"
    )
    assert ", on each of 2" in memory("llama-2-7b", "--gpu", "4090", "--tp", "2")
    assert "a GPU of 24 GiB" in memory("llama-2-7b", "--memory", "24")


def test_without_a_gpu_the_engine_is_ours() -> None:
    shown = memory(SMOL_NAME, "--length", "1024", "--dtype", "float32")
    assert "Python with torch" in shown or "rule of thumb" in shown  # the second on a machine with a GPU


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["llama-9"], "no shape is known"),
        (["llama-2-7b", "--gpu", "4090", "--tp", "3"], "tp 3 does not fit"),
        (["llama-2-7b", "--gpu", "4090", "--memory", "24"], "--gpu and --memory"),
        (["llama-2-7b", "--memory", "0"], "--memory 0"),
        (["llama-2-7b", "--gpu", "4090", "--dtype", "int3"], "dtype 'int3'"),
        (["llama-2-7b", "--gpu", "4090", "--length", "5000"], "beyond the context"),
    ],
)
def test_bad_questions(asked: list[str], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        CliRunner().invoke(labs, ["memory", *asked], catch_exceptions=False)


# --- against memory that was measured ---


@pytest.mark.real_model
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="measures with Linux's smaps_rollup")
def test_the_ledger_of_a_real_engine_is_within_a_tenth_of_its_process(capsys: pytest.CaptureFixture[str]) -> None:
    from labsupport.checkpoint.convert import convert
    from labsupport.engine.build import build
    from labsupport.models import fetch

    engine = build(convert(fetch(SMOL_NAME)).folder).folder
    source = find_source(str(engine))
    assert (source.precision, source.tp) == ("float32", 1)
    assert source.weights == pytest.approx(weight_bytes(source.shape, "float32"), rel=0.001)
    plan = plan_for(source.build, gpu=False, tp=1, length=ENGINE_ON_CPU["length"])
    told = ledger(source, "float32", plan, **ENGINE_ON_CPU)
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(engine), "256", str(ENGINE_ON_CPU["length"])],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    peak, now = found["peak"] - found["before"], found["now"] - found["before"]
    predicted, held = told.total - PYTHON_BYTES, told["weights"] + told["KV cache"]
    with capsys.disabled():
        print(
            f"\nPython with torch {found['before'] / 1e6:.0f} MB; beyond it at most {peak / 1e6:.0f} MB, ledger "
            f"{predicted / 1e6:.0f}: {predicted / peak - 1:+.1%}; resident {now / 1e6:.0f} MB = {now / held:.2f} x "
            f"(weights + cache {held / 1e6:.0f} MB)"
        )
    assert predicted == pytest.approx(peak, rel=0.1)
    assert now <= 1.3 * held
    assert found["before"] == pytest.approx(PYTHON_BYTES, rel=0.25)  # torch grows from version to version


def test_flash_attention_writes_no_scores() -> None:
    told = ledger(Source(LLAMA), "float16", ONE_GPU, batch=1, length=64)
    assert "scores" not in [entry.name for entry in told.entries]
