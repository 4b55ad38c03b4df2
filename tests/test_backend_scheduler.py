"""The threads behind ``execute``: many requests at once, clients that leave, a batch that dies. No server is needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from backend_double import FAILS, KILLS, LIMITS, Double, executor, runner

from labsupport.backends.tensorrtllm.inputs import Prompt
from labsupport.backends.tensorrtllm.metrics import FAMILIES, SPECIFIC, Gauges, values
from labsupport.backends.tensorrtllm.outputs import tensors
from labsupport.backends.tensorrtllm.replies import Reply
from labsupport.backends.tensorrtllm.scheduler import Open, Scheduler
from labsupport.decoding import Settings
from labsupport.engine.limits import BatchingType
from labsupport.engine.requests import Request, Result
from labsupport.errors import EngineError, ParameterError

FINAL = 1
RNG = np.random.default_rng(5)
PROMPTS = [RNG.integers(0, 27, size=size).tolist() for size in (3, 9, 1, 17, 5, 12, 2, 30, 8, 4)]
DRAWN = Settings(temperature=0.75, top_k=5)


class Sender:
    """A client that keeps what it gets, and may leave."""

    def __init__(self) -> None:
        self.got: list[tuple[Mapping[str, Any], str | None]] = []
        self.ended, self.left = threading.Event(), False

    def send(self, response: tuple[Mapping[str, Any], str | None], flags: int) -> None:
        assert not self.ended.is_set(), "something was sent after the final flag"
        self.got.append(response)
        if flags == FINAL:
            self.ended.set()

    def is_cancelled(self) -> bool:
        assert not self.ended.is_set(), "asked after the final flag"
        return self.left

    def wait(self) -> Sender:
        assert self.ended.wait(20), "never answered"
        return self

    def tokens(self, index: str = "batch_index", which: int | None = None) -> list[int]:
        rows = [found for found, _ in self.wait().got if which is None or found[index].item() == which]
        return [int(id) for found in rows for id in found["output_ids"][0, 0]]


def start(**options: Any) -> Scheduler:
    def render(result: Result, one: Open) -> None:
        one.reply.send(tensors(result, one.prompt), ends=result.is_final)

    return Scheduler(executor(**options.pop("executor", {})), render, print, **options)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    running = start(cancellation_check_period_ms=10)
    yield running
    running.close()


def submit(scheduler: Scheduler, *requests: Request, name: str = "") -> Sender:
    sender = Sender()
    reply = Reply(sender, lambda tensors, error: (tensors, error), FINAL)
    reply.parts(len(requests))
    prompts = [Prompt(request, batch_index=n if len(requests) > 1 else None) for n, request in enumerate(requests)]
    scheduler.submit(name, prompts, reply)
    return sender


def long(**fields: Any) -> Request:
    return Request([1, 2, 3], 90, streaming=True, **fields)


def wait_for(condition: Any) -> float:
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < 10
        time.sleep(0.002)
    return time.perf_counter() - began


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("settings", [{}, {"sampling": DRAWN}], ids=["greedy", "seeded"])
def test_requests_at_once_get_the_tokens_of_the_runner(
    scheduler: Scheduler, settings: dict[str, Any], streaming: bool
) -> None:
    senders = [
        submit(scheduler, Request(prompt, 12, seed=n, streaming=streaming, **settings))
        for n, prompt in enumerate(PROMPTS)
    ]
    plain = {"temperature": DRAWN.temperature, "top_k": DRAWN.top_k} if settings else {}
    for n, (sender, prompt) in enumerate(zip(senders, PROMPTS, strict=True)):
        [[alone]] = runner().generate([prompt], max_new_tokens=12, seed=n, **plain)
        assert tuple(sender.tokens()) == alone.output_token_ids[0]
        assert len(sender.got) == (12 if streaming else 1)
        assert all("output_ids" in found for found, _ in sender.got)  # the flag comes with data


def test_a_batch_of_prompts_ends_once(scheduler: Scheduler) -> None:
    sender = submit(scheduler, *[Request(prompt, 5 + n, streaming=True) for n, prompt in enumerate(PROMPTS[:3])])
    for n, prompt in enumerate(PROMPTS[:3]):
        [[alone]] = runner().generate([prompt], max_new_tokens=5 + n)
        assert tuple(sender.tokens("batch_index", n)) == alone.output_token_ids[0]


def test_sequences_of_a_request_have_seeds_of_their_own(scheduler: Scheduler) -> None:
    sender = submit(scheduler, Request(PROMPTS[1], 8, sampling=DRAWN, seed=40, num_return_sequences=3, streaming=True))
    for n in range(3):
        [[alone]] = runner().generate([PROMPTS[1]], max_new_tokens=8, temperature=0.75, top_k=5, seed=40 + n)
        assert tuple(sender.tokens("sequence_index", n)) == alone.output_token_ids[0]


def test_a_client_that_leaves_frees_its_slot(scheduler: Scheduler) -> None:
    senders = [submit(scheduler, long()) for _ in range(LIMITS.max_batch_size)]
    waiting = submit(scheduler, Request([4], 2))
    senders[0].left = True
    assert waiting.wait().tokens()
    assert len(senders[0].wait().got) <= 91


def test_a_request_is_stopped_by_its_name(scheduler: Scheduler) -> None:
    sender = submit(scheduler, long(), name="seven")
    other = submit(scheduler, long(), name="eight")
    wait_for(lambda: len(sender.got) > 1)
    scheduler.stop("nobody")
    scheduler.stop("seven")
    sender.wait()
    assert len(other.tokens()) == 90
    scheduler.stop("seven")  # too late does no harm
    assert scheduler.state()[0] == 0


def test_a_refused_prompt_ends_its_whole_request_and_no_other(scheduler: Scheduler) -> None:
    other = submit(scheduler, long())
    sender = submit(scheduler, long(), Request([1] * 65, 2)).wait()
    assert [found for found, _ in sender.got] == [{}]
    assert "Prompt length (65) exceeds maximum input length (64)" in str(sender.got[0][1])
    assert len(other.tokens()) == 90
    wait_for(lambda: scheduler.state()[0] == 0)
    assert scheduler.executor.blocks.available == scheduler.executor.blocks.usable


def test_a_full_queue_says_so() -> None:
    def overfill() -> None:
        for _ in range(9):
            running.append(submit(scheduler, long()))

    scheduler = start(max_queue_size=2)
    try:
        running = [submit(scheduler, long())]
        wait_for(lambda: scheduler.state()[1] == 1)
        running += [submit(scheduler, long(num_return_sequences=2))]
        with pytest.raises(ParameterError, match="Maximum queue size of 2 has been reached, please try again later"):
            overfill()
        assert all(sender.wait() for sender in running)
        assert submit(scheduler, Request([4], 2)).tokens()
    finally:
        scheduler.close()


def test_a_dead_batch_answers_everybody_and_refuses_the_rest(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, all_there = Double.context, threading.Event()
    monkeypatch.setattr(Double, "context", lambda *given, **how: all_there.wait(10) and honest(*given, **how))
    running = [submit(scheduler, long()) for _ in range(3)]
    killer = submit(scheduler, Request([KILLS], 3, priority=1.0))  # the fourth slot is its own
    waiting = [submit(scheduler, long()) for _ in range(3)]
    all_there.set()
    for sender in [*running, killer, *waiting]:
        assert "the executor died: SystemExit: a token kills" in str(sender.wait().got[-1][1])
    with pytest.raises(EngineError, match="the executor died"):
        submit(scheduler, Request([4], 2))


def test_a_model_that_fails_ends_what_was_running_and_goes_on(scheduler: Scheduler) -> None:
    error = submit(scheduler, Request([FAILS], 3)).wait().got[-1][1]
    assert "Executor failed process requestId 1 due to the following error: RuntimeError: a token fails" in str(error)
    assert len(submit(scheduler, long()).tokens()) == 90


def test_closing_answers_everybody() -> None:
    scheduler = start()
    senders = [submit(scheduler, long()) for _ in range(6)]
    scheduler.close()
    assert all(sender.ended.is_set() for sender in senders)


def test_a_result_that_cannot_be_rendered_is_answered_with_an_error() -> None:
    def render(*_: Any) -> None:
        raise RuntimeError("no such tensor")

    scheduler = Scheduler(executor(), render, print)
    try:
        [(_, error)] = submit(scheduler, long()).wait().got
        assert error == "Error encountered while populating response: RuntimeError: no such tensor"
    finally:
        scheduler.close()


def test_a_client_that_cannot_be_answered_disturbs_nobody(scheduler: Scheduler) -> None:
    class Broken(Sender):
        def send(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("the stream is gone")

    reply = Reply(Broken(), lambda tensors, error: (tensors, error), FINAL)
    scheduler.submit("", [Prompt(long())], reply)
    assert len(submit(scheduler, long()).tokens()) == 90


@pytest.mark.parametrize("batching", list(BatchingType))
def test_gauges_have_the_names_of_the_backend(scheduler: Scheduler, batching: BatchingType) -> None:
    shown: dict[tuple[str, str], float] = {}

    class Family:
        GAUGE = "gauge"

        def __init__(self, name: str, description: str, kind: str) -> None:
            assert (kind, bool(description)) == (self.GAUGE, True)
            self.name = name

        def Metric(self, labels: dict[str, str]) -> Any:
            one = next(value for key, value in labels.items() if key not in ("model", "version"))
            return type("Gauge", (), {"set": lambda _, value: shown.update({(self.name, one): value})})()

    submit(scheduler, Request(PROMPTS[3], 4)).wait()
    module = type("Module", (), {"MetricFamily": Family})
    Gauges(module, "tensorrt_llm", "1", batching).show(values(scheduler))
    kind, labels = SPECIFIC[batching]
    expected = {(name, label) for name, (_, kinds) in FAMILIES.items() for label in kinds}
    assert set(shown) == expected | {(f"nv_trt_llm_{kind}_metrics", label) for label in labels}
    assert shown["nv_trt_llm_kv_cache_block_metrics", "used"] == 0
    assert shown["nv_trt_llm_request_metrics", "max"] == 4
    assert shown["nv_trt_llm_kv_cache_block_metrics", "max"] == scheduler.executor.blocks.usable
