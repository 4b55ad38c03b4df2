"""The clients against the real server, with a peer in the engine's place that answers with the prompt."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest
from repositories_made import good, tokenizer
from test_serving_server import ENGINE, TEXT
from triton_local import needs_triton

from labsupport.errors import ParameterError, RequestError, ServerError
from labsupport.repository.contract import BLS_IN, ENSEMBLE_IN
from labsupport.repository.text_format import read_model_config, set_parameter, to_text
from labsupport.serving import AsyncClient, Client, Sampling, Server
from labsupport.serving.answer import Growing
from labsupport.serving.chat import Chat
from labsupport.serving.client import Stream
from labsupport.serving.wire import Model

pytestmark = needs_triton
LABS = Path(sys.executable).with_name("labs")
PROTOCOLS: tuple[Literal["grpc", "http"], ...] = ("grpc", "http")
SLOW = Sampling(min_tokens=150)  # to the peer: milliseconds between two tokens
PACED = Sampling(min_tokens=100)  # many at once: see the BLS's watch.py
BAD = [
    (Sampling(max_tokens=0), "max_tokens is 0"),
    (Sampling(num_draft_tokens=3), "num_draft_tokens is not served"),
    (Sampling(embedding_bias_words=["a"]), "go together"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a second BLS that gives the whole text so far."""
    repository = good(tmp_path_factory.mktemp("client") / "repository", "sentencepiece")
    config = read_model_config(repository / "tensorrt_llm_bls" / "config.pbtxt")
    (repository / "cumulative").mkdir()
    (repository / "cumulative" / "1").symlink_to(repository / "tensorrt_llm_bls" / "1")
    config.name = "cumulative"
    set_parameter(config, "accumulate_tokens", "true")
    (repository / "cumulative" / "config.pbtxt").write_text(to_text(config))
    with Server(repository, engine=ENGINE) as running:
        yield running


@pytest.fixture(scope="module", params=PROTOCOLS)
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(server.address, protocol=request.param) as made:
        yield made


def test_whole_and_in_chunks(client: Client) -> None:
    whole = client.generate(TEXT)
    assert (whole.text, len(whole.chunks), whole.cancelled) == (TEXT, 1, False)
    streamed = client.stream(TEXT).answer()
    assert streamed.text == TEXT
    assert len(streamed.chunks) > 10
    assert not any("\ufffd" in chunk.text for chunk in streamed.chunks)


def test_timings_are_in_order(client: Client) -> None:
    began = time.perf_counter()
    answer = client.stream("is", SLOW).answer()
    assert began <= answer.sent
    stamps = [answer.sent, *(chunk.at for chunk in answer.chunks), answer.ended]
    assert stamps == sorted(stamps)
    assert 0.15 < answer.ttft < answer.seconds < time.perf_counter() - began
    assert len(answer.gaps) == len(answer.chunks) - 1
    tokens = len(tokenizer("sentencepiece").encode("is")) + 1
    assert answer.seconds > 0.15 * tokens


def test_the_ensemble_forgets_spaces(client: Client) -> None:
    assert " " not in client.stream(TEXT, model="ensemble").answer().text
    assert client.generate(TEXT, model="ensemble").text == TEXT


def test_texts_that_grow_become_new_text(client: Client) -> None:
    assert client.about("cumulative").grows
    answer = client.stream(TEXT, Sampling(min_tokens=1, seed=2**64 - 1), model="cumulative").answer()
    assert answer.text == TEXT
    assert len(answer.chunks) > 10


def test_chat_messages_and_token_ids(client: Client) -> None:
    assert client.generate([{"role": "user", "content": "the fox"}]).text == "user: the fox"
    ids = tokenizer("sentencepiece").encode(TEXT)
    streamed = client.stream(ids, Sampling(end_id=2), model="tensorrt_llm").answer()
    assert list(streamed.ids) == [*ids, 2]
    assert [len(chunk.ids) for chunk in streamed.chunks] == [1] * (len(ids) + 1)
    with pytest.raises(ParameterError, match="stop_words with a prompt of token ids"):
        client.generate(ids, Sampling(stop_words=["fox"]), model="tensorrt_llm")


