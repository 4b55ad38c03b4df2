"""Random workloads: whatever happens around a request, it writes what it writes alone, and no block is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from engine_double import Alone, HashModel, Pool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labsupport.decoding import Settings, beam_search, dialect, generate, log_softmax, stream_for
from labsupport.engine.executor import Executor
from labsupport.engine.limits import (
    BatchingType,
    CapacitySchedulerPolicy,
    ExecutorConfig,
    KvCacheConfig,
    Limits,
)
from labsupport.engine.requests import FinishReason, Request, Result

VOCABULARY, LONGEST = 29, 24
# Two full blocks; the first of them, and others; the second of them behind another.
PREFIXES = [(), (1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 9, 9, 9, 9, 9, 9, 9, 9), (0, 0, 0, 0, 5, 6, 7, 8)]

samplings = st.sampled_from(
    [
        {},
        {"top_k": 5},
        {"top_p": 0.9, "temperature": 0.7},
        {"repetition_penalty": 1.3},
        {"top_k": 3, "bad_words": [[4]]},
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    prompt = [*draw(st.sampled_from(PREFIXES)), *draw(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=9))]
    beams = draw(st.sampled_from([1, 1, 1, 2, 3]))
    return Request(
        prompt,
        max_tokens=draw(st.integers(1, LONGEST)),
        sampling=Settings(**draw(samplings)) if beams == 1 else Settings(),
        seed=draw(st.sampled_from([None, 7, 2**63])),
        end_ids=draw(st.sampled_from([(), (0, 5)])),
        stop_words=draw(st.sampled_from([(), ((3,), (8, 9))])) if beams == 1 else (),
        beam_width=beams,
        return_log_probs=draw(st.booleans()),
        return_context_logits=draw(st.sampled_from([False, False, True])),
        return_generation_logits=draw(st.booleans()) and beams == 1,
        streaming=draw(st.booleans()),
        priority=draw(st.sampled_from([0.0, 0.5, 0.5, 1.0])),
    )


workloads = st.fixed_dictionaries(
    {
        "requests": st.lists(requests(), min_size=1, max_size=9),
        "arrivals": st.lists(st.integers(0, 30), min_size=12, max_size=12),
        "cancelled": st.dictionaries(st.integers(0, 11), st.integers(0, 40), max_size=3),
        "policy": st.sampled_from(list(CapacitySchedulerPolicy)),
        "batching": st.sampled_from([BatchingType.INFLIGHT, BatchingType.INFLIGHT, BatchingType.STATIC]),
        "blocks": st.integers(23, 50),  # the largest request, three beams wide, needs 23
        "batch": st.integers(1, 5),
        "tokens": st.sampled_from([8, 13, 24, 200]),
        "chunked": st.booleans(),
        "reuse": st.booleans(),
    }
)


def solo(request: Request) -> Result:
    """The request without any executor: the loop and the search that are taught in labs 01 and 03."""
    alone, prompt = Alone(VOCABULARY), list(request.input_token_ids)
    if request.beam_width > 1:
        trace = beam_search(
            lambda sequences: log_softmax(np.stack([alone(sequence) for sequence in sequences])),
            prompt,
            width=request.beam_width,
            max_new_tokens=request.max_tokens,
            end_ids=request.end_ids,
            length_penalty=0.0,
            early_stopping=True,
        )
        outputs = tuple(h.tokens for h in trace.hypotheses)
    else:
        written = generate(
            alone,
            prompt,
            dialect("trtllm-cpp", **request.sampling_fields()),
            stream_for("trtllm-cpp", request.seed),
            max_new_tokens=request.max_tokens,
            end_ids=request.end_ids,
        ).tokens
        ends = [
            n
            for n in range(1, len(written) + 1)
            if any(written[max(0, n - len(word)) : n] == word for word in request.stop_words)
        ]
        outputs = (written[: ends[0]] if ends else written,)
    log_probs = tuple(
        tuple(
            float(log_softmax(row)[token])
            for row, token in zip(alone.every([*prompt, *ids])[len(prompt) - 1 :], ids, strict=False)
        )
        for ids in outputs
    )
    return Result(outputs, (), True, log_probs=log_probs, context_logits=alone.every(prompt))


def joined(parts: list[Result], request: Request) -> Result:
    """A stream's results as one; of beams the last says everything."""
    if request.beam_width > 1 or not request.streaming:
        return parts[-1]
    ids = tuple(token for part in parts for token in part.output_token_ids[0])
    probs = tuple(p for part in parts for p in part.log_probs[0]) if request.return_log_probs else ()
    kept = [
        part.generation_logits for part in parts if part.generation_logits is not None and len(part.generation_logits)
    ]
    logits = np.concatenate(kept) if kept else None
    return replace(parts[-1], output_token_ids=(ids,), log_probs=(probs,), generation_logits=logits)


