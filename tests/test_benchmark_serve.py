"""``labs bench serve``: metrics on timelines made by hand, lengths and arrivals, the loops, our engine."""

from __future__ import annotations

import asyncio
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from engine_double import HashModel
from hypothesis import given
from hypothesis import strategies as st

from labsupport.benchmark.arrivals import Closed, Poisson, Replay
from labsupport.benchmark.commands import bench
from labsupport.benchmark.load import run, timelines
from labsupport.benchmark.machine import Limits as Ceilings
from labsupport.benchmark.resample import Estimate, distribution, estimate, grouped, percentile, rate_samples
from labsupport.benchmark.serve import Plan, measure
from labsupport.benchmark.serve_commands import plan_of, slo_of
from labsupport.benchmark.served import Client, Report, Share, doubts, point, read_report
from labsupport.benchmark.served_text import cell, lines
from labsupport.benchmark.target import Answered, Arrival, answered
from labsupport.benchmark.target_engine import EngineTarget
from labsupport.benchmark.target_triton import events
from labsupport.benchmark.timeline import Chunk, Slo, Timeline, goodput, output_rate, request_rate
from labsupport.benchmark.traffic import Traffic, traffic_of
from labsupport.benchmark.workload import Job, Lengths, jobs, read_trace
from labsupport.engine.limits import Limits
from labsupport.errors import BenchmarkError, LabError, ModelError, ParameterError, RequestError
from labsupport.models.tiny import make_tiny

QUIET = Client(cores=0.1, lag_p99=1e-4, late_p99=1e-4)


def line(due: float, *times: float, sent: float | None = None, tokens: int | None = None, first: int = 1) -> Timeline:
    chunks = tuple(Chunk(at, first if number == 0 else 1) for number, at in enumerate(times))
    count = sum(chunk.tokens for chunk in chunks)
    return Timeline(due, due if sent is None else sent, chunks, tokens or count, 10)


# -- metrics


def test_the_metrics_of_one_request() -> None:
    one = line(1.0, 1.5, 1.6, 1.8, 2.0, sent=1.1)
    assert one.ttft == pytest.approx(0.5)  # from when it was due, not from 1.1
    assert one.ttst == pytest.approx(0.1)
    assert one.latency == pytest.approx(1.0)
    assert one.itl == pytest.approx(0.5 / 3)
    assert one.per_user == pytest.approx(6.0)
    assert one.gaps == pytest.approx([0.1, 0.2, 0.2])


def test_tokens_that_come_together_shorten_the_token_s_gap_and_not_the_chunk_s() -> None:
    one = Timeline(0.0, 0.0, (Chunk(1.0, 2), Chunk(2.0, 4), Chunk(3.0, 4)), 10)
    assert one.itl == pytest.approx(2.0 / 8)
    assert one.gaps == [1.0, 1.0]


def test_a_single_content_has_no_gap() -> None:
    one = line(0.0, 0.4)
    assert (one.ttst, one.itl, one.per_user, one.gaps) == (None, None, None, [])


def test_rates_count_from_the_first_request_to_the_last_content() -> None:
    runs = [line(0.0, 1.0, 2.0), line(1.0, 3.0, 5.0)]
    assert output_rate(runs) == pytest.approx(4 / 5)
    assert request_rate(runs) == pytest.approx(2 / 5)
    assert goodput(runs, Slo(ttft=1.0)) == pytest.approx(1 / 5)
    assert goodput(runs, Slo(ttft=2.0, itl=1.5)) == pytest.approx(1 / 5)
    assert goodput(runs, Slo(latency=4.0)) == pytest.approx(2 / 5)


def test_empty_responses_bring_their_token_with_the_next_text() -> None:
    found = answered([(1.0, "a"), (2.0, ""), (3.0, "é"), (4.0, "")])
    assert found.chunks == (Chunk(1.0, 1), Chunk(3.0, 2))
    assert found.text == "aé"


