"""An assembled repository on the real Triton server, with a peer in the engine's place that answers with the prompt."""

from __future__ import annotations

import json
import queue
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repositories_made import VOCABULARY, good, tokenizer
from triton_local import Local, backends, needs_triton, serving

from labsupport.repository.models.preprocessing.words import unpack_words
from labsupport.repository.text_format import read_model_config, set_parameter, to_text

pytestmark = needs_triton
ENGINE = Path(__file__).parent / "fixtures" / "echo_engine"
TEXT = "machine learning is a field 🦊 the é."
TYPES = {"U": "BYTES", "O": "BYTES", "b": "BOOL", "i": "INT32", "f": "FP32", "u": "UINT64"}
Piece = tuple[str, bool, dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Decoupled, with a second BLS that gives the whole text so far."""
    home = tmp_path_factory.mktemp("decoupled")
    repository = good(home / "repository", "sentencepiece")
    shutil.copytree(repository / "tensorrt_llm_bls", repository / "cumulative")
    config = read_model_config(repository / "cumulative" / "config.pbtxt")
    config.name = "cumulative"
    set_parameter(config, "accumulate_tokens", "true")
    (repository / "cumulative" / "config.pbtxt").write_text(to_text(config))
    with serving(repository, backends(home / "backends", ENGINE)) as running:
        yield running


@pytest.fixture(scope="module")
def blocking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Not decoupled: one response a request."""
    home = tmp_path_factory.mktemp("blocking")
    repository = good(home / "repository", "sentencepiece", decoupled=False)
    with serving(repository, backends(home / "backends", ENGINE)) as running:
        yield running


def tensors(given: dict[str, Any], batch: int = 1) -> list[Any]:
    from tritonclient.grpc import InferInput

    made = []
    for name, value in given.items():
        array = np.asarray(value)
        array = np.asarray(value, np.uint64) if name == "seed" else array
        array = array.astype({"i": np.int32, "f": np.float32}.get(array.dtype.kind, array.dtype))
        array = array.astype(np.object_) if array.dtype.kind in "US" else array
        array = array.reshape(batch, -1)
        made.append(InferInput(name, list(array.shape), TYPES[array.dtype.kind]))
        made[-1].set_data_from_numpy(array)
    return made


def infer(server: Local, model: str, given: dict[str, Any], batch: int = 1) -> Any:
    from tritonclient.grpc import InferenceServerClient

    with InferenceServerClient(server.grpc) as client:
        return client.infer(model, tensors(given, batch))


def stream(server: Local, model: str, batch: int = 1, *, cancel_after: int | None = None, **given: Any) -> list[Piece]:
    """All responses until the one that is marked as the last. An empty final response is not asked for."""
    from tritonclient.grpc import InferenceServerClient

    arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
    found: list[Piece] = []
    given = {"max_tokens": [64] * batch, "stream": [True] * batch, **given}
    with InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: arrived.put((result, error)))
        client.async_stream_infer(model, tensors(given, batch))
        while not (found and found[-1][1]):
            try:
                result, error = arrived.get(timeout=60)
            except queue.Empty:
                client.stop_stream(cancel_requests=True)  # or closing it would wait for ever
                raise
            if error:
                raise error
            reply = result.get_response()
            last = reply.parameters["triton_final_response"].bool_param
            arrays = {output.name: result.as_numpy(output.name) for output in reply.outputs}
            found.append((arrays["text_output"].flat[0].decode(), last, arrays))
            if cancel_after and len(found) == cancel_after:
                client.stop_stream(cancel_requests=True)
                break
    return found


