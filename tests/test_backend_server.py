"""The whole of it: the real Triton server, our backend, the real SmolLM2 compiled for this machine in float32.

Three more models in the same server have a model of three lines in the engine's place: ``double`` for beams and logits,
``blocking``, which is not decoupled, and ``doomed``, whose thread dies.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from backend_double import KILLS
from backend_double import runner as double_runner
from tensorrt_llm_calls import ask, calling, request, tensors, tokens
from test_repository_server import generate, stream
from triton_local import Local, backends, needs_triton, serving

from labsupport.backends import folder
from labsupport.engine.runner import Runner
from labsupport.repository.assemble import assemble
from labsupport.repository.text_format import read_model_config, set_parameter, to_text

pytestmark = [pytest.mark.real_model, needs_triton]
TESTS = Path(__file__).parent
CHAT = [{"role": "user", "content": "Answer with three animal emojis: 🦊🐻🐼"}]
TEXTS = ["The capital of France is", "Once upon a time", "2, 4, 6, 8,", "def main():", "Water boils at", "The fox 🦊"]
SHORT = [5, 9, 3, 7]
DOUBLES = {"double": True, "blocking": False, "doomed": True}  # decoupled or not
Show = Callable[[str], None]


@cache
def home() -> tuple[Path, Path]:
    """Engine and tokenizer."""
    from labsupport.checkpoint.convert import convert
    from labsupport.engine.build import build
    from labsupport.models import fetch

    model = fetch("smollm2-135m-instruct")
    return build(convert(model).folder).folder, model


@cache
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(home()[1])


@cache
def runner() -> Runner:
    return Runner(home()[0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    place = tmp_path_factory.mktemp("backend")
    repository = assemble(*home(), output=place / "repository").folder
    for name, decoupled in DOUBLES.items():
        config = read_model_config(repository / "tensorrt_llm" / "config.pbtxt")
        config.name, config.backend = name, "double"
        config.model_transaction_policy.decoupled = decoupled
        set_parameter(config, "gpt_model_path", str(TESTS))
        set_parameter(config, "max_beam_width", "3")
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(to_text(config))
    made = backends(place / "backends", folder() / "tensorrtllm")
    shutil.copytree(TESTS / "fixtures" / "double_engine", made / "double")
    with serving(repository, made) as running:
        yield running


def gauge(server: Local, family: str, label: str, model: str = "tensorrt_llm") -> float:
    """A metric, as Prometheus would read it."""
    (address,) = re.findall(r"Metrics Service at (\S+?)\"", server.log.read_text())
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    rows = re.findall(rf"^nv_trt_llm_{family}_metrics{{(.*)}} (\S+)$", text, re.M)
    (value,) = [value for labels, value in rows if f'="{label}"' in labels and f'model="{model}"' in labels]
    return float(value)


def until_idle(server: Local) -> float:
    """Seconds until the metrics say that no request is open and no block is held."""
    began = time.perf_counter()
    while gauge(server, "request", "active") or gauge(server, "kv_cache_block", "used"):
        assert time.perf_counter() - began < 10, "a slot was never freed"
        time.sleep(0.05)
    return time.perf_counter() - began


# --- the tokens are those of the engine ---


def test_requests_at_once_get_the_tokens_of_the_runner(server: Local, show: Show) -> None:
    """Greedy and drawn, in pieces and whole, all in the batch at the same time."""
    prompts = [tokenizer().encode(text) for text in TEXTS]
    seed = 2**63 + 1
    drawn = {"temperature": 0.75, "top_k": 20, "top_p": 0.875, "repetition_penalty": 1.25}
    names = {"top_k": "runtime_top_k", "top_p": "runtime_top_p"}
    ways: list[dict[str, Any]] = [{}, {"seed": seed, **drawn}]
    jobs = [(prompt, settings, bool(n % 2)) for settings in ways for n, prompt in enumerate(prompts)]

    def run(job: tuple[list[int], dict[str, Any], bool]) -> list[int]:
        prompt, settings, streaming = job
        given = {names.get(key, key): value for key, value in settings.items()}
        answers = ask(server, request(prompt, 12, streaming=streaming, end_id=2, **given))
        assert [last for _, last in answers] == [False] * (len(answers) - 1) + [True]
        assert all("output_ids" in found for found, _ in answers)
        return tokens(answers)

    with ThreadPoolExecutor(len(jobs)) as pool:
        found = list(pool.map(run, jobs))
    expected = [
        list(result.output_token_ids[0])
        for settings in ways
        for [result] in runner().generate(prompts, max_new_tokens=12, end_ids=[2], **settings)
    ]
    assert found == expected
    assert expected[: len(prompts)] != expected[len(prompts) :]
    show(f"\n{len(jobs)} requests at once, {sum(map(len, found))} tokens: all those of Runner.generate")


def test_the_batch_is_in_flight(server: Local) -> None:
    """A request that comes while another one writes gets its first token before that one is done."""
    with calling(server, request(SHORT, 40, streaming=True, return_perf_metrics=True)) as first:
        answers = iter(first)
        next(answers)
        ((second, _),) = ask(server, request(SHORT[::-1], 2, return_perf_metrics=True))
        *_, (done, _) = answers
    assert done["first_token_time_ns"] < second["arrival_time_ns"] < second["last_token_time_ns"]
    assert second["last_token_time_ns"] < done["last_token_time_ns"]


def test_log_probs_bias_and_words(server: Local) -> None:
    prompt = tokenizer().encode(TEXTS[0])
    ((found, _),) = ask(server, request(prompt, 4, return_log_probs=True))
    [[alone]] = runner().generate([prompt], max_new_tokens=4, return_log_probs=True)
    assert alone.log_probs is not None
    np.testing.assert_allclose(found["output_log_probs"][0, 0], alone.log_probs[0], atol=1e-4)
    np.testing.assert_allclose(found["cum_log_probs"][0], [sum(alone.log_probs[0])], atol=1e-4)
    ids = list(alone.output_token_ids[0])
    bias = np.zeros(runner().model.vocab_size)
    bias[77] = 1000.0
    assert tokens(ask(server, request(prompt, 2, embedding_bias=bias))) == [77, 77]
    assert tokens(ask(server, request(prompt, 4, stop_words_list=[ids[1:3], [2, -1]]))) == ids[:3]
    assert tokens(ask(server, request(prompt, 4, bad_words_list=[[ids[0]], [1]])))[0] != ids[0]
    assert tokens(ask(server, request(prompt, 4, end_id=ids[1]))) == ids[:2]
    assert len(tokens(ask(server, request(prompt, 4, end_id=ids[1], min_tokens=3)))) >= 3
    whole = ask(server, request(prompt, 2, exclude_input_in_output=False))
    assert tokens(whole) == [*prompt, *ids[:2]]
    assert whole[0][0]["sequence_length"].tolist() == [[len(prompt) + 2]]


def test_a_repeated_prompt_reuses_its_blocks(server: Local) -> None:
    prompt = np.random.default_rng(8).integers(100, 20000, size=70).tolist()
    reused = [
        int(ask(server, request(prompt, 1, return_perf_metrics=True))[0][0]["kv_cache_reused_blocks"].item())
        for _ in range(2)
    ]
    assert reused == [0, 2]  # blocks of 32 tokens


def test_several_prompts_in_a_request(server: Local) -> None:
    prompts = [tokenizer().encode(text)[:3] for text in TEXTS[:2]]
    given = {"input_ids": prompts, "input_lengths": [3, 3], "request_output_len": [2, 4], "streaming": [True, True]}
    answers = ask(server, given, batch=2)
    for n, prompt in enumerate(prompts):
        mine = [(found, last) for found, last in answers if found["batch_index"].item() == n]
        [[alone]] = runner().generate([prompt], max_new_tokens=2 + 2 * n)
        assert tuple(tokens(mine)) == alone.output_token_ids[0]
    assert [last for _, last in answers] == [False] * 5 + [True]


def test_beams_and_logits(server: Local) -> None:
    wanted = {"return_context_logits": True, "return_generation_logits": True}
    answers = ask(server, request(SHORT, 3, streaming=True, **wanted), "double")
    [[alone]] = double_runner().generate([SHORT], max_new_tokens=3, **wanted)
    np.testing.assert_array_equal(answers[-1][0]["context_logits"][0], alone.context_logits)
    pieces = [found["generation_logits"][0, 0] for found, _ in answers]
    np.testing.assert_array_equal(np.concatenate(pieces), alone.generation_logits)
    ((beams, last),) = ask(server, request(SHORT, 5, beam_width=3, return_log_probs=True, len_penalty=1.0), "double")
    best = double_runner().beam_search(SHORT, width=3, max_new_tokens=5)
    assert last
    assert beams["output_ids"][0].tolist() == [list(ids) for ids in best.output_token_ids]
    np.testing.assert_allclose(beams["cum_log_probs"][0], best.cum_log_probs, rtol=1e-5)
    several = ask(server, request(SHORT, 6, num_return_sequences=2, runtime_top_k=5, seed=3), "double")
    for found, _ in several:
        index = int(found["sequence_index"].item())
        [[alone]] = double_runner().generate([SHORT], max_new_tokens=6, top_k=5, seed=3 + index)
        assert tuple(tokens([(found, True)])) == alone.output_token_ids[0]
    assert len(several) == 2


# --- what the server says about modes, as measured with NVIDIA's own templates ---


def test_the_table_of_behaviors(server: Local, show: Show) -> None:
    """The rows of a measured table that belong to the engine's model, each called and compared."""
    from tritonclient.grpc import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    plain, pieces = request(SHORT, 3), request(SHORT, 3, streaming=True)
    two = {"input_ids": [SHORT, SHORT], "input_lengths": [4, 4], "request_output_len": [1, 1]}

    def unary(model: str) -> str:
        with InferenceServerClient(server.grpc) as client:
            return f"{client.infer(model, tensors(plain)).as_numpy('output_ids').shape[-1]} tokens"

    def over_http(model: str, how: str) -> str:
        status, body = generate(server, model, plain, how)
        return f"{status}, {body.count('output_ids')} response(s)" if status == 200 else f"{status}, {body}"

    def streamed(model: str, given: dict[str, Any], batch: int = 1) -> str:
        answers = ask(server, given, model, batch=batch)
        flags = "".join("T" if last else "F" for _, last in answers)
        return f"{len(answers)} response(s), final flags {flags}"

    rows: list[tuple[str, Callable[[], str], str]] = [
        ("decoupled, stream of pieces", lambda: streamed("tensorrt_llm", pieces), "3 response(s), final flags FFT"),
        ("decoupled, stream=false", lambda: streamed("tensorrt_llm", plain), "1 response(s), final flags T"),
        ("decoupled, two prompts", lambda: streamed("tensorrt_llm", two, 2), "2 response(s), final flags FT"),
        (
            "decoupled, unary gRPC",
            lambda: unary("tensorrt_llm"),
            "doesn't support models with decoupled",
        ),
        ("decoupled, /generate", lambda: over_http("tensorrt_llm", "generate"), "200, 1 response(s)"),
        ("decoupled, /infer", lambda: over_http("tensorrt_llm", "infer"), "doesn't support models with decoupled"),
        ("not decoupled, gRPC stream", lambda: streamed("blocking", plain), "1 response(s), final flags T"),
        ("not decoupled, unary gRPC", lambda: unary("blocking"), "3 tokens"),
        (
            "not decoupled, pieces",
            lambda: streamed("blocking", pieces),
            "Streaming is only supported if model is",
        ),
        (
            "not decoupled, two prompts",
            lambda: streamed("blocking", two, 2),
            "Batch size > 1 requires the tensorrt_llm",
        ),
    ]
    wrong = []
    for what, call, expected in rows:
        try:
            found = call()
        except InferenceServerException as problem:
            found = str(problem.message())
        show(f"{what:28}{found.splitlines()[0][:110]}")
        wrong += [] if expected in found else [(what, found)]
    assert wrong == []