def test_beams_stop_words_and_log_probs(client: Client) -> None:
    assert client.generate("the fox", Sampling(beam_width=3)).texts == ("the fox", "the fox", "the the fo")
    assert client.stream("the fox is", Sampling(stop_words=["", "ox", "🦊 é"])).answer().text == "the fox"
    tensors = client.generate("the fox", Sampling(return_log_probs=True)).chunks[0].tensors
    np.testing.assert_allclose(tensors["cum_log_probs"], -0.5 * tensors["output_log_probs"].size)


@pytest.mark.parametrize(("sampling", "said"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_what_the_server_refuses(client: Client, sampling: Sampling, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        client.generate(TEXT, sampling)
    assert said in caught.value.why
    with pytest.raises(RequestError) as caught:
        client.stream(TEXT, sampling).answer()
    assert said in caught.value.why
    assert client.generate("is").text == "is"


def test_an_input_or_a_model_that_is_not_there(client: Client) -> None:
    with pytest.raises(RequestError, match="ensemble has no input num_draft_tokens"):
        client.generate(TEXT, Sampling(num_draft_tokens=3), model="ensemble")
    with pytest.raises(RequestError) as caught:
        client.generate(TEXT, model="nobody")
    assert "'nobody' is not found" in caught.value.why


def stopped(server: Server) -> int:
    return server.log.read_text().count("stopped ") if server.log else 0


def wait_for_a_stop(server: Server, before: int) -> float:
    began = time.perf_counter()
    while stopped(server) == before and time.perf_counter() - began < 5:
        time.sleep(0.02)
    return time.perf_counter() - began


def test_leaving_the_block_cancels_and_frees_the_slot(server: Server, client: Client) -> None:
    before = stopped(server)
    with client.stream(TEXT, SLOW) as stream:
        next(stream)
    assert wait_for_a_stop(server, before) < 2
    answer = stream.answer()
    assert answer.cancelled
    assert 1 <= len(answer.chunks) < 4


def test_another_thread_cancels(server: Server, client: Client) -> None:
    before = stopped(server)
    stream = client.stream(TEXT, SLOW)
    threading.Timer(0.4, stream.cancel).start()
    answer = stream.answer()
    assert answer.cancelled
    assert answer.seconds < 2
    assert wait_for_a_stop(server, before) < 2


def test_a_timeout_is_told(server: Server) -> None:
    for protocol in PROTOCOLS:
        with Client(server.address, protocol=protocol, timeout=0.5) as hasty, pytest.raises(ServerError) as caught:
            hasty.generate(TEXT, SLOW)
        assert "time" in caught.value.why


def test_many_threads_share_a_client(client: Client) -> None:
    texts = [f"{'the fox 🦊 ' * (n % 3)}is {'abcdefgh'[n % 8]}" for n in range(12)]
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda text: client.stream(text, PACED).answer().text, texts)) == texts


def test_asyncio(server: Server) -> None:
    texts = [f"{'the fox 🦊 ' * (n % 3)}is {'abcdefgh'[n % 8]}" for n in range(12)]

    async def several() -> None:
        async with AsyncClient(server.address) as client:
            assert (await client.generate(TEXT)).text == TEXT
            streams = await asyncio.gather(*(client.stream(text, PACED) for text in texts))
            answers = await asyncio.gather(*(stream.answer() for stream in streams))
            assert [answer.text for answer in answers] == texts
            assert all(0 < answer.ttft < answer.seconds for answer in answers)
            pieces = [chunk.text async for chunk in await client.stream(TEXT, model="cumulative")]
            assert "".join(pieces) == TEXT
            for sampling, said in BAD:
                with pytest.raises(RequestError) as caught:
                    await (await client.stream(TEXT, sampling)).answer()
                assert said in caught.value.why

    async def cancelled() -> None:
        async with AsyncClient(server.address) as client:
            for by_task in (False, True):
                before = stopped(server)
                stream = await client.stream(TEXT, SLOW)
                await anext(stream)
                if by_task:
                    with pytest.raises(asyncio.TimeoutError):
                        await asyncio.wait_for(stream.answer(), 0.2)
                else:
                    stream.cancel()
                    assert (await stream.answer()).cancelled
                assert await asyncio.to_thread(wait_for_a_stop, server, before) < 2

    asyncio.run(several())
    asyncio.run(cancelled())


def test_a_server_that_dies_in_the_middle(tmp_path: Path) -> None:
    with Server(good(tmp_path / "repository", "sentencepiece"), engine=ENGINE) as server:
        streams = []
        for protocol in PROTOCOLS:
            streams.append(Client(server.address, protocol=protocol).stream(TEXT, SLOW))
            next(streams[-1])

        async def last() -> None:
            async with AsyncClient(server.address) as client:
                stream = await client.stream(TEXT, SLOW)
                await anext(stream)
                psutil.Process(server.pid).children()[0].kill()
                await stream.answer()

        with pytest.raises(ServerError):
            asyncio.run(last())
        for stream in streams:
            with pytest.raises(ServerError, match="no answer from the server"):
                stream.answer()
        with pytest.raises(ServerError, match="no answer from the server"):
            Client(server.address).generate(TEXT)


def test_a_chat_has_a_memory(server: Server) -> None:
    """The peer repeats the conversation up to the first end of a turn: what it was told first."""
    with Client(server.address) as client:
        chat = Chat(client, Sampling(max_tokens=500))
        assert "".join(chat.say("is")) == "user: is"
        assert "".join(chat.say("a fox")) == "user: is"
        assert [turn["role"] for turn in chat.turns] == ["user", "assistant"] * 2
        chat.reset()
        assert "".join(chat.say("a fox")) == "user: a fox"
        told = Chat(client, Sampling(max_tokens=500), system="the a")
        assert ["".join(told.say(text)) for text in ("is", "a fox")] == ["system: the a"] * 2
        slow = Chat(client, SLOW)
        answer = slow.say("the field is a field")
        said = next(answer) + next(answer)
        answer.close()
        assert slow.turns == [
            {"role": "user", "content": "the field is a field"},
            {"role": "assistant", "content": said},
        ]


def test_a_chat_by_pipe(server: Server) -> None:
    lines = "the fox\n\n/reset\nis\n/exit\nnever\n"
    call = [LABS, "chat", server.address.http]
    done = subprocess.run(call, input=lines, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "user: the fox\nuser: is\n"
    assert "(forgotten)" in done.stderr
    environment = os.environ | {"TRITON_URL": "127.0.0.1:1"}
    done = subprocess.run([LABS, "chat"], input=lines, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "error: no answer from the server at 127.0.0.1:2" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_cancels_the_answer_and_not_the_chat(server: Server) -> None:
    call = [LABS, "chat", server.address.http, "--max-tokens", "9999"]
    pipe = subprocess.PIPE
    with subprocess.Popen(call, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as chat:
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write("the fox " * 2000 + "\n")
        chat.stdin.flush()
        chat.stdout.read(20)
        chat.send_signal(signal.SIGINT)
        said, _ = chat.communicate("/reset\nis\n", timeout=60)
    assert chat.returncode == 0
    assert said.endswith(" (cancelled)\nuser: is\n")
    assert len(said) < len("the fox ") * 2000


def test_an_interrupt_never_lands_inside_grpc(server: Server) -> None:
    """There it can leave the lock of a call taken: the channel then hangs, as ``labs chat`` once did."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    assert threading.current_thread() is threading.main_thread(), "Python runs handlers of signals there"

    def answer_under_fire(stream: Stream) -> None:
        threading.Timer(0.02, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        stream.answer()

    try:
        with Client(server.address) as client:
            for _ in range(20):
                with client.stream("the fox " * 2000, Sampling(9999, min_tokens=1)) as stream:
                    next(stream)
                    with pytest.raises(KeyboardInterrupt) as caught:
                        answer_under_fire(stream)
                assert not [entry for entry in caught.traceback if "grpc" in str(entry.path)]
            assert client.generate(TEXT).text == TEXT
    finally:
        signal.signal(signal.SIGINT, before)


def test_sampling_has_every_parameter_of_the_contract() -> None:
    inputs = {tensor.name for tensor in [*BLS_IN, *ENSEMBLE_IN]} - {"text_input", "stream"}
    images = {name for name in inputs if "image" in name or "video" in name}
    assert {field.name for field in fields(Sampling)} == inputs - images


def test_new_text_out_of_texts_that_grow() -> None:
    growing = Growing()
    wholes = ["a", "a \ufffd", "a \ufffd\ufffd", "a 🦊", "a 🦊 b"]
    assert "".join(growing.new((text,))[0] for text in wholes) == wholes[-1]


def test_names_of_another_version() -> None:
    model = Model("old", {"text_input": "STRING", "random_seed": "UINT64"}, grows=False)
    assert set(model.fit({"seed": np.zeros(1)})) == {"random_seed"}
    with pytest.raises(RequestError, match="no input top_k"):
        model.fit({"top_k": np.zeros(1)})