def generate(server: Local, model: str, body: dict[str, Any], how: str = "generate") -> tuple[int, str]:
    call = urllib.request.Request(f"http://{server.http}/v2/models/{model}/{how}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(call, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


def test_the_bls_mends_what_the_ensemble_breaks(server: Local, capsys: pytest.CaptureFixture[str]) -> None:
    ensemble = [text for text, _, _ in stream(server, "ensemble", text_input=[TEXT])]
    ours = stream(server, "tensorrt_llm_bls", text_input=[TEXT])
    pieces = [text for text, _, _ in ours]
    with capsys.disabled():
        print(f"\n{'ensemble':10}{'|'.join(ensemble)}\n{'BLS':10}{'|'.join(pieces)}")
    assert "\ufffd" in "".join(ensemble)
    assert " " not in "".join(ensemble)
    assert "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)
    assert [last for _, last, _ in ours] == [False] * (len(ours) - 1) + [True]
    assert len(pieces) > 10


def test_cumulative_pieces_begin_with_the_piece_before(server: Local) -> None:
    pieces = [text for text, _, _ in stream(server, "cumulative", text_input=[TEXT])]
    assert all(after.startswith(before) for before, after in pairwise(pieces))
    assert pieces[-1] == TEXT


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_one_answer_by_http(server: Local, model: str) -> None:
    status, body = generate(server, model, {"text_input": TEXT, "max_tokens": 64})
    assert (status, json.loads(body)["text_output"]) == (200, TEXT)


def test_a_stream_by_http_ends_and_is_whole(server: Local) -> None:
    body = {"text_input": TEXT, "max_tokens": 64, "stream": True}
    status, text = generate(server, "tensorrt_llm_bls", body, "generate_stream")
    events = [json.loads(line[6:])["text_output"] for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200
    assert "".join(events) == TEXT


def test_preprocessing_of_a_batch(server: Local) -> None:
    chat = json.dumps([{"role": "user", "content": "the field"}])
    given = {"QUERY": ["is", chat], "REQUEST_OUTPUT_LEN": [4, 4], "STOP_WORDS_DICT": [["the", "a field"], ["is", ""]]}
    bias = {"EMBEDDING_BIAS_WORDS": [["a"], ["the"]], "EMBEDDING_BIAS_WEIGHTS": [[1.5], [-2.0]]}
    reply = infer(server, "preprocessing", given | bias, batch=2)
    tok = tokenizer("sentencepiece")
    ids, lengths = reply.as_numpy("INPUT_ID"), reply.as_numpy("REQUEST_INPUT_LEN")[:, 0]
    assert ids[0, : lengths[0]].tolist() == tok.encode("is")
    assert ids[1, : lengths[1]].tolist() == tok.encode("<s>user: the field<|turn|>", add_special_tokens=False)
    assert [row[:n].tolist().count(tok.bos_token_id) for row, n in zip(ids, lengths, strict=True)] == [1, 1]
    words = [unpack_words(row) for row in reply.as_numpy("STOP_WORDS_IDS")]
    coded = {word: tok.encode(word, add_special_tokens=False) for word in ("the", "a field", "is")}
    assert words == [[coded["the"], coded["a field"], [3]], [coded["is"], [3]]]  # 3: the other end token
    assert reply.as_numpy("OUT_END_ID").tolist() == [[2], [2]]
    assert reply.as_numpy("EMBEDDING_BIAS").shape == (2, VOCABULARY)
    assert sorted(set(reply.as_numpy("EMBEDDING_BIAS")[1].tolist())) == [-2.0, 0.0]
    assert infer(server, "preprocessing", given | {"END_ID": [7, 7]}, batch=2).as_numpy("OUT_END_ID").tolist() == [
        [7],
        [7],
    ]


def test_several_prompts_in_a_request(server: Local) -> None:
    texts = ["the field", "a fox 🦊", "is"]
    replies = stream(server, "tensorrt_llm_bls", batch=3, text_input=texts)
    found = dict.fromkeys(range(3), "")
    for text, _, arrays in replies:
        found[int(arrays["batch_index"].item())] += text
    assert list(found.values()) == texts
    assert [last for _, last, _ in replies].count(True) == 1


def test_beams_and_log_probs(server: Local) -> None:
    ((_, last, arrays),) = stream(server, "tensorrt_llm_bls", text_input=["the fox"], beam_width=[3], stream=[False])
    assert last
    assert arrays["text_output"].shape == (1, 3)
    assert arrays["text_output"][0, 0] == b"the fox"
    assert arrays["cum_log_probs"].shape == (1, 3)
    np.testing.assert_allclose(arrays["output_log_probs"].sum(-1), arrays["cum_log_probs"])


def test_a_stop_word_that_the_engine_misses(server: Local) -> None:
    """In the text it is a part of other tokens, so its ids do not match."""
    whole = {"text_input": ["machine learning is"], "stop_words": ["ne lear"], "max_tokens": [64]}
    assert stream(server, "tensorrt_llm_bls", **whole, stream=[False])[0][0] == "machine lear"
    began = time.perf_counter()
    slow = stream(server, "tensorrt_llm_bls", **whole, min_tokens=[150])
    assert "".join(text for text, _, _ in slow) == "machine lear"
    assert slow[-1][1]
    assert time.perf_counter() - began < 0.15 * len(tokenizer("sentencepiece").encode("machine learning is")) + 1


def test_the_prompt_comes_back_where_it_is_asked_for(server: Local) -> None:
    asked = {"text_input": "the fox", "max_tokens": 64, "exclude_input_in_output": False}
    assert json.loads(generate(server, "tensorrt_llm_bls", asked)[1])["text_output"] == "the foxthe fox"


def test_a_client_that_goes_away_frees_its_slot(server: Local) -> None:
    seen = server.log.read_text().count("stopped ")
    stream(server, "tensorrt_llm_bls", text_input=[TEXT], min_tokens=[300], cancel_after=1)
    began = time.perf_counter()
    while server.log.read_text().count("stopped ") == seen and time.perf_counter() - began < 5:
        time.sleep(0.02)
    assert time.perf_counter() - began < 1.0
    assert "".join(text for text, _, _ in stream(server, "tensorrt_llm_bls", text_input=["is"])) == "is"


BAD = [
    ({"max_tokens": [0]}, "max_tokens is 0"),
    ({"num_draft_tokens": [3]}, "num_draft_tokens is not served"),
    ({"text_input": [b"\xff\xfe"]}, "not UTF-8"),
    ({"embedding_bias_words": ["a"]}, "go together"),
    ({"embedding_bias_words": ["a"], "embedding_bias_weights": [[1.0, 2.0]]}, "one for each"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_requests_are_refused_and_the_server_goes_on(server: Local, given: dict[str, Any], message: str) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=message):
        stream(server, "tensorrt_llm_bls", **{"text_input": ["a"], **given})
    assert generate(server, "tensorrt_llm_bls", {"text_input": "is", "max_tokens": 9})[0] == 200


def test_many_streams_at_once_are_not_mixed(server: Local) -> None:
    texts = [f"{'the fox 🦊 ' * (n % 4)}is {'abcdefgh'[n % 8]}" for n in range(24)]

    def ask(text: str) -> list[Piece]:
        # 100 ms a token: Triton 2.51 can stand still where responses come while others begin (see the BLS's watch.py)
        return stream(server, "tensorrt_llm_bls", text_input=[text], min_tokens=[100])

    with ThreadPoolExecutor(24) as pool:
        found = list(pool.map(ask, texts))
    assert ["".join(text for text, _, _ in pieces) for pieces in found] == texts


def test_without_streams_one_answer_holds_the_batch(blocking: Local) -> None:
    reply = infer(blocking, "tensorrt_llm_bls", {"text_input": ["the fox 🦊", "is"], "max_tokens": [64, 64]}, batch=2)
    assert [text.decode() for text in reply.as_numpy("text_output")[:, 0]] == ["the fox 🦊", "is"]
    for model in ("ensemble", "tensorrt_llm_bls"):
        assert json.loads(generate(blocking, model, {"text_input": TEXT, "max_tokens": 64})[1])["text_output"] == TEXT
        status, body = generate(
            blocking, model, {"text_input": TEXT, "max_tokens": 64, "stream": True}, "generate_stream"
        )
        assert status == 400
        assert "Streaming is only supported" in body
