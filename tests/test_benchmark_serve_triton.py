"""``labs bench serve`` against the real Triton server, a peer in the engine's place; what the generator can take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from repositories_made import good
from triton_local import needs_triton

from labsupport.benchmark.aiperf import Agreement, Theirs, compared
from labsupport.benchmark.arrivals import Closed
from labsupport.benchmark.commands import bench
from labsupport.benchmark.generator import TOKENS, capacity
from labsupport.benchmark.serve import Plan, measure
from labsupport.benchmark.served import Report
from labsupport.benchmark.target_triton import GrpcTarget, HttpTarget
from labsupport.benchmark.workload import Lengths
from labsupport.errors import BenchmarkError, RequestError, ServerError
from labsupport.serving import Address, Server

ENGINE = Path(__file__).parent / "fixtures" / "echo_engine"
WORDS = "_assets/*/tokenizer/tokenizer.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    repository = good(tmp_path_factory.mktemp("load") / "repository", "sentencepiece")
    with Server(repository, engine=ENGINE, seconds=120) as running:
        yield running


def words(server: Server) -> Path:
    return next(server.repository.glob(WORDS)).parent


@needs_triton
@pytest.mark.parametrize("ask", [GrpcTarget, HttpTarget])
@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_streams_are_counted_as_they_were_asked(server: Server, ask: type[GrpcTarget], model: str) -> None:
    plan = Plan((Closed(2),), 6, warm_up=1, inputs=Lengths(30, 30), outputs=Lengths(5, 7))
    found = measure(ask(server.address, model), plan, words(server)).points[0]
    assert (found.requests, found.failed) == (6, 0)
    assert found.client.cores is not None
    for run in found.runs:
        assert run.tokens in (5, 6, 7)
        assert 1 <= sum(chunk.tokens for chunk in run.chunks) <= run.tokens
        assert run.due <= run.sent < run.chunks[0].at <= run.ended


@needs_triton
def test_the_engine_s_model_takes_ids_and_gives_them(server: Server) -> None:
    plan = Plan((Closed(1),), 3, warm_up=0, inputs=Lengths(20, 20), outputs=Lengths(6, 6))
    found = measure(GrpcTarget(server.address, "tensorrt_llm"), plan, words(server)).points[0]
    assert [[chunk.tokens for chunk in run.chunks] for run in found.runs] == [[1] * 6] * 3


@needs_triton
def test_text_is_counted_where_answers_end_by_themselves(server: Server) -> None:
    plan = Plan((Closed(1),), 3, warm_up=0, inputs=Lengths(8, 8), outputs=Lengths(50, 50), fixed=False)
    found = measure(GrpcTarget(server.address, "tensorrt_llm_bls", ignore_end=False), plan, words(server)).points[0]
    assert all(4 <= run.tokens < 50 for run in found.runs)  # the echo of a prompt of about eight tokens


@needs_triton
def test_the_command_measures_a_running_server(server: Server, tmp_path: Path) -> None:
    asked = ["serve", server.address.http, "--tokenizer", str(words(server)), "--requests", "4", "--warmup", "1",
             "--input-tokens", "20", "--output-tokens", "4", "--slo", "ttft=5000", "--json", "--concurrency", "2",
             "--output", str(tmp_path / "out.json"), "--chart", str(tmp_path / "chart.png")]  # fmt: skip
    done = CliRunner().invoke(bench, asked, catch_exceptions=False)
    found = Report.model_validate(json.loads(done.stdout))
    assert found.points[0].goodput is not None
    assert Report.model_validate_json((tmp_path / "out.json").read_text()) == found
    assert (tmp_path / "chart.png").read_bytes()[1:4] == b"PNG"


@needs_triton
def test_a_model_that_is_not_there_and_a_server_that_is_not(server: Server) -> None:
    plan = Plan((Closed(1),), 1, warm_up=0, inputs=Lengths(4, 4))
    with pytest.raises(RequestError):
        measure(GrpcTarget(server.address, "nobody"), plan, words(server))
    with pytest.raises(ServerError):
        measure(HttpTarget(Address(9), "ensemble"), plan, words(server))


@needs_triton
def test_requests_that_the_server_refuses_have_failed(server: Server) -> None:
    plan = Plan((Closed(1),), 2, warm_up=0, inputs=Lengths(4, 4), outputs=Lengths(4, 4))
    broken = GrpcTarget(server.address, "tensorrt_llm_bls")

    async def nonsense(job: object) -> object:
        request = await GrpcTarget.prepare(broken, job)  # type: ignore[arg-type]
        del request.inputs[:]
        del request.raw_input_contents[:]
        return request

    broken.prepare = nonsense  # type: ignore[method-assign]
    with pytest.raises(BenchmarkError, match="none of 2 requests was answered"):
        measure(broken, plan, words(server))


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_generator_takes_in_what_an_instant_server_gives(protocol: str) -> None:
    found = capacity(protocol, users=4, requests=12)
    assert found.tokens == 12 * TOKENS
    assert found.rate > 300  # on a busy machine; `labs bench generator` prints what it is on yours
    assert 0 < found.per_token < 0.01


def left_by_aiperf(folder: Path, *, slower: float = 1.0) -> Path:
    """The files of AIPerf 0.13 for two requests of five tokens, counted as four on their text, and a warm-up."""
    folder.mkdir()
    rows = [("warmup", 9.0, 99.0), ("profiling", 10 * slower, 50 * slower), ("profiling", 12 * slower, 56 * slower)]
    records = [
        {
            "metadata": {"benchmark_phase": phase},
            "metrics": {
                "time_to_first_token": {"value": first, "unit": "ms"},
                "request_latency": {"value": whole, "unit": "ms"},
                "output_sequence_length": {"value": 4, "unit": "tokens"},
            },
        }
        for phase, first, whole in rows
    ]
    (folder / "profile_export.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    summary = {"request_throughput": {"avg": 20 / slower}, "inter_token_latency": {"p50": 14 * slower, "avg": 15.0},
               "output_token_throughput": {"avg": 80 / slower}}  # fmt: skip
    (folder / "profile_export_aiperf.json").write_text(json.dumps(summary))
    return folder


def test_aiperf_s_records_are_read_by_the_tokens_that_were_asked_for(tmp_path: Path) -> None:
    found = Theirs.read(left_by_aiperf(tmp_path / "round"), 5)
    assert list(found.metrics.values()) == [11, 10.5, 53, 100, 20]
    assert list(found.metrics) == ["TTFT, ms", "ITL, ms", "request latency, ms", "output tokens/s", "requests/s"]
    assert (found.counted, found.itl, found.rate) == (4, 14, 80)
    with pytest.raises(BenchmarkError, match="left no report"):
        Theirs.read(tmp_path / "elsewhere", 5)


def test_ours_beside_aiperf_s(tmp_path: Path) -> None:
    from test_benchmark_serve import report

    ours = [report().points[0], report(1.1, seed=1).points[0]]
    theirs = [Theirs.read(left_by_aiperf(tmp_path / str(slower), slower=slower), 5) for slower in (1.0, 1.2)]
    found = {one.metric: one for one in compared(ours, theirs)}
    quotients = [other / (1e3 * one.ttft.p50.value) for one, other in zip(ours, (11, 13.2), strict=True)]
    first = found["TTFT, ms"]
    assert first.ratio.value == pytest.approx(sum(quotients) / 2)
    assert (first.ratio.low, first.ratio.high) == pytest.approx((min(quotients), max(quotients)))
    assert first.repeat == pytest.approx(1.2)
    for one, gap in zip(ours, found["ITL, ms"].ours, strict=True):
        assert gap == pytest.approx(1e3 * one.itl.p50.value, rel=0.05), "one token came in each chunk"


def test_tools_agree_or_differ_as_runs_do_or_more() -> None:
    assert Agreement.of("it", (1.0, 1.0), (1.04, 1.04)).verdict == "agree"
    assert Agreement.of("it", (1.0, 1.3), (1.1, 1.43)).verdict == "as far apart as two runs of one tool"
    assert Agreement.of("it", (1.0, 1.0), (1.1, 1.1)).verdict == "differ"
    assert Agreement.of("it", (1.0,), (1.1,)).verdict == "apart in one round, which knows no noise"