def test_the_bls_mends_what_the_ensemble_breaks(server: Local, show: Show) -> None:
    """The same request twice: characters of several tokens come out whole, and a stream ends with its flag."""
    ids = tokenizer().apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    bias = {"embedding_bias_words": [["🦊"]], "embedding_bias_weights": [[6.0]]}
    given: dict[str, Any] = {"text_input": [json.dumps(CHAT)], "max_tokens": [9], **bias}
    ensemble, ours = stream(server, "ensemble", **given), stream(server, "tensorrt_llm_bls", **given)
    broken, mended = [text for text, *_ in ensemble], [text for text, *_ in ours]
    show(f"\n{len(ids)} tokens of prompt\nensemble  {'|'.join(broken)}\nBLS       {'|'.join(mended)}")
    assert "\ufffd" in "".join(broken)
    assert not any("\ufffd" in piece for piece in mended[:-1])
    assert [last for _, last, _ in ours] == [False] * (len(ours) - 1) + [True]


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_text_is_the_text_of_the_tokens(server: Local, model: str) -> None:
    [[alone]] = runner().generate([tokenizer().encode(TEXTS[0])], max_new_tokens=5, end_ids=[2])
    said = tokenizer().decode(alone.output_token_ids[0], skip_special_tokens=True)
    status, body = generate(server, model, {"text_input": TEXTS[0], "max_tokens": 5})
    assert (status, json.loads(body)["text_output"]) == (200, said)
    assert "".join(piece for piece, *_ in stream(server, model, text_input=TEXTS[:1], max_tokens=[5])) == said


