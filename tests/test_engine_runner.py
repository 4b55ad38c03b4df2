"""Through the executor, on real attention over real blocks: the tokens of transformers, whoever else is served."""

from __future__ import annotations

import re
import threading
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints_made import converted, tiny
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from labsupport.decoding import all_logits, dialect, generate, log_softmax, next_logits, stream_for, token_logprobs
from labsupport.engine.eager import EagerModel
from labsupport.engine.executor import Executor
from labsupport.engine.limits import CapacitySchedulerPolicy, ExecutorConfig, KvCacheConfig, Limits
from labsupport.engine.requests import FinishReason, Request
from labsupport.engine.runner import Runner
from labsupport.errors import EngineError, ParameterError

LIMITS = Limits(max_batch_size=4, max_input_len=64, max_seq_len=128, max_num_tokens=24, max_beam_width=4)
RNG = np.random.default_rng(0)
PREFIX = RNG.integers(0, 260, size=18).tolist()
PROMPTS = [[*PREFIX, *RNG.integers(0, 260, size=size).tolist()] for size in (1, 5, 9)] + [[7], PREFIX[:4]]


@cache
def original() -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(tiny("llama"), dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # each request brings its own
    return model


@cache
def eager() -> EagerModel:
    return EagerModel(converted(tiny("llama"), dtype="float32"), tokens_per_block=4, max_rows=16)


def runner(**config: Any) -> Runner:
    return Runner(eager(), LIMITS, ExecutorConfig(**config))


def theirs(prompt: list[int], **settings: Any) -> list[tuple[int, ...]]:
    config = GenerationConfig(pad_token_id=0, **{"do_sample": False, "eos_token_id": None, **settings})
    ids = torch.tensor([prompt])
    rows = original().generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return [tuple(row[len(prompt) :].tolist()) for row in rows]


TIGHT = {
    "capacity_scheduler_policy": CapacitySchedulerPolicy.MAX_UTILIZATION,
    "kv_cache_config": KvCacheConfig(max_tokens=72),
}


@pytest.mark.parametrize("config", [{}, TIGHT, {"kv_cache_config": KvCacheConfig(enable_block_reuse=False)}])
def test_greedy_gives_the_tokens_of_transformers(config: dict[str, Any]) -> None:
    found = runner(**config).generate(PROMPTS[:4], max_new_tokens=30, return_perf_metrics=True)
    assert [results[0].output_token_ids for results in found] == [
        tuple(theirs(prompt, max_new_tokens=30)) for prompt in PROMPTS[:4]
    ]
    pauses = sum(results[0].perf_metrics.paused for results in found)
    assert (pauses > 0) == (config is TIGHT)


def test_sampling_gives_what_the_dialect_draws_from_the_logits_of_transformers() -> None:
    settings = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "repetition_penalty": 1.1}
    found = runner().generate(PROMPTS[:3], max_new_tokens=20, seed=11, return_log_probs=True, **settings)
    for prompt, [result] in zip(PROMPTS, found, strict=False):
        sampler, stream = dialect("trtllm-cpp", **settings), stream_for("trtllm-cpp", 11)
        written = generate(next_logits(original()), prompt, sampler, stream, max_new_tokens=20)
        assert result.output_token_ids == (written.tokens,)
        np.testing.assert_allclose(result.log_probs, [written.logprobs], atol=1e-4)
        assert result.cum_log_probs == pytest.approx([sum(written.logprobs)], abs=1e-3)


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_beams_are_those_of_transformers(width: int, length_penalty: float) -> None:
    for prompt in PROMPTS:
        found = runner().beam_search(
            prompt, width=width, max_new_tokens=12, length_penalty=length_penalty, end_ids=[2, 9, 44]
        )
        expected = theirs(
            prompt,
            max_new_tokens=12,
            num_beams=width,
            num_return_sequences=width,
            length_penalty=length_penalty,
            early_stopping=True,
            eos_token_id=[2, 9, 44],
        )
        for ours, reference in zip(found.output_token_ids, expected, strict=True):
            assert ours == reference[: len(ours)]
            assert len(ours) == 12 or ours[-1] in (2, 9, 44)  # transformers pads what is shorter
        assert [round(sum(probs), 9) for probs in found.log_probs] == [round(total, 9) for total in found.cum_log_probs]


