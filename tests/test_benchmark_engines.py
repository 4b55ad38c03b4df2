"""``labs bench engines``: its arithmetic, its protocol with real processes, and what it says when a peer is missing."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch import ones, tensor

from labsupport.benchmark.catalogue import OURS, PEERS, PRECISIONS, WORKER, Peer
from labsupport.benchmark.commands import bench, entries_of
from labsupport.benchmark.engines import Found, Ratio, Row, Settings, Spread, doubts, leading, measure, ratios
from labsupport.benchmark.engines_compare import compare_engines, compare_files
from labsupport.benchmark.engines_text import lines, spread
from labsupport.benchmark.installing import files_of, installed
from labsupport.benchmark.limits import BITS, Work, doubt, work_of
from labsupport.benchmark.machine import Limits, measure_limits
from labsupport.benchmark.process import Worker
from labsupport.errors import BenchmarkError, ModelError
from labsupport.models.tiny import make_tiny

# An engine that counts on from the last token of the prompt; what its library prints must not reach the answers.
COUNTING = """
import os, time
class Engine:
    versions, note = {"counting": "1"}, "no cache at all"
    def __init__(self, asked):
        print("loading", asked["precision"])
        os.system("echo a child talks too")
    def generate(self, ids, new, on_token):
        print("generating")
        for step in range(new):
            time.sleep(0.002)
            on_token(ids[-1] + 1 + step)