# --- clients that leave ---


def test_a_client_that_leaves_frees_its_slot_within_a_second(server: Local, show: Show) -> None:
    seconds = {}
    for how in ("stop_stream(cancel_requests=True)", "a request with stop=true", "the same through the BLS"):
        if how.endswith("BLS"):
            stream(server, "tensorrt_llm_bls", text_input=[TEXTS[1]], max_tokens=[900], cancel_after=2)
            seconds[how] = until_idle(server)
            continue
        with calling(server, request(SHORT, 900, streaming=True), name="to-be-stopped") as call:
            answers = iter(call)
            next(answers)
            assert gauge(server, "request", "max") == 8
            if how.startswith("stop_stream"):
                call.go_away()
            else:
                ((nothing, last),) = ask(server, request(SHORT, 1, stop=True), name="to-be-stopped")
                assert (nothing, last) == ({}, True)
                assert [last for _, last in answers][-1]
            seconds[how] = until_idle(server)
    for how, took in seconds.items():
        show(f"{how:36}free after {took:.2f} s, by the metrics")
    assert max(seconds.values()) < 1.0


# --- errors ---

BAD = [
    ("tensorrt_llm", request([5] * 1025, 2), "Prompt length (1025) exceeds maximum input length (1024)"),
    ("tensorrt_llm", request(SHORT, 0), "max_tokens 0"),
    ("tensorrt_llm", request([60000], 2), "input_token_ids holds 60000"),
    ("tensorrt_llm", request(SHORT, 2, temperature=-1.0), "Incorrect sampling config: temperature -1.0"),
    ("tensorrt_llm", request(SHORT, 2, beam_width=2), "beam width (2) is not 1 to max_beam_width (1)"),
    ("tensorrt_llm", request(SHORT, 2, return_context_logits=True), "asks for context logits"),
    ("tensorrt_llm", request(SHORT, 2, lora_task_id=7), "lora_task_id is not served"),
    ("tensorrt_llm", request(SHORT, 2, draft_input_ids=[4]), "draft_input_ids is not served"),
    ("tensorrt_llm", request(SHORT, 2, guided_decoding_guide_type=[b"json"]), "guided_decoding_guide_type is not"),
    ("tensorrt_llm", request(SHORT, 2, embedding_bias=[1.0]), "The embedding bias shape is not as expected"),
    ("tensorrt_llm", request(SHORT, 2, stop_words_list=[[4, 5], [9, -1]]), "must not have out-of-bound offsets"),
    ("tensorrt_llm", request(SHORT, 2, stop=True), "Trying to stop a request but request ID is not provided"),
    ("blocking", request(SHORT, 2, num_return_sequences=2), "num_return_sequences > 1 requires the tensorrt_llm"),
]