def test_beams_beside_others_in_one_batch() -> None:
    [[beams]] = runner().generate(PROMPTS[:1], max_new_tokens=10, beam_width=3)
    executor = Executor(eager(), LIMITS, threaded=False)
    wanted = [(0, 3), (1, 1), (0, 2), (2, 1)]
    numbers = [executor.enqueue_request(Request(PROMPTS[index], 10, beam_width=width)) for index, width in wanted]
    found = [executor.await_responses(number)[0].result_or_raise().output_token_ids for number in numbers]
    assert found[0] == beams.output_token_ids
    assert [found[1][0], found[3][0]] == [theirs(prompt, max_new_tokens=10)[0] for prompt in PROMPTS[1:3]]


def test_threads_stream_from_one_executor() -> None:
    found: dict[int, list[int]] = {}
    with Executor(eager(), LIMITS) as executor:

        def client(index: int) -> None:
            number = executor.enqueue_request(Request(PROMPTS[index], 10, streaming=True))
            found[index] = [r.result_or_raise().output_token_ids[0][0] for r in executor.stream(number)]

        threads = [threading.Thread(target=client, args=(index,)) for index in range(len(PROMPTS))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {i: list(theirs(prompt, max_new_tokens=10)[0]) for i, prompt in enumerate(PROMPTS)}


def test_scores_are_those_of_the_logits_of_transformers() -> None:
    prompt = PROMPTS[2]
    reference = all_logits(original(), [prompt])[0]
    served = runner()
    np.testing.assert_allclose(served.context_logits(prompt), reference, atol=1e-4)
    np.testing.assert_allclose(served.score(prompt), token_logprobs(reference[:-1], prompt[1:]), atol=1e-4)
    np.testing.assert_array_equal(served.score(prompt), served.score(prompt))  # also with the prompt in the cache


def test_generation_logits_are_what_each_token_was_chosen_from() -> None:
    [[result]] = runner().generate(PROMPTS[:1], max_new_tokens=6, return_generation_logits=True, return_log_probs=True)
    tokens = result.output_token_ids[0]
    assert tuple(result.generation_logits.argmax(-1)) == tokens
    np.testing.assert_array_equal(
        result.log_probs[0],
        [log_softmax(row)[token] for row, token in zip(result.generation_logits, tokens, strict=True)],
    )


def test_a_stream_is_the_text_token_by_token_and_can_be_left() -> None:
    served = runner()
    whole = theirs(PROMPTS[1], max_new_tokens=12)[0]
    assert tuple(r.output_token_ids[0][0] for r in served.stream(PROMPTS[1], max_new_tokens=12)) == whole
    for position, result in enumerate(served.stream(PROMPTS[1], max_new_tokens=12)):
        assert result.output_token_ids == ((whole[position],),)
        if position == 3:
            break
    assert served._executor.blocks.available == served._executor.blocks.usable


def test_samples_come_in_the_order_of_their_seeds() -> None:
    [results] = runner().generate(PROMPTS[:1], max_new_tokens=5, top_k=50, seed=3, num_return_sequences=3)
    singles = [runner().generate(PROMPTS[:1], max_new_tokens=5, top_k=50, seed=seed)[0][0] for seed in (3, 4, 5)]
    assert [r.output_token_ids for r in results] == [r.output_token_ids for r in singles]


def test_an_end_id_ends() -> None:
    ids = theirs(PROMPTS[0], max_new_tokens=10)[0]
    [[result]] = runner().generate(PROMPTS[:1], max_new_tokens=10, end_ids=[ids[4]])
    assert result.output_token_ids[0] == ids[: ids.index(ids[4]) + 1]
    assert result.finish_reasons == (FinishReason.END_ID,)


@pytest.mark.parametrize(
    ("prompts", "settings", "message"),
    [
        ([[1]] * 5, {}, "Input batch size (5) exceeds the engine or specified limit (4)"),
        ([[1], [1] * 65], {}, "Prompt length (65) exceeds maximum input length (64)"),
        ([[1]], {"beam_width": 5}, "beam width (5)"),
        ([[1]], {"temperature": float("nan")}, "temperature nan is out of range"),
        ([[1]], {"temprature": 1.0}, "unknown setting 'temprature'"),
        ([[1]], {"seed": -5}, "seed -5"),
    ],
)
def test_a_refused_batch_leaves_nothing_behind(
    prompts: list[list[int]], settings: dict[str, Any], message: str
) -> None:
    served = runner()
    with pytest.raises(ParameterError, match=re.escape(message)):
        served.generate(prompts, **settings)
    assert served._executor.step() is None
    [[result]] = served.generate([PROMPTS[0]], max_new_tokens=3)
    assert result.output_token_ids == tuple(theirs(PROMPTS[0], max_new_tokens=3))


def test_a_folder_that_is_no_engine_says_so(tmp_path: Any) -> None:
    with pytest.raises(EngineError, match="holds no engine"):
        Runner(tmp_path)
