"""The executor from outside: threads, streams, cancellation, refusals, failures, statistics."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from engine_double import Alone, HashModel, Pool

from labsupport.decoding import Settings
from labsupport.engine.executor import Executor
from labsupport.engine.limits import BatchingType, CapacitySchedulerPolicy, ExecutorConfig, KvCacheConfig, Limits
from labsupport.engine.protocol import Logits
from labsupport.engine.requests import FinishReason, Request, Result
from labsupport.errors import EngineError, LabError, ParameterError

LIMITS = Limits(max_batch_size=4, max_input_len=20, max_seq_len=40, max_num_tokens=16, max_beam_width=2)
FEW = Limits(max_batch_size=2, max_input_len=20, max_seq_len=40, max_num_tokens=16)


def greedy(prompt: list[int], count: int) -> tuple[int, ...]:
    alone, tokens = Alone(), list(prompt)
    for _ in range(count):
        tokens.append(int(alone(tokens).argmax()))
    return tuple(tokens[len(prompt) :])


@pytest.fixture
def model() -> HashModel:
    return HashModel()


@pytest.fixture
def executor(model: HashModel) -> Iterator[Executor]:
    with Executor(model, LIMITS) as executor:
        yield executor


def only(executor: Executor, number: int) -> Result:
    [response] = executor.await_responses(number, timeout=20)
    return response.result_or_raise()


def test_requests_from_many_threads_each_get_their_own_answer(executor: Executor) -> None:
    found: dict[int, tuple[int, ...]] = {}

    def client(token: int) -> None:
        found[token] = only(executor, executor.enqueue_request(Request([token, 1], 9))).output_token_ids[0]

    threads = [threading.Thread(target=client, args=(token,)) for token in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {token: greedy([token, 1], 9) for token in range(20)}


def test_a_stream_gives_each_token_once_and_ends(executor: Executor) -> None:
    responses = list(executor.stream(executor.enqueue_request(Request([3], 6, streaming=True))))
    assert [len(r.result_or_raise().output_token_ids[0]) for r in responses] == [1] * 6
    assert tuple(r.result_or_raise().output_token_ids[0][0] for r in responses) == greedy([3], 6)
    assert [r.is_final for r in responses] == [False] * 5 + [True]


def test_a_stream_of_beams_gives_all_beams_each_time(executor: Executor) -> None:
    request = Request([3], 4, streaming=True, beam_width=2)
    results = [response.result_or_raise() for response in executor.stream(executor.enqueue_request(request))]
    assert [[len(ids) for ids in result.output_token_ids] for result in results] == [[n, n] for n in (1, 2, 3, 4)]


def test_samples_of_one_request_differ_by_their_seed_and_share_the_prompt(executor: Executor) -> None:
    prompt = list(range(9))
    number = executor.enqueue_request(Request(prompt, 5, Settings(top_k=9), seed=5, num_return_sequences=3))
    results = [response.result_or_raise() for response in executor.stream(number)]
    assert sorted(result.sequence_index for result in results) == [0, 1, 2]
    assert [result.is_final for result in results].count(True) == 1
    for result in results:
        again = executor.enqueue_request(Request(prompt, 5, Settings(top_k=9), seed=5 + result.sequence_index))
        assert only(executor, again).output_token_ids == result.output_token_ids
    assert len({result.output_token_ids for result in results}) == 3


def test_an_unset_seed_is_zero(executor: Executor) -> None:
    outputs = [
        only(executor, executor.enqueue_request(Request([1], 8, Settings(top_p=0.95), seed=seed))).output_token_ids
        for seed in (None, 0, 1)
    ]
    assert outputs[0] == outputs[1] != outputs[2]


def test_end_id_and_stop_words_stay_in_the_output(executor: Executor) -> None:
    ids = greedy([7], 8)
    first = {token: ids.index(token) + 1 for token in ids}
    ended = only(executor, executor.enqueue_request(Request([7], 8, end_ids=[-1, ids[3]])))
    assert ended.output_token_ids[0] == ids[: first[ids[3]]]
    assert ended.finish_reasons == (FinishReason.END_ID,)
    stopped = only(executor, executor.enqueue_request(Request([7], 8, stop_words=[ids[4:6]])))
    assert stopped.output_token_ids[0] == ids[:6]
    assert stopped.finish_reasons == (FinishReason.STOP_WORDS,)
    full = only(executor, executor.enqueue_request(Request([7], 8)))
    assert full.finish_reasons == (FinishReason.LENGTH,)
    np.testing.assert_array_equal(full.padded(), [ids])


def test_bad_words_are_never_written(executor: Executor) -> None:
    forbidden = greedy([7], 8)[2]
    ids = only(executor, executor.enqueue_request(Request([7], 20, bad_words=[[forbidden]]))).output_token_ids[0]
    assert forbidden not in ids


def test_perf_metrics_tell_of_times_and_blocks(executor: Executor) -> None:
    prompt = list(range(10))
    first, second = (
        only(executor, executor.enqueue_request(Request(prompt, 5, return_perf_metrics=True))).perf_metrics
        for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert 0 < first.arrival_time_ns <= first.first_scheduled_time_ns <= first.first_token_time_ns
    assert first.first_token_time_ns < first.last_token_time_ns
    assert (first.kv_cache_alloc_new_blocks, first.kv_cache_reused_blocks) == (4, 0)  # 14 tokens in blocks of 4
    assert (second.kv_cache_alloc_new_blocks, second.kv_cache_reused_blocks) == (2, 2)
    assert second.kv_cache_alloc_total_blocks == 4


# -- cancelling


def test_cancelling_keeps_what_was_written_and_can_be_done_twice(model: HashModel) -> None:
    executor = Executor(model, LIMITS, threaded=False)
    number = executor.enqueue_request(Request([3], 20))
    for _ in range(4):
        executor.step()
    executor.cancel_request(number)
    executor.cancel_request(number)
    result = only(executor, number)
    assert result.finish_reasons == (FinishReason.CANCELLED,)
    assert result.output_token_ids == (greedy([3], 4),)
    executor.cancel_request(number)  # too late, and no harm
    assert executor.step() is None
    assert executor.blocks.available == executor.blocks.usable


def test_a_request_can_be_cancelled_while_it_waits(model: HashModel) -> None:
    executor = Executor(model, Limits(1, 20, 40, 16), threaded=False)
    first, second = (executor.enqueue_request(Request([token], 5)) for token in (1, 2))
    executor.step()
    executor.cancel_request(second)
    assert only(executor, second).output_token_ids == ((),)
    assert only(executor, first).output_token_ids == (greedy([1], 5),)


def test_an_unknown_number_is_an_error(executor: Executor) -> None:
    for call in (executor.cancel_request, executor.await_responses):
        with pytest.raises(ParameterError, match="no request 99 is open"):
            call(99)
    number = executor.enqueue_request(Request([1], 1))
    only(executor, number)
    with pytest.raises(ParameterError, match="no request 1 is open"):
        executor.await_responses(number)


def test_leaving_the_executor_cancels_what_runs() -> None:
    class Slow(HashModel):
        def generation(self, *args: Any) -> Logits:
            time.sleep(0.05)
            return super().generation(*args)

    with Executor(Slow(), LIMITS) as executor:
        number = executor.enqueue_request(Request([1], 30))
        executor.await_responses(executor.enqueue_request(Request([2], 1)))
    assert only(executor, number).finish_reasons == (FinishReason.CANCELLED,)
    with pytest.raises(EngineError, match="shut down"):
        executor.enqueue_request(Request([1], 1))
    executor.shutdown()


def test_waiting_can_time_out(executor: Executor, model: HashModel) -> None:
    gate, original = threading.Event(), model.context

    def held(*args: Any, **more: Any) -> Logits:
        gate.wait(20)
        return original(*args, **more)

    model.context = held  # type: ignore[method-assign]
    number = executor.enqueue_request(Request([1], 2))
    assert executor.await_responses(number, timeout=0.05) == []
    gate.set()
    assert only(executor, number).output_token_ids == (greedy([1], 2),)


# -- what is refused, and what fails


NOT_A_REQUEST: list[tuple[dict[str, Any], str]] = [
    ({"input_token_ids": []}, "the prompt has no token"),
    ({"input_token_ids": [1] * 21}, r"Prompt length \(21\) exceeds maximum input length \(20\)"),
    ({"input_token_ids": [29]}, "input_token_ids holds 29"),
    ({"input_token_ids": [-1]}, "input_token_ids holds -1"),
    ({"input_token_ids": [1.5]}, "input_token_ids holds 1.5"),
    ({"max_tokens": 0}, "max_tokens 0"),
    ({"end_ids": [-2]}, "end_ids holds -2"),
    ({"end_ids": [29]}, "end_ids holds 29"),
    ({"stop_words": [[]]}, "stop_words holds an empty word"),
    ({"bad_words": [[1, 40]]}, "bad_words holds 40"),
    ({"beam_width": 3}, r"beam width \(3\) is not 1 to max_beam_width \(2\)"),
    ({"beam_width": 0}, r"beam width \(0\)"),
    ({"beam_width": 2, "num_return_sequences": 3}, "num_return_sequences 3 of 2 beams"),
    ({"beam_width": 2, "stop_words": [[1]]}, "a beam search with stop_words"),
    ({"num_return_sequences": 0}, "num_return_sequences 0"),
    ({"seed": -1}, "seed -1 is not a 64-bit unsigned integer"),
    ({"seed": 2**64 - 1, "num_return_sequences": 2}, "seed 18446744073709551616 is not"),
    ({"seed": 1.5}, "seed 1.5 is not a whole number"),
    ({"priority": float("nan")}, "priority nan is outside 0 to 1"),
    ({"priority": 1.1}, "priority 1.1 is outside"),
    ({"length_penalty": float("nan")}, "length_penalty nan"),
    ({"early_stopping": "soon"}, "early_stopping 'soon'"),
]


@pytest.mark.parametrize(("fields", "message"), NOT_A_REQUEST, ids=[message for _, message in NOT_A_REQUEST])
def test_a_bad_request_is_refused_with_its_reason_and_the_executor_goes_on(
    executor: Executor, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        executor.enqueue_request(Request(**{"input_token_ids": [1], "max_tokens": 4, **fields}))
    assert only(executor, executor.enqueue_request(Request([1], 4))).output_token_ids == (greedy([1], 4),)


def test_a_temperature_that_is_no_number_is_refused() -> None:
    with pytest.raises(ParameterError, match="temperature nan is out of range"):
        Request([1], 1, Settings(temperature=float("nan")))


def test_a_setting_that_the_dialect_lacks_is_refused(executor: Executor) -> None:
    with pytest.raises(ParameterError, match="trtllm-cpp has no do_sample"):
        executor.enqueue_request(Request([1], 1, Settings(do_sample=True)))


def test_logits_that_the_engine_does_not_gather_are_refused(model: HashModel) -> None:
    executor = Executor(model, Limits(gather_context_logits=False, gather_generation_logits=False), threaded=False)
    for kind in ("context", "generation"):
        with pytest.raises(ParameterError, match=f"asks for {kind} logits"):
            executor.enqueue_request(Request([1], 1, **{f"return_{kind}_logits": True}))  # type: ignore[arg-type]


def test_too_long_an_output_is_shortened_with_a_warning(executor: Executor) -> None:
    with pytest.warns(UserWarning, match=r"exceed max_seq_len \(40\): max_tokens is reduced to 25"):
        number = executor.enqueue_request(Request([1] * 15, 100))
    assert len(only(executor, number).output_token_ids[0]) == 25


def test_a_prompt_as_long_as_the_sequence_still_yields_a_token(model: HashModel) -> None:
    executor = Executor(model, Limits(2, 12, 12, 16), threaded=False)
    with pytest.warns(UserWarning, match="reduced to 1"):
        number = executor.enqueue_request(Request([1] * 12, 2))
    assert only(executor, number).output_token_ids == (greedy([1] * 12, 1),)


def test_a_request_that_never_fits_is_refused(model: HashModel) -> None:
    executor = Executor(model, LIMITS, ExecutorConfig(kv_cache_config=KvCacheConfig(max_tokens=16)), threaded=False)
    with pytest.raises(ParameterError, match="needs 5 blocks of KV cache, and the pool has 4"):
        executor.enqueue_request(Request([1] * 8, 10))
    assert only(executor, executor.enqueue_request(Request([1] * 8, 9))).output_token_ids == (greedy([1] * 8, 9),)


def test_a_prompt_of_more_tokens_than_an_iteration_needs_chunks(model: HashModel) -> None:
    executor = Executor(model, LIMITS, ExecutorConfig(enable_chunked_context=False), threaded=False)
    with pytest.raises(ParameterError, match="the prompt has 17 tokens, and one iteration runs 16"):
        executor.enqueue_request(Request([1] * 17, 2))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size 0 is below 1"),
        ({"max_input_len": 50, "max_seq_len": 40}, "max_input_len 50 with max_seq_len 40"),
        ({"max_num_tokens": 1, "max_beam_width": 2}, "max_num_tokens 1 with max_beam_width 2"),
        ({"max_batch_size": 5, "max_beam_width": 2}, r"5 requests of 2 beam\(s\) are 10 rows"),
        ({"max_num_tokens": 3}, "max_num_tokens 3 with blocks of 4 tokens"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(model: HashModel, limits: dict[str, int], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        Executor(model, Limits(**limits), threaded=False)


def test_a_pool_of_less_than_a_block_is_refused(model: HashModel) -> None:
    with pytest.raises(ParameterError, match="max_tokens 3 is less than a block"):
        Executor(model, LIMITS, ExecutorConfig(kv_cache_config=KvCacheConfig(max_tokens=3)), threaded=False)


@pytest.mark.parametrize("call", [1, 3])
def test_a_failing_model_fails_what_runs_and_the_executor_goes_on(model: HashModel, call: int) -> None:
    executor = Executor(model, FEW, threaded=False)
    numbers = [executor.enqueue_request(Request([token], 6)) for token in (1, 2, 3)]
    model.fails_at = call
    failed = [executor.await_responses(number)[0] for number in numbers[:2]]
    for number, response in zip(numbers[:2], failed, strict=True):
        assert response.has_error
        assert response.is_final
        with pytest.raises(
            EngineError,
            match=f"Executor failed process requestId {number} due to the following error: "
            "RuntimeError: the double was told to fail",
        ):
            response.result_or_raise()
    assert only(executor, numbers[2]).output_token_ids == (greedy([3], 6),)
    executor.blocks.check()
    assert executor.blocks.available == executor.blocks.usable


def test_the_cache_goes_with_the_executor(model: HashModel) -> None:
    caches = []
    honest = model.new_cache

    def new_cache(blocks: int) -> Pool:
        caches.append(weakref.ref(made := honest(blocks)))
        return made

    model.new_cache = new_cache  # type: ignore[method-assign]
    executor = Executor(model, LIMITS, threaded=False)
    executor.await_responses(executor.enqueue_request(Request([1], 6)))
    gc.disable()
    try:
        del executor
        assert [one() for one in caches] == [None]
    finally:
        gc.enable()


def test_a_thread_that_dies_tells_everybody_who_waits_and_who_comes(model: HashModel) -> None:
    def context(*_: object, **__: object) -> None:
        raise SystemExit("told to die")

    model.context = context  # type: ignore[assignment, method-assign]
    executor = Executor(model, LIMITS)
    number = executor.enqueue_request(Request([1], 6))
    for _ in range(2):
        with pytest.raises(EngineError, match="the executor died: SystemExit: told to die"):
            executor.await_responses(number, timeout=20)
    with pytest.raises(EngineError, match="the executor died"):
        executor.enqueue_request(Request([2], 6))
    executor.shutdown()


def test_a_request_whose_settings_leave_no_token_fails_alone(model: HashModel) -> None:
    executor = Executor(model, LIMITS, threaded=False)
    nothing = Settings(logit_bias=dict.fromkeys(range(29), -np.inf))
    wrong, right = executor.enqueue_request(Request([1], 4, nothing)), executor.enqueue_request(Request([2], 4))
    [response] = executor.await_responses(wrong)
    with pytest.raises(EngineError, match="no token is left"):
        response.result_or_raise()
    assert only(executor, right).output_token_ids == (greedy([2], 4),)


def test_logits_that_are_no_numbers_fail_the_request(model: HashModel) -> None:
    executor = Executor(model, LIMITS, threaded=False)
    model.context = lambda *_, **__: np.full(29, np.nan, np.float32)  # type: ignore[method-assign]
    [response] = executor.await_responses(executor.enqueue_request(Request([1], 4)))
    assert "not a number" in str(response.error)


def test_an_executor_with_a_thread_is_not_stepped_by_hand(executor: Executor) -> None:
    with pytest.raises(EngineError, match="steps by itself"):
        executor.step()


def test_a_request_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Request([1], 1).max_tokens = 2  # type: ignore[misc]


# -- what an iteration did


def slots(executor: Executor) -> list[str]:
    """The slot grid as text: a letter a request; c context, g generation, w waiting; . is idle."""
    grid = []
    while (stats := executor.step()) is not None:
        row = ["...."] * executor.limits.max_batch_size
        for slot in stats.slots:
            row[slot.slot] = f"{'-ABCDEF'[slot.request_id]}{slot.work[0]}{slot.tokens:02d}"
        grid.append(" ".join(row))
    return grid


@pytest.mark.parametrize(
    ("batching", "grid"),
    [
        (BatchingType.INFLIGHT, ["Ac03 Bc03", "Ag01 Bg01", "Cc03 Bg01", "Cg01 Bg01"]),
        (BatchingType.STATIC, ["Ac03 Bc03", "Ag01 Bg01", ".... Bg01", ".... Bg01", "Cc03 ....", "Cg01 ...."]),
    ],
)
def test_static_batching_waits_for_the_slowest_and_in_flight_batching_refills(
    model: HashModel, batching: BatchingType, grid: list[str]
) -> None:
    executor = Executor(model, FEW, ExecutorConfig(batching_type=batching), threaded=False)
    for token, length in enumerate((2, 4, 2)):
        executor.enqueue_request(Request([token] * 3, length))
    assert slots(executor) == grid


def test_a_long_prompt_runs_in_chunks_beside_who_generates(model: HashModel) -> None:
    executor = Executor(model, Limits(2, 40, 60, 8), threaded=False)
    executor.enqueue_request(Request([1], 5))
    executor.step()
    executor.enqueue_request(Request(list(range(14)), 2))
    assert slots(executor) == ["Ag01 Bc04", "Ag01 Bc04", "Ag01 Bc06", "Ag01 Bg01"]


def test_a_paused_request_loses_its_slot_and_computes_its_output_again(model: HashModel) -> None:
    config = ExecutorConfig(
        CapacitySchedulerPolicy.MAX_UTILIZATION, kv_cache_config=KvCacheConfig(False, max_tokens=5 * 4)
    )
    executor = Executor(model, FEW, config, threaded=False)
    numbers = [executor.enqueue_request(Request([token] * 7, 8, return_perf_metrics=True)) for token in (1, 2)]
    grid = slots(executor)
    assert grid[:4] == ["Ac07 Bc07", "Ag01 Bg01", "Ag01 ....", "Ag01 ...."]
    assert "Bc09 ...." in grid  # its prompt, and the two tokens that it had written
    stats = executor.get_latest_iteration_stats()
    assert [step.paused for step in stats if step.paused] == [(2,)]
    results = [only(executor, number) for number in numbers]
    assert [result.output_token_ids[0] for result in results] == [greedy([1] * 7, 8), greedy([2] * 7, 8)]
    assert [result.perf_metrics.paused for result in results if result.perf_metrics] == [0, 1]


def test_statistics_are_kept_for_the_last_iterations_and_handed_out_once(model: HashModel) -> None:
    executor = Executor(model, LIMITS, ExecutorConfig(iter_stats_max_iterations=3), threaded=False)
    only(executor, executor.enqueue_request(Request([1] * 5, 6)))
    stats = executor.get_latest_iteration_stats()
    assert [step.iter for step in stats] == [3, 4, 5]
    assert executor.get_latest_iteration_stats() == []
    assert [step.num_gen_tokens for step in stats] == [1, 1, 1]
    assert stats[0].used_num_blocks + stats[0].free_num_blocks == executor.blocks.usable
    assert all(step.model_latency_ms <= step.iter_latency_ms for step in stats)


def test_a_step_of_eight_costs_a_millisecond_at_most() -> None:
    """Beside the model, with SmolLM2's vocabulary: what one iteration of eight greedy requests takes."""

    class Fast(HashModel):
        logits = np.random.default_rng(0).normal(size=(8, 49152)).astype(np.float32)

        def context(self, *_: Any, **__: Any) -> Logits:
            return self.logits[0]

        def generation(self, *_: Any) -> Logits:
            return self.logits

    executor = Executor(Fast(49152, 32), Limits(8, 1024, 2048, 8192), threaded=False)
    for token in range(8):
        executor.enqueue_request(Request([token] * 64, 200))
    executor.step()
    overheads = [stats.overhead_ms for _ in range(198) if (stats := executor.step()) is not None]
    print(f"overhead of a step at batch 8: median {np.median(overheads):.3f} ms, max {max(overheads):.3f} ms")
    assert len(overheads) == 198
    assert np.median(overheads) <= 1.0


def test_the_executor_does_not_load_torch() -> None:
    script = "import sys, labsupport.engine.executor; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_every_refusal_says_what_to_try() -> None:
    for fields, _ in NOT_A_REQUEST:
        with pytest.raises(LabError) as caught:
            Executor(HashModel(), LIMITS, threaded=False).enqueue_request(
                Request(**{"input_token_ids": [1], "max_tokens": 4, **fields})
            )
        assert caught.value.why
        assert caught.value.fix