def test_errors_say_what_they_should_and_the_server_goes_on(server: Local) -> None:
    from tritonclient.utils import InferenceServerException

    expected = tokens(ask(server, request(SHORT, 2)))
    for model, given, message in BAD:
        with pytest.raises(InferenceServerException, match=re.escape(message)):
            ask(server, given, model)
    assert tokens(ask(server, request(SHORT, 2))) == expected
    assert until_idle(server) < 1.0


def test_a_long_answer_is_cut_short_with_a_line_in_the_log(server: Local) -> None:
    assert len(tokens(ask(server, request(SHORT, 500), "double"))) == 96 - len(SHORT)
    assert "max_tokens is reduced to 92" in server.log.read_text()


def test_a_dead_batch_answers_everybody(server: Local) -> None:
    from tritonclient.utils import InferenceServerException

    with calling(server, request(SHORT, 90, streaming=True), "doomed") as call:
        answers = iter(call)
        next(answers)
        with pytest.raises(InferenceServerException, match="the executor died: SystemExit: a token kills"):
            ask(server, request([KILLS], 2), "doomed")
        for _ in range(2):
            with pytest.raises(InferenceServerException, match="the executor died"):
                ask(server, request(SHORT, 2), "doomed")
    assert tokens(ask(server, request(SHORT, 2), "double"))