@given(cuts=st.lists(st.integers(0, 60), max_size=5))
def test_events_are_found_however_the_network_cuts_them(cuts: list[int]) -> None:
    whole = b'data: {"a": 1}\n\ndata: {"a": 2}\n\ndata: {"a": 3}\n\n'
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [Arrival(float(at), whole[a:b]) for at, (a, b) in enumerate(pairwise(edges))]
    found = events(pieces)
    assert [json.loads(text)["a"] for _, text in found] == [1, 2, 3]
    completed = [next(i for i, end in enumerate(edges[1:]) if end >= stop) for stop in (16, 32, 48)]
    assert [at for at, _ in found] == completed


# -- percentiles and intervals


def test_percentiles_are_numpy_s_and_lie_in_their_interval() -> None:
    values = np.random.default_rng(1).exponential(1.0, 200)
    found = distribution(list(values))
    assert found.p90.value == pytest.approx(np.percentile(values, 90))
    assert found.count == 200
    for one in (found.mean, found.p50, found.p90, found.p99):
        assert one.low <= one.value <= one.high


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(100):
        values = np.random.default_rng(trial).normal(5.0, 1.0, 60)
        found = estimate(list(values), np.mean, seed=trial)
        hits += found.low <= 5.0 <= found.high
    assert 86 <= hits <= 100
    few = estimate([1.0, 2.0, 3.0], percentile(99))
    assert few.high - few.low > 0.5


def test_gaps_are_drawn_a_request_at_a_time() -> None:
    """Ten requests, each with a hundred equal gaps: the interval must be that of ten values, not of a thousand."""
    groups = [[float(number)] * 100 for number in range(10)]
    wide = grouped(groups).mean
    assert wide.value == pytest.approx(4.5)
    assert wide.high - wide.low > 2.5
    assert estimate([one for group in groups for one in group], np.mean).high - 4.5 < 0.5


def test_rates_of_a_steady_stream_have_a_narrow_interval() -> None:
    steady = [(0.05 + 0.1 * number, 2.0) for number in range(100)]
    low, high = np.quantile(rate_samples(steady, 0.0, 10.0), [0.025, 0.975])
    assert (low, high) == (pytest.approx(20.0), pytest.approx(20.0))
    bursts = [(0.5, 100.0), (9.5, 100.0)]
    assert np.ptp(rate_samples(bursts, 0.0, 10.0)) > 10


def test_no_values_are_no_distribution() -> None:
    with pytest.raises(BenchmarkError, match="without a value"):
        distribution([])


# -- lengths, traces, arrivals


def test_lengths() -> None:
    chance = np.random.default_rng(0)
    assert Lengths.parse("64").sample(3, chance) == [64, 64, 64]
    uniform = Lengths.parse("3-5").sample(200, chance)
    assert set(uniform) == {3, 4, 5}
    normal = Lengths.parse("50~10").sample(2000, chance)
    assert np.mean(normal) == pytest.approx(50, abs=1)
    assert np.std(normal) == pytest.approx(10, abs=1)
    assert min(Lengths.parse("1~9").sample(500, chance)) == 1


@pytest.mark.parametrize("text", ["0", "5-3", "many", "64:16", "-3", "0~4", ""])
def test_lengths_that_are_none(text: str) -> None:
    with pytest.raises(ParameterError, match="no distribution of lengths"):
        Lengths.parse(text)


