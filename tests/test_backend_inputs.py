"""The tensors of a Triton request become requests for the executor, and its results become tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tensorrt_llm_calls import KIND_OF, KINDS

from labsupport.backends import folder
from labsupport.backends.tensorrtllm.inputs import Prompt, read, words
from labsupport.backends.tensorrtllm.outputs import tensors
from labsupport.backends.tensorrtllm.refused import IGNORED, INPUTS
from labsupport.engine.requests import FinishReason, PerfMetrics, Request, Result
from labsupport.errors import ParameterError
from labsupport.repository.contract import OUTPUTS, TENSORRT_LLM_IN
from labsupport.repository.models.preprocessing.words import pack_words, unpack_words

V = 64
EMPTY: dict[str, Any] = {"input_ids": [[5, 6, 7]], "input_lengths": [3], "request_output_len": [9]}


def arrays(**given: Any) -> dict[str, np.ndarray]:
    kinds = {"random_seed": np.uint64, "min_length": np.int32}
    found = {}
    for name, value in {**EMPTY, **given}.items():
        kind = KIND_OF.get(name)
        found[name] = np.asarray(value, np.object_ if kind == "STRING" else kinds.get(name) or KINDS[kind or ""])
    return found


def prompts(*, decoupled: bool = True, exclude_input: bool = True, **given: Any) -> list[Prompt]:
    return read(arrays(**given), decoupled=decoupled, exclude_input=exclude_input, vocab_size=V)


def request(**given: Any) -> Request:
    (prompt,) = prompts(**given)
    return prompt.request


def test_nothing_but_the_prompt_means_greedy_without_an_end() -> None:
    found = request()
    assert found == Request([5, 6, 7], 9, end_ids=(-1,), stop_words=[], bad_words=[])
    assert found.ends == ()


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"seed": [2**64 - 1]}, "seed", 2**64 - 1),
        ({"random_seed": [7]}, "seed", 7),
        ({"end_id": [2]}, "ends", (2,)),
        ({"end_id": [-1]}, "ends", ()),
        ({"streaming": [True]}, "streaming", True),
        ({"return_log_probs": [True]}, "return_log_probs", True),
        ({"return_context_logits": [True]}, "return_context_logits", True),
        ({"return_generation_logits": [True]}, "return_generation_logits", True),
        ({"return_perf_metrics": [True]}, "return_perf_metrics", True),
        ({"beam_width": [4]}, "beam_width", 4),
        ({"num_return_sequences": [2]}, "num_return_sequences", 2),
        ({"len_penalty": [1.5]}, "length_penalty", 1.5),
        ({"early_stopping": [False]}, "early_stopping", False),
        ({"stop_words_list": [[[8, 9, 10], [2, 3, -1]]]}, "stop_words", [[8, 9], [10]]),
        ({"bad_words_list": [[8, 9], [2, -1]]}, "bad_words", [[8, 9]]),  # without a batch dimension
        ({"bad_words_list": np.zeros((1, 2, 0))}, "bad_words", []),
        ({"input_lengths": [2]}, "input_token_ids", [5, 6]),  # what is behind the length is padding
        ({"input_ids": [5, 6, 7]}, "input_token_ids", [5, 6, 7]),
        ({"request_output_len": [[4]]}, "max_tokens", 4),
        ({"seed": np.zeros((1, 0))}, "seed", None),
    ],
)
def test_fields(given: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(request(**given), field) == value


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"temperature": [0.9]}, "temperature", float(np.float32(0.9))),
        ({"runtime_top_k": [5]}, "top_k", 5),
        ({"runtime_top_p": [0.5]}, "top_p", 0.5),
        ({"runtime_top_p": [0.0]}, "top_p", None),
        ({"runtime_top_p": [-1.0]}, "top_p", None),
        ({"repetition_penalty": [1.25]}, "repetition_penalty", 1.25),
        ({"presence_penalty": [0.5]}, "presence_penalty", 0.5),
        ({"frequency_penalty": [0.5]}, "frequency_penalty", 0.5),
        ({"min_tokens": [3], "end_id": [2]}, "min_length", 3),
        ({"min_length": [3], "end_id": [2]}, "min_length", 3),
        ({"min_tokens": [3]}, "min_length", None),
        ({"embedding_bias": [[0.0] * 9 + [2.5] + [0.0] * (V - 10)]}, "logit_bias", {9: 2.5}),
        ({"embedding_bias": [0.0] * V}, "logit_bias", {}),
        ({"embedding_bias": np.zeros((1, 0))}, "logit_bias", None),
        ({"runtime_top_p_decay": [1.0]}, "top_p", None),
    ],
)
def test_sampling(given: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(request(**given).sampling, field) == value


def test_every_input_of_the_contract_is_read_refused_or_ignored() -> None:
    home = folder() / "tensorrtllm"
    source = (home / "inputs.py").read_text() + (home / "model.py").read_text()
    neutral = {"runtime_top_p_min", "runtime_top_p_decay", "runtime_top_p_reset_ids", "beam_search_diversity_rate"}
    known = set(INPUTS) | set(IGNORED) | neutral
    assert [t.name for t in TENSORRT_LLM_IN if t.name not in known and f'"{t.name}"' not in source] == []


def test_a_batch_becomes_prompts_with_an_index() -> None:
    found = prompts(
        input_ids=[[5, 6, 7], [8, 0, 0]], input_lengths=[3, 1], request_output_len=[4, 6], seed=[[1], [2]],
        stop_words_list=[[[3], [1]], [[4], [1]]],
    )  # fmt: skip
    assert [prompt.batch_index for prompt in found] == [0, 1]
    assert [list(prompt.request.input_token_ids) for prompt in found] == [[5, 6, 7], [8]]
    assert [(p.request.max_tokens, p.request.seed, p.request.stop_words) for p in found] == [
        (4, 1, [[3]]),
        (6, 2, [[4]]),
    ]


def test_words_of_one_token_end_a_beam_search() -> None:
    found = request(beam_width=[2], end_id=[2], stop_words_list=[[[8, 9], [1, 2]]])
    assert (found.ends, found.stop_words) == ((2, 8, 9), [])


@pytest.mark.parametrize(
    ("sent", "parameter", "streaming", "excluded"),
    [(None, True, False, True), (None, False, False, False), (False, True, False, False), (False, False, True, True)],
)
def test_whether_the_prompt_comes_back(sent: bool | None, parameter: bool, streaming: bool, excluded: bool) -> None:
    given = {} if sent is None else {"exclude_input_in_output": [sent]}
    (prompt,) = prompts(exclude_input=parameter, streaming=[streaming], **given)
    assert prompt.exclude_input is excluded


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"request_output_len": np.zeros((1, 0))}, "request_output_len is not present"),
        ({"seed": [1, 2]}, "Expected a scalar tensor for tensor seed"),
        ({"embedding_bias": [[1.0] * 5]}, f"Expected last dimension to be same as vocab size: {V}"),
        ({"embedding_bias": [[0.0] * V + [1.0]]}, "The embedding bias shape is not as expected"),
        ({"stop_words_list": [[[8, 9], [3, -1]]]}, "must not have out-of-bound offsets: 8 9 3 -1"),
        ({"stop_words_list": [[[8, 9], [2, 1]]]}, "must not have non-increasing offsets"),
        ({"bad_words_list": [[[8, 9], [-1, 2]]]}, "must not have additional -1s"),
        ({"bad_words_list": [[[8, 9], [2, -1]]] * 2}, "Expected 1 got 2"),
        ({"temperature": [-1.0]}, "Incorrect sampling config: temperature -1.0"),
        ({"runtime_top_p": [1.5]}, "Incorrect sampling config: top_p 1.5"),
        ({"runtime_top_k": [-2]}, "Incorrect sampling config: top_k -2"),
        ({"repetition_penalty": [0.0]}, "Incorrect sampling config: repetition_penalty 0.0"),
        ({"runtime_top_p_decay": [0.5]}, "runtime_top_p_decay 0.5 is not served"),
        ({"beam_search_diversity_rate": [0.5]}, "beam_search_diversity_rate 0.5 is not served"),
        ({"guided_decoding_guide_type": [[b"json"]]}, "guided_decoding_guide_type is not served"),
        ({"decoupled": False, "streaming": [True]}, "Streaming is only supported if model is deployed using decoupled"),
        ({"decoupled": False, "num_return_sequences": [2]}, "num_return_sequences > 1 requires"),
        (
            {"decoupled": False, "input_ids": [[1], [2]], "input_lengths": [1, 1], "request_output_len": [1, 1]},
            "Batch size > 1 requires the tensorrt_llm backend to be using decoupled transaction policy",
        ),
    ],
)
def test_refusals(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParameterError) as caught:
        prompts(**given)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_what_is_not_served_is_refused_by_name_unless_it_is_empty(name: str) -> None:
    kind = np.object_ if KIND_OF[name] == "STRING" else KINDS.get(KIND_OF[name], np.float16)
    given = arrays() | {name: np.ones((1, 1), kind)}
    with pytest.raises(ParameterError, match=f"{name} is not served"):
        read(given, decoupled=True, exclude_input=True, vocab_size=V)
    read(arrays() | {name: np.ones((1, 0), kind)}, decoupled=True, exclude_input=True, vocab_size=V)


def test_no_prompt_at_all() -> None:
    given = arrays()
    del given["input_ids"]
    with pytest.raises(ParameterError, match="inputTokens or encoderInputFeatures tensor not provided"):
        read(given, decoupled=True, exclude_input=True, vocab_size=V)


@pytest.mark.parametrize("listed", [[[7, 8], [9, 10, 11]], [[1]], []])
def test_packed_words_come_back(listed: list[list[int]]) -> None:
    packed = pack_words([listed])[0]
    assert words(packed) == listed == unpack_words(packed)


# --- results ---


def result(*beams: tuple[int, ...], **fields: Any) -> Result:
    return Result(beams, (FinishReason.LENGTH,) * len(beams), True, **fields)


def shapes(found: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in found.items()}


def test_tensors_of_a_plain_answer() -> None:
    found = tensors(result((4, 5)), Prompt(Request([1, 2], 2)))
    assert found["output_ids"].tolist() == [[[4, 5]]]
    assert found["sequence_length"].tolist() == [[2]]
    assert len(found) == 2


def test_tensors_of_beams_are_padded_and_the_prompt_comes_first() -> None:
    made = result((4, 5), (6,), cum_log_probs=(-1.0, -2.0), log_probs=((-0.5, -0.5), (-2.0,)))
    found = tensors(made, Prompt(Request([1, 2], 2), exclude_input=False))
    assert found["output_ids"].tolist() == [[[1, 2, 4, 5], [1, 2, 6, -1]]]
    assert found["sequence_length"].tolist() == [[4, 3]]
    assert shapes(found)["output_log_probs"] == (1, 2, 2)
    assert found["cum_log_probs"].tolist() == [[-1.0, -2.0]]


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_logits_have_the_type_of_the_config(kind: Any) -> None:
    made = result((4,), context_logits=np.zeros((2, V), np.float32), generation_logits=np.zeros((1, V), np.float32))
    found = tensors(made, Prompt(Request([1, 2], 1)), kind)
    assert {found[f"{name}_logits"].dtype for name in ("context", "generation")} == {np.dtype(kind)}
    assert (shapes(found)["context_logits"], shapes(found)["generation_logits"]) == ((1, 2, V), (1, 1, 1, V))


def test_all_tensors_fit_the_contract() -> None:
    made = result(
        (4,), cum_log_probs=(-1.0,), log_probs=((-1.0,),), context_logits=np.zeros((2, V), np.float32),
        generation_logits=np.zeros((1, V), np.float32), perf_metrics=PerfMetrics(kv_cache_alloc_new_blocks=2),
    )  # fmt: skip
    found = tensors(made, Prompt(Request([1, 2], 1, num_return_sequences=2), batch_index=3))
    contract = {tensor.name: tensor for tensor in OUTPUTS["tensorrt_llm"] if tensor.name != "context_phase_params"}
    assert set(found) == set(contract)
    kinds = KINDS | {"LOGITS": np.float32}
    for name, array in found.items():
        dims = contract[name].dims
        assert array.dtype == kinds[contract[name].kind], name
        assert array.ndim == len(dims) + 1, name
        assert all(want in (-1, have) for want, have in zip(dims, array.shape[1:], strict=True)), name


def test_an_answer_that_was_cancelled_before_its_first_token() -> None:
    made = result((), cum_log_probs=(0.0,), log_probs=((),), generation_logits=np.array([]))
    found = tensors(made, Prompt(Request([1], 1)))
    assert shapes(found) == {
        "output_ids": (1, 1, 0), "sequence_length": (1, 1), "cum_log_probs": (1, 1), "output_log_probs": (1, 1, 0),
    }  # fmt: skip