"""
LIMITS = Limits(read=10e9, flops=1e12, read_median=9e9)


class ScriptPeer(Peer):
    """A peer whose script lies where a test wrote it."""

    folder = Path()

    @property
    def script(self) -> Path:
        return self.folder / f"{self.name}.py"


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScriptPeer:
    monkeypatch.setattr(ScriptPeer, "folder", tmp_path)
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path / "work"))
    (tmp_path / "counting.py").write_text(COUNTING)
    return ScriptPeer("counting", "Counting", ("fp32",))


def serving(peer: Peer, threads: int = 1) -> Worker:
    return Worker(peer.name, [sys.executable, str(WORKER), str(peer.script), "serve"], threads)


def row(peer: str, precision: str, prefill: float, decode: float, same: int = 128) -> Row:
    one = [Spread(rate, rate, rate) for rate in (prefill, decode)]
    return Row(peer, peer.title(), precision, *one, 1.0, 1.0, 10**9, 0.5, 0.0, same, (1, 2), {"it": "1"}, "a note")


def test_a_worker_answers_in_turn_and_only_with_its_answers(peer: ScriptPeer) -> None:
    with serving(peer) as worker:
        loaded = worker.ask({"files": "", "precision": "fp32", "threads": 1, "context": 8})
        assert loaded["versions"] == {"counting": "1"}
        for last in (5, 50):
            answer = worker.ask({"ids": [1, last], "new": 4})
            assert answer["tokens"] == [last + 1, last + 2, last + 3, last + 4]
            assert answer["times"] == sorted(answer["times"])
            assert answer["times"][0] >= 0.002
        assert worker.peak > 1e6


def test_a_peer_may_be_named_like_the_library_that_it_drives(peer: ScriptPeer) -> None:
    (peer.folder / "json.py").write_text(COUNTING + "\nimport json\nassert json.dumps\n")
    with serving(ScriptPeer("json", "json", ("fp32",))) as worker:
        assert worker.ask({"files": "", "precision": "fp32", "threads": 1, "context": 8})["note"] == "no cache at all"


def test_the_last_words_of_a_worker_that_dies_are_the_reason(peer: ScriptPeer) -> None:
    (peer.folder / "counting.py").write_text("raise SystemExit('no such instruction on this processor')")
    with serving(peer) as worker, pytest.raises(BenchmarkError) as caught:
        worker.ask({"files": ""})
    assert "no such instruction" in caught.value.why
    assert caught.value.what.startswith("the worker of counting")


def test_all_rounds_run_and_are_written(peer: ScriptPeer, tmp_path: Path) -> None:
    model = make_tiny("llama", tmp_path / "tiny")
    asked = Settings(prompt=2, new=5, threads=1, rounds=3)
    prompts = [[1, number] for number in range(4)]
    found = measure(model, [(peer, "fp32")], prompts, asked, cpu="a processor")
    (only,) = found.rows
    assert only.tokens == (4, 5, 6, 7, 8)  # of the last prompt
    assert only.same == 5
    assert only.others >= 0
    assert only.decode.low <= only.decode.median <= only.decode.high < 1 / 0.002
    assert only.prefill.high < 2 / 0.002
    written = json.loads((tmp_path / "work/runs/engines-tiny.json").read_text())
    assert written["cpu"] == "a processor"
    assert written["settings"]["threads"] == 1
    assert written["rows"][0]["versions"] == {"counting": "1"}
    assert any("Counting" in text and "5  4 5 6 7" in text for text in lines(found))


def test_transformers_streams_what_it_generates(tmp_path: Path) -> None:
    from labsupport.models import load

    model = make_tiny("llama", tmp_path / "tiny")
    network, _ = load(str(model))
    expected = network.generate(tensor([[5, 6, 7]]), do_sample=False, max_new_tokens=6, min_new_tokens=6)[0, 3:]
    with serving(PEERS["eager"]) as worker:
        worker.ask({"files": str(model), "precision": "fp32", "threads": 1, "context": 9})
        assert worker.ask({"ids": [5, 6, 7], "new": 6})["tokens"] == expected.tolist()


def test_transformers_at_int8_has_quantized_layers_and_the_same_text(tmp_path: Path) -> None:
    model = make_tiny("llama", tmp_path / "tiny")
    answers = {}
    for precision in ("fp32", "int8"):
        with serving(PEERS["eager"]) as worker:
            said = worker.ask({"files": str(model), "precision": precision, "threads": 1, "context": 9})
            answers[said["note"]] = worker.ask({"ids": [5, 6, 7], "new": 4})["tokens"]
    exact, rounded = answers.values()
    assert (len(rounded), leading(exact, rounded) > 0) == (4, True)


def test_an_engine_that_stops_early_is_no_result(peer: ScriptPeer, tmp_path: Path) -> None:
    (peer.folder / "counting.py").write_text(COUNTING.replace("range(new)", "range(new - 1)"))
    model = make_tiny("llama", tmp_path / "tiny")
    with pytest.raises(BenchmarkError, match="gave 4 tokens where 5"):
        measure(model, [(peer, "fp32")], [[1], [2]], Settings(1, 5, 1, 1), cpu="")


def test_an_engine_that_fails_is_left_out_and_the_others_are_measured(peer: ScriptPeer, tmp_path: Path) -> None:
    """One dies as it loads, one in the second round: neither has a row, and both are named with their reason."""
    (peer.folder / "late.py").write_text(COUNTING.replace("range(new)", "range(new - (ids[0] == 2))"))
    (peer.folder / "dead.py").write_text("raise SystemExit('illegal instruction')")
    late, dead = (ScriptPeer(name, name.title(), ("fp32",)) for name in ("late", "dead"))
    model, said = make_tiny("llama", tmp_path / "tiny"), list[str]()
    found = measure(
        model, [(one, "fp32") for one in (dead, late, peer)], [[1], [1], [2]], Settings(1, 5, 1, 2), cpu="",
        progress=said.append,
    )  # fmt: skip
    assert [row.title for row in found.rows] == ["Counting"]
    assert "left out: Dead fp32: illegal instruction" in said
    assert ["illegal instruction" in found.left_out[0], "gave 4 tokens where 5" in found.left_out[1]] == [True, True]
    assert any(text.startswith("left out: Late fp32") for text in lines(found))


def test_a_peer_that_is_not_installed_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    assert not installed(PEERS["llamacpp"])
    with pytest.raises(BenchmarkError) as caught:
        files_of(PEERS["llamacpp"], tmp_path, "fp32")
    assert "--install --peers llamacpp" in caught.value.fix
    done = CliRunner().invoke(bench, ["engines", str(tmp_path), "--peers", "llamacpp"])
    assert isinstance(done.exception, BenchmarkError)
    unknown = CliRunner().invoke(bench, ["engines", str(tmp_path), "--peers", "lama"])
    assert "no engine 'lama'" in str(unknown.exception)
    nothing = CliRunner().invoke(bench, ["engines", str(tmp_path), "--peers", "eager", "--precision", "int4"])
    assert "no engine is left" in str(nothing.exception)


def test_a_peer_not_asked_for_by_name_is_left_out_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LABS_WORKSPACE", str(tmp_path))
    entries = entries_of([PEERS["ort"], PEERS["eager"]], ("bf16", "fp32"), all_of_them=False)
    assert [(peer.name, precision) for peer, precision in entries] == [("eager", "fp32"), ("eager", "bf16")]
    assert "left out: ONNX Runtime GenAI" in capsys.readouterr().err


def test_a_decoding_step_reads_a_tied_table_once_and_a_looked_up_table_never(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    body = {"model.layers.0.mlp.up_proj.weight": ones(8, 4), "model.embed_tokens.weight": ones(16, 4)}
    save_file(body, tmp_path / "model.safetensors")
    assert work_of(tmp_path) == Work(8 * 4 + 16 * 4)
    save_file({"lm_head.weight": ones(16, 4)}, tmp_path / "head.safetensors")
    assert work_of(tmp_path) == Work(8 * 4 + 16 * 4)
    with pytest.raises(ModelError, match="no weights"):
        work_of(tmp_path / "nowhere")


def test_limits_of_a_model_on_a_machine() -> None:
    work = Work(100_000_000)
    assert [work.read_bytes(one) for one in PRECISIONS] == [400e6, 200e6, 100e6, 56.25e6]
    assert work.decode_limit("fp32", LIMITS) == pytest.approx(25.0)
    assert work.prefill_limit(LIMITS) == pytest.approx(5000.0)
    assert set(BITS) == set(PRECISIONS)


def test_a_result_beyond_its_limit_or_far_below_is_doubtful() -> None:
    assert doubt("decode", 20.0, 25.0) is None
    assert "1.20 times its limit" in str(doubt("decode", 30.0, 25.0))
    assert "0.080 of its limit" in str(doubt("decode", 2.0, 25.0))
    work = Work(100_000_000)
    fine = row("llamacpp", "fp32", 2000.0, 20.0)
    assert doubts([fine], work, LIMITS) == []
    assert len(doubts([replace(fine, prefill=Spread(6000, 6000, 6000))], work, LIMITS)) == 1
    assert doubts([replace(fine, precision="bf16", prefill=Spread(6000, 6000, 6000))], work, LIMITS) == []
    assert "used 1.0 cores beside it" in doubts([replace(fine, others=1.0)], work, LIMITS)[0]
    assert "first token" in doubts([replace(fine, same=0)], work, LIMITS)[0]
    assert doubts([replace(fine, same=0, precision="int4", decode=Spread(150.0, 150.0, 150.0))], work, LIMITS) == []


def test_ratios_are_ours_by_the_best_other_of_the_precision() -> None:
    rows = [
        row(OURS, "fp32", 300.0, 60.0), row("a", "fp32", 600.0, 40.0), row("b", "fp32", 200.0, 50.0),
        row("a", "bf16", 1.0, 1.0), row(OURS, "int4", 1.0, 1.0),
    ]  # fmt: skip
    assert ratios(rows) == (Ratio("fp32", 1.2, "B", 0.5, "A"),)


def test_spreads_and_leading_tokens() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, (3.0, 1.0, 2.0))
    assert Spread.of([1.0, 2.0]).median == 1.5
    assert spread(Spread(99.94, 80.0, 123.0)) == "99.9 (80.0-123.0)"
    assert spread(Spread(1234.4, 80.0, 2000.0)) == "1234 (80-2000)"
    assert (leading([1, 2, 3], [1, 2, 3]), leading([9, 2], [1, 2]), leading([1, 9, 3], [1, 2, 3])) == (3, 0, 1)


def test_the_text_names_limits_ratios_and_doubts() -> None:
    rows = (row(OURS, "fp32", 300.0, 60.0), row("a", "fp32", 600.0, 40.0))
    found = Found("tiny", "2026-01-01", "a CPU", Settings(), LIMITS, 10**8, "A fp32", rows, ratios(rows), ("a doubt",))
    text = "\n".join(lines(found))
    for part in ("100.0 M weights", "10.0 GB/s", "limit at fp32: 25 tok/s", "decode 1.50 times A", "doubtful: a doubt",
                 "prefill 0.50 times A", "A (it 1): fp32: a note"):  # fmt: skip
        assert part in text


def test_the_limits_of_this_machine_are_believable() -> None:
    found = measure_limits(1, size=64 << 20, repeats=3)
    assert 2e8 < found.read_median <= found.read < 1e12
    assert 1e8 < found.flops < 1e14


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.script.is_file()])
def test_each_script_holds_what_the_worker_calls(name: str) -> None:
    text = PEERS[name].script.read_text()
    assert "class Engine" in text
    assert "def generate(self, ids: list[int], new: int, on_token" in text
    assert ("def prepare(model: str, target: str, precision: str)" in text) == bool(PEERS[name].pip)


# -- comparison


def result(ours: float, other: float, *, cpu: str = "one", peers: tuple[str, ...] = (OURS, "a", "b")) -> Found:
    """Three rounds; the second is slow for all, as on a machine that was busy."""
    rows = []
    for peer in peers:
        rate = ours if peer == OURS else other
        rates = [Spread.of([scale * rate, 0.5 * scale * rate, 1.01 * scale * rate]) for scale in (10.0, 1.0)]
        rows.append(replace(row(peer, "fp32", 1, 1), prefill=rates[0], decode=rates[1]))
    return Found("tiny", "2026", cpu, Settings(rounds=3), LIMITS, 10**6, "a fp32", tuple(rows), (), ())


def saved(folder: Path, name: str, found: Found) -> str:
    (folder / name).write_text(json.dumps(asdict(found)))
    return str(folder / name)


def test_a_slower_engine_is_a_regression_and_a_slower_machine_is_none(tmp_path: Path) -> None:
    old, day, slow = (
        saved(tmp_path, f"{number}.json", found)
        for number, found in enumerate((result(20, 25), result(10, 12.5, cpu="two"), result(15, 25)))
    )
    fine = CliRunner().invoke(bench, ["compare", old, day])
    assert (fine.exit_code, "no regression" in fine.output, "two machines" in fine.output) == (0, True, True)
    bad = CliRunner().invoke(bench, ["compare", old, slow, "--json"])
    assert bad.exit_code == 1
    decode, prefill = json.loads(bad.output)["changes"]
    assert (decode["load"], decode["metric"], decode["verdict"]) == ("labs fp32", "decode / others", "worse")
    assert [decode["old"], decode["new"], decode["ratio"]] == pytest.approx([0.8, 0.6, 0.75])
    assert decode["low"] <= decode["ratio"] <= decode["high"]
    assert prefill["metric"] == "prefill / others"
    assert CliRunner().invoke(bench, ["engines", "--read", old]).output.startswith("tiny: 1.0 M weights")


def test_engines_that_cannot_be_compared(tmp_path: Path) -> None:
    alone = result(20, 1, peers=(OURS,))
    found = compare_engines(alone, result(10, 25))
    assert [(one.metric, one.ratio) for one in found.changes] == [("decode tokens/s", 0.5), ("prefill tokens/s", 0.5)]
    assert "no other engine is in both" in found.warnings[0]
    moved = replace(alone, rows=tuple(replace(one, versions={"it": "2"}) for one in result(20, 25).rows))
    assert "the yardstick moved: A fp32" in compare_engines(result(20, 25), moved).warnings[0]
    for other, text in (
        (replace(alone, settings=Settings(new=64)), "different tasks"),
        (result(1, 1, peers=("a",)), "no row of our engine"),
        (replace(alone, rows=(row(OURS, "fp32", 1, 1),)), "without its rounds"),
    ):
        with pytest.raises(BenchmarkError, match=text):
            compare_engines(alone, other)
    (tmp_path / "empty").write_text("{}")
    with pytest.raises(BenchmarkError, match="is no result of labs bench engines"):
        compare_files(Path(saved(tmp_path, "alone", alone)), tmp_path / "empty")
    with pytest.raises(BenchmarkError, match="cannot read"):
        compare_files(tmp_path / "nowhere", tmp_path / "empty")