def test_a_trace_gives_lengths_and_times_from_zero(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text('{"timestamp": 500, "input_length": 8, "output_length": 2}\n\n'
                    '{"timestamp": 1500, "input_length": 4, "output_length": 3, "hash_ids": [1]}\n')  # fmt: skip
    assert read_trace(file) == [(8, 2, 0.0), (4, 3, 1.0)]
    file.write_text('{"input_length": 8, "output_length": 2}\n')
    assert read_trace(file) == [(8, 2, None)]


@pytest.mark.parametrize(
    "text", ['{"input_length": 8}', "no json", '{"input_length": 0, "output_length": 1}', "[1]", ""]
)
def test_a_trace_that_cannot_be_read_names_the_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.jsonl").write_text(text)
    with pytest.raises(ParameterError, match=r"line 1 is no request|has no requests"):
        read_trace(tmp_path / "trace.jsonl")


def test_arrivals_by_chance_have_the_rate_and_the_spread_of_a_poisson_process() -> None:
    times = Poisson(4.0).times(7)
    gaps = np.diff([next(times) for _ in range(4000)])
    assert gaps.mean() == pytest.approx(0.25, rel=0.05)
    assert gaps.std() == pytest.approx(0.25, rel=0.07)  # exponential: as wide as its mean
    again = Poisson(4.0).times(7)
    assert [next(again) for _ in range(3)][1] == pytest.approx(gaps[0])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny("llama", tmp_path_factory.mktemp("models") / "tiny")


def test_prompts_have_their_length_and_share_no_beginning(tiny: Path) -> None:
    made = jobs(tiny, [(20, 4, None)] * 40, seed=1)
    assert {len(job.ids) for job in made} == {20}
    assert len({job.ids[:8] for job in made}) > 35
    assert [job.ids for job in jobs(tiny, [(20, 4, None)] * 40, seed=1)] == [job.ids for job in made]
    assert jobs(tiny, [(20, 4, None)], seed=2)[0].ids != made[0].ids
    with pytest.raises(ParameterError, match="a prompt of 1000000 tokens"):
        jobs(tiny, [(10**6, 4, None)], seed=1)
    with pytest.raises(ParameterError, match=r"no tokenizer\.json"):
        jobs(tiny / "nowhere", [(2, 2, None)], seed=1)


# -- the loops


class Slow:
    """Answers with ``new`` tokens, one each ``gap`` seconds, one request at a time: a queue forms."""

    title, own_process = "slow", True

    def __init__(self, gap: float = 0.002, broken: int | None = None) -> None:
        self.gap, self.broken, self.sent, self.most, self.now = gap, broken, 0, 0, 0

    async def __aenter__(self) -> Slow:
        self.turn = asyncio.Lock()
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def prepare(self, job: Job) -> Job:
        return job

    async def send(self, job: Job) -> list[Arrival]:
        self.sent, self.now = self.sent + 1, self.now + 1
        self.most = max(self.most, self.now)
        number, arrivals = self.sent, []
        async with self.turn:
            for token in range(job.new):
                await asyncio.sleep(self.gap)
                arrivals.append(Arrival(asyncio.get_running_loop().time(), token))
        self.now -= 1
        if number == self.broken:
            raise RequestError("the server refused", why="it was asked to", fix="ask otherwise")
        return arrivals

    def read(self, arrivals: list[Arrival]) -> Answered:
        chunks = tuple(Chunk(one.at) for one in arrivals)
        return Answered(chunks, ids=tuple(one.data for one in arrivals))


def played(target: Slow, arrivals: object, count: int = 12, **options: float) -> list[Timeline]:
    async def all_of_it() -> list[Timeline]:
        async with target:
            work = [Job((1, 2), "a b", 3, at=0.001 * number) for number in range(count)]
            raws, watched = await run(target, work, arrivals, **options)
            assert watched.lags
            return timelines(target, raws)

    return asyncio.run(all_of_it())


def test_a_closed_loop_has_so_many_users_and_each_waits_for_its_answer() -> None:
    target = Slow()
    runs = played(target, Closed(3))
    assert (len(runs), target.most) == (12, 3)
    assert all(one.tokens == 3 and len(one.chunks) == 3 for one in runs)
    assert max(one.sent - one.due for one in runs) < 0.005


def test_an_open_loop_sends_on_whatever_the_server_does_and_counts_from_the_schedule() -> None:
    target = Slow(gap=0.004)
    runs = played(target, Poisson(1000.0))
    assert target.most > 6
    waits = [one.ttft for one in runs]
    work = 3 * 0.004 * len(runs)  # seconds that the server is busy with all of them, at the least
    assert waits[-1] > work - runs[-1].due - 2 * 0.004  # the queue is in the latency: nothing is omitted
    assert waits[-1] > 2 * waits[0]


def test_a_late_client_is_measured_and_its_delay_counted() -> None:
    class Blocking(Slow):
        async def prepare(self, job: Job) -> Job:
            return job

        async def send(self, job: Job) -> list[Arrival]:
            import time

            time.sleep(0.01)  # the client itself hangs, and cannot send the next one in time
            return await super().send(job)

    runs = played(Blocking(gap=0.0), Replay(), count=6)
    late = [one.sent - one.due for one in runs]
    assert max(late) > 0.03
    assert all(one.ttft >= one.sent - one.due for one in runs)


def test_a_last_response_that_flushes_text_brings_no_token() -> None:
    class Flushing(Slow):
        def read(self, arrivals: list[Arrival]) -> Answered:
            return answered([(one.at, "ab"[number % 2]) for number, one in enumerate([*arrivals, arrivals[-1]])])

    runs = played(Flushing(), Closed(1), count=2)
    assert [[chunk.tokens for chunk in one.chunks] for one in runs] == [[1, 1, 1, 0]] * 2


def test_a_replay_needs_times_and_a_duration_ends_a_run() -> None:
    runs = played(Slow(gap=0.003), Closed(1), count=2, seconds=0.1)
    assert 3 < len(runs) < 20  # more than there were jobs

    async def without() -> None:
        async with Slow() as target:
            await run(target, [Job((1,), "", 1)], Replay())

    with pytest.raises(ParameterError, match="cannot be replayed"):
        asyncio.run(without())


def test_a_request_that_fails_is_counted_and_not_measured() -> None:
    runs = played(Slow(broken=2), Closed(1), count=25)
    assert [one.error for one in runs if one.error] == ["the server refused: it was asked to"]
    found = point("concurrency 1", runs, Slo(ttft=10.0), QUIET)
    assert (found.requests, found.failed) == (24, 1)
    assert found.goodput is not None
    assert found.goodput.value == pytest.approx(found.request_rate.value)
    assert "1 of 25 requests failed: the server refused" in found.doubts[0]
    assert found.in_flight == pytest.approx(1.0, abs=0.1)


# -- reports


def test_doubts_name_few_requests_late_clients_growing_queues_and_broken_physics() -> None:
    calm = [line(0.1 * n, 0.1 * n + 0.05, 0.1 * n + 0.09) for n in range(30)]
    assert point("rate 10/s", calm, Slo(), QUIET).doubts == []
    assert "percentiles beyond the median" in point("rate 10/s", calm[:5], Slo(), QUIET).doubts[0]
    early = [line(0.1 * n, 0.1 * n + 0.05, 0.1 * n + 0.09, tokens=16) for n in range(30)]
    assert "30 answers came in far fewer responses" in point("rate 10/s", early, Slo(), QUIET).doubts[0]
    late = Client(cores=0.99, lag_p99=0.02, late_p99=0.0)
    said = " ".join(point("rate 10/s", calm, Slo(), late).doubts)
    assert "20.0 ms late" in said
    assert "0.99 cores" in said
    queue = [line(0.1 * n, 0.1 * n + 0.05 + 0.1 * n, 0.1 * n + 0.09 + 0.1 * n) for n in range(30)]
    assert "queue grows" in " ".join(point("rate 10/s", queue, Slo(), QUIET).doubts)
    assert "queue grows" not in " ".join(point("concurrency 3", queue, Slo(), QUIET).doubts)
    work = Traffic(weight_bytes=1e8, kv_bytes=1e3, weights=2.5e7)
    found = point("concurrency 1", calm, Slo(), QUIET)
    for speed, words in ((1e9, "beats physics"), (1e12, "look for what it waits for")):
        share = work.share(found, Ceilings(speed, 1e15, speed), 8)
        assert words in " ".join(doubts(found.model_copy(update={"share": share})))
    cached = Share(output=0.5, ttft=2.0, output_limit=1.0, ttft_limit=0.1)
    assert "in 0.50 of the least time" in " ".join(doubts(found.model_copy(update={"share": cached})))


def test_the_limits_of_a_served_model_by_hand() -> None:
    work = Traffic(weight_bytes=1e8, kv_bytes=1e4, weights=2.5e7)
    fast = Ceilings(read=1e10, flops=1e12, read_median=1e10)
    assert work.output_limit(fast, 1, 100, 100) == pytest.approx(1e10 / (1e8 + 150 * 1e4))
    assert work.output_limit(fast, 4, 100, 100) == pytest.approx(4e10 / (1e8 + 4 * 150 * 1e4))
    assert work.output_limit(Ceilings(1e15, 1e10, 1.0), 4, 100, 100) == pytest.approx(1e10 / (5e7 * 2))
    assert work.ttft_limit(fast, 100) == pytest.approx(1e8 / 1e10)
    assert work.ttft_limit(fast, 1000) == pytest.approx(1000 * 5e7 / 1e12)


def test_traffic_is_read_off_a_checkpoint(tiny: Path, tmp_path: Path) -> None:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options

    folder = convert(tiny, Options("float32"), output=tmp_path / "checkpoint").folder
    config = json.loads((folder / "config.json").read_text())
    found, slots = traffic_of(folder)
    assert found.weight_bytes == 4 * found.weights
    heads, head = config["num_key_value_heads"], config["head_size"]
    assert found.kv_bytes == 2 * config["num_hidden_layers"] * heads * head * 4
    assert slots > 1000
    half, _ = traffic_of(convert(tiny, Options("bfloat16"), output=tmp_path / "half").folder)
    assert (half.weight_bytes, half.kv_bytes) == (found.weight_bytes / 2, found.kv_bytes / 2)
    with pytest.raises(ModelError, match="no checkpoint and no engine"):
        traffic_of(tmp_path)


def test_cells_have_three_digits() -> None:
    assert cell(Estimate(value=0.0123, low=0.0099, high=0.5), 1e3) == "12.3 [9.90, 500]"


def test_objectives() -> None:
    assert slo_of(("ttft=500", "itl=50")) == Slo(ttft=0.5, itl=0.05)
    for wrong in ("ttft", "speed=3", "itl=fast"):
        with pytest.raises(ParameterError, match="no objective"):
            slo_of((wrong,))


# -- our engine, in process, and the whole command


def test_the_engine_in_process_answers_as_asked(tiny: Path, tmp_path: Path) -> None:
    target = EngineTarget(HashModel(vocab_size=512), Limits(max_batch_size=4, max_input_len=64, max_seq_len=128))
    plan = Plan(loads=(Closed(4), Poisson(400.0)), requests=24, warm_up=2, inputs=Lengths(8, 16), outputs=Lengths(4, 6),
                slo=Slo(ttft=5.0), seed=3)  # fmt: skip
    found = measure(target, plan, tiny, cpu="a processor", settings={"tokens in": "8-16"})
    assert [one.load for one in found.points] == ["concurrency 4", "rate 400/s"]
    for one in found.points:
        assert (one.requests, one.failed) == (24, 0)
        assert one.client.cores is None
        assert {run.tokens for run in one.runs} == {4, 5, 6}
        assert all(len(run.chunks) == run.tokens for run in one.runs)
    text = "\n".join(lines(found))
    for part in ("our engine, in process", "TTFT, ms", "goodput", "rate 400/s: 24 requests"):
        assert part in text
    path = tmp_path / "report.json"
    path.write_text(found.model_dump_json())
    assert read_report(path) == found


def test_the_same_seed_asks_the_same_and_another_does_not(tiny: Path) -> None:
    def lengths(seed: int) -> list[tuple[int, int]]:
        target = EngineTarget(HashModel(vocab_size=512), Limits(max_batch_size=2, max_input_len=64, max_seq_len=128))
        plan = Plan(requests=12, warm_up=0, inputs=Lengths(4, 30), outputs=Lengths(2, 9), seed=seed)
        return [(run.input_tokens, run.tokens) for run in measure(target, plan, tiny).points[0].runs]

    assert lengths(1) == lengths(1) != lengths(2)


def test_plans_and_targets_that_cannot_be(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_URL", raising=False)
    for wrong in ({"requests": None}, {"requests": 3, "seconds": 2.0}, {"requests": 0}, {"warm_up": -1}):
        with pytest.raises(ParameterError):
            Plan(**wrong)
    for wrong in (lambda: Closed(0), lambda: Poisson(0.0)):
        with pytest.raises(ParameterError, match="is no load"):
            wrong()
    for words, said in (
        ([], "no target"), ([str(tmp_path / "nothing")], "neither a server nor a folder"),
        (["127.0.0.1:9"], "tokenizer of a running server"), (["127.0.0.1:9", "--tokenizer", str(tiny)], "no answer"),
    ):  # fmt: skip
        done = CliRunner().invoke(bench, ["serve", *words])
        assert isinstance(done.exception, LabError), done.output
        assert said in done.exception.what
    (tmp_path / "wrong.json").write_text("{}")
    for path, said in ((tmp_path / "wrong.json", "no result of"), (tmp_path / "none.json", "cannot read")):
        with pytest.raises(BenchmarkError, match=said):
            read_report(path)


def test_options_become_a_plan(tmp_path: Path) -> None:
    given = {"concurrency": (), "rate": (), "requests": None, "seconds": None, "warmup": 1, "inputs": "8",
             "outputs": "2", "trace": None, "objectives": (), "seed": 0, "fixed": True}  # fmt: skip
    assert plan_of(**given).loads == [Closed(1)]
    assert plan_of(**given).requests == 50
    both = plan_of(**given | {"concurrency": (2, 4), "rate": (1.5,), "seconds": 3.0})
    assert both.loads == [Closed(2), Closed(4), Poisson(1.5)]
    assert both.requests is None
    (tmp_path / "timed").write_text('{"timestamp": 0, "input_length": 8, "output_length": 2}\n' * 3)
    (tmp_path / "plain").write_text('{"input_length": 8, "output_length": 2}\n' * 3)
    timed, plain = (plan_of(**given | {"trace": tmp_path / name}) for name in ("timed", "plain"))
    assert (timed.loads, timed.requests) == ([Replay()], 3)
    assert plain.loads == [Closed(1)]
    assert timed.shapes(5, 0) == [(8, 2, 0.0)] * 5  # those of the warm-up come after


# -- comparison


def report(scale: float = 1.0, settings: dict[str, object] | None = None, cpu: str = "one", seed: int = 0) -> Report:
    chance = np.random.default_rng(seed)
    runs, due = [], 0.0
    for _ in range(60):
        first = scale * (0.1 + 0.02 * chance.random())
        times = due + first + np.cumsum(scale * (0.01 + 0.002 * chance.random(8)))
        runs.append(line(due, *times))
        due = float(times[-1])
    return Report(date="2026", cpu=cpu, target="a server", settings=settings or {"tokens in": 64}, slo=Slo(),
                  points=[point("concurrency 1", runs, Slo(), QUIET)])  # fmt: skip


def saved(folder: Path, name: str, found: Report) -> str:
    (folder / name).write_text(found.model_dump_json())
    return str(folder / name)


def test_a_regression_is_found_and_ends_with_1(tmp_path: Path) -> None:
    old, same, slow = (saved(tmp_path, name, one) for name, one in
                       (("old", report()), ("same", report(seed=1)), ("slow", report(1.3, seed=2))))  # fmt: skip
    fine = CliRunner().invoke(bench, ["compare", old, same])
    assert (fine.exit_code, "no regression" in fine.output) == (0, True)
    bad = CliRunner().invoke(bench, ["compare", old, slow, "--json"])
    assert bad.exit_code == 1
    changes = {one["metric"]: one for one in json.loads(bad.output)["changes"]}
    assert {one["verdict"] for one in changes.values()} == {"worse"}
    assert changes["ITL p50"]["ratio"] == pytest.approx(1.3, rel=0.05)
    assert changes["output tokens/s"]["ratio"] == pytest.approx(1 / 1.3, rel=0.05)
    assert CliRunner().invoke(bench, ["compare", old, slow, "--tolerance", "0.5"]).exit_code == 0
    better = CliRunner().invoke(bench, ["compare", slow, old])
    assert (better.exit_code, better.output.count("better")) == (0, 7)


def test_what_cannot_be_compared() -> None:
    from labsupport.benchmark.compare import compare, verdict

    with pytest.raises(BenchmarkError, match="different tasks: tokens in"):
        compare(report(), report(settings={"tokens in": 128}))
    other = report()
    other = other.model_copy(update={"points": [other.points[0].model_copy(update={"load": "rate 1/s"})]})
    with pytest.raises(BenchmarkError, match="no load level"):
        compare(report(), other)
    assert "two machines" in compare(report(), report(cpu="two")).warnings[0]
    with pytest.raises(ParameterError):
        compare(report(), report(), -1.0)
    assert [verdict(low, high, 0.1, more_is_better=True) for low, high in
            ((0.7, 0.8), (0.8, 1.2), (0.95, 1.05), (1.2, 1.3))] == ["worse", "unclear", "same", "better"]  # fmt: skip
    assert math.isclose(compare(report(), report()).changes[0].ratio, 1.0)