def play(workload: dict[str, Any], model: HashModel) -> tuple[Executor, dict[int, list[Result]]]:
    """Run a workload by hand, with all invariants checked after each step -> the results of each request."""
    limits = Limits(workload["batch"], 40, 80, workload["tokens"], max_beam_width=3)
    config = ExecutorConfig(
        workload["policy"],
        workload["batching"],
        KvCacheConfig(workload["reuse"], workload["blocks"] * model.tokens_per_block),
        enable_chunked_context=workload["chunked"],
    )
    executor = Executor(model, limits, config, threaded=False)
    todo = sorted(zip(workload["arrivals"], range(12), workload["requests"], strict=False), key=lambda item: item[:2])
    numbers: dict[int, int] = {}
    iteration = 0
    while True:
        while todo and todo[0][0] <= iteration:
            _, index, request = todo.pop(0)
            if workload["chunked"] or len(request.input_token_ids) <= workload["tokens"]:
                numbers[index] = executor.enqueue_request(request)
        for index, when in workload["cancelled"].items():
            if when == iteration and index in numbers:
                executor.cancel_request(numbers[index])
        stats = executor.step()
        executor.blocks.check()
        if stats is not None:
            assert stats.num_ctx_tokens + stats.num_gen_tokens <= workload["tokens"]
            assert len({slot.slot for slot in stats.slots}) == len(stats.slots) <= workload["batch"]
        elif not todo:
            break
        iteration += 1
        assert iteration < 5000
    return executor, {
        index: [response.result_or_raise() for response in executor.stream(number)]
        for index, number in sorted(numbers.items())
    }


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(workloads)
def test_every_request_writes_what_it_writes_alone(workload: dict[str, Any]) -> None:
    executor, results = play(workload, HashModel(VOCABULARY, max_rows=15))
    for index, parts in results.items():
        request = workload["requests"][index]
        found, alone = joined(parts, request), solo(request)
        assert [part.is_final for part in parts] == [False] * (len(parts) - 1) + [True]
        if FinishReason.CANCELLED in found.finish_reasons:
            assert index in workload["cancelled"]
            if request.beam_width == 1:
                ids = found.output_token_ids[0]
                assert alone.output_token_ids[0][: len(ids)] == ids
            continue
        assert found.output_token_ids == alone.output_token_ids
        if request.return_log_probs:
            for ours, theirs in zip(found.log_probs, alone.log_probs, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
        if request.return_context_logits:
            np.testing.assert_array_equal(found.context_logits, alone.context_logits)
        if request.return_generation_logits:
            assert len(found.generation_logits) == len(found.output_token_ids[0])
    assert executor.blocks.available == executor.blocks.usable  # nothing is held; cached blocks can be given away


def test_the_workloads_do_pause_reuse_and_part() -> None:
    """The property above would say little if these never happened."""
    copied: list[tuple[int, int]] = []

    class Watched(HashModel):
        def copy_blocks(self, cache: Pool, pairs: Sequence[tuple[int, int]]) -> None:
            copied.extend(pairs)
            super().copy_blocks(cache, pairs)

    several = [Request((*PREFIXES[1], 10, last), 20) for last in range(6)]
    workload = {
        "requests": [*several, Request((*PREFIXES[1], 10), 20, beam_width=3)],
        "arrivals": [0, 0, 0, 0, 5, 5, 5],
        "cancelled": {},
        "policy": CapacitySchedulerPolicy.MAX_UTILIZATION,
        "batching": BatchingType.INFLIGHT,
        "blocks": 23,
        "batch": 5,
        "tokens": 13,
        "chunked": True,
        "reuse": True,
    }
    executor, results = play(workload, Watched(VOCABULARY, max_rows=15))
    assert any(step.paused for step in executor.get_latest_iteration_stats())
    assert executor.blocks.reused_blocks > 0
    assert copied
    for request, parts in zip(workload["requests"], results.values(), strict=True):
        assert parts[-1].output_token_ids == solo(request).output_token_ids
