"""Bad input and faults on the real server with the real SmolLM2 in float32: it refuses clearly, and goes on serving.

The tests share a server; the last two kill processes of it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache

import psutil
import pytest
from faults_made import BLS, ENGINE, OVER_GRPC, OVER_HTTP, QUESTION, by_grpc, by_http
from triton_local import needs_triton

from labsupport.errors import LabError, ParameterError, RequestError, ServerError
from labsupport.repository.assemble import assemble
from labsupport.repository.model_config import Options as RepositoryOptions
from labsupport.serving import Address, AsyncClient, Client, Sampling, Server

pytestmark = [needs_triton, pytest.mark.real_model]
Show = Callable[[str], None]
QUEUE, SLOTS, STREAMS, TOKENS = 64, 8, 64, 32
SUBJECTS = ("cats", "rivers", "Rome", "snow", "bread", "the Moon", "iron", "trains")
PROMPTS = [f"A short story about {subject}:" for subject in SUBJECTS]
VANISHING = """
import os, sys
from labsupport.serving import Client, Sampling
stream = Client(sys.argv[1]).stream("Once upon a time", Sampling(max_tokens=900))
next(stream)
print("first", flush=True)
for chunk in stream:
    pass
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from labsupport.checkpoint.convert import convert
    from labsupport.checkpoint.convert_plan import Options
    from labsupport.engine.build import build
    from labsupport.models import fetch

    model = fetch("smollm2-135m-instruct")
    engine = build(convert(model, Options("float32")).folder).folder
    folder = tmp_path_factory.mktemp("faults") / "repository"
    repository = assemble(engine, model, RepositoryOptions(max_queue_size=QUEUE), output=folder).folder
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)  # the engine takes all cores, as for everybody
        with Server(repository) as running:
            yield running


@cache
def solo(address: Address, prompt: str) -> str:
    """The answer to a prompt that is alone in the server."""
    with Client(address) as client:
        return client.stream(prompt, Sampling(max_tokens=TOKENS, min_tokens=TOKENS)).answer().text


def serves(address: Address) -> bool:
    with Client(address) as client:
        return client.generate(QUESTION, Sampling(max_tokens=1)).text == " Paris"


def active(address: Address) -> int:
    """Requests that are open in the engine, by the metrics."""
    with urllib.request.urlopen(f"http://{address.metrics}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    (found,) = re.findall(r'^nv_trt_llm_request_metrics{.*request_type="active".*} (\S+)$', text, re.M)
    return int(float(found))


def until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until the condition holds."""
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < seconds, "it never came to that"
        time.sleep(0.02)
    return time.perf_counter() - began


# --- requests that nobody can serve ---


def test_malformed_requests_over_grpc(server: Server, show: Show) -> None:
    wrong = []
    for name, (model, tensors, message) in OVER_GRPC.items():
        said = by_grpc(server.address, model, tensors)
        show(f"{name:40}{said.split('NOTE')[0].splitlines()[0][:150]}")
        clear = "output" in said if message is None else message in said
        if not clear or "Traceback" in said or not serves(server.address):
            wrong.append((name, said))
    assert wrong == []
    assert len(OVER_GRPC) >= 40


def test_malformed_requests_over_http(server: Server, show: Show) -> None:
    wrong = []
    for name, (path, body, status, message) in OVER_HTTP.items():
        code, said = by_http(server.address, path, body)
        show(f"{name:40}{code} {said[:150]}")
        if code != status or message not in said or "Traceback" in said or not serves(server.address):
            wrong.append((name, code, said))
    assert wrong == []
    assert until(lambda: active(server.address) == 0, 3) < 1


@pytest.mark.parametrize(
    ("prompt", "sampling", "said"),
    [
        (QUESTION, Sampling(max_tokens=2**40), "max_tokens 1099511627776 does not fit"),
        (QUESTION, Sampling(seed=-1), "seed -1 does not fit"),
        (QUESTION, Sampling(top_k=1.5), "top_k 1.5 does not fit"),  # type: ignore[arg-type]
        (QUESTION, Sampling(temperature="hot"), "temperature hot does not fit"),  # type: ignore[arg-type]
        ("half a character: \ud83d", Sampling(), "does not fit"),
    ],
)
def test_what_no_tensor_can_hold_does_not_leave_the_client(
    server: Server, prompt: str, sampling: Sampling, said: str
) -> None:
    with Client(server.address) as client, pytest.raises(ParameterError, match=said):
        client.generate(prompt, sampling)


def test_the_longest_request(server: Server) -> None:
    """Input and sequence as long as the engine's limits; and one token more of each."""
    with Client(server.address, model=ENGINE) as client:
        assert len(client.generate([504] * 1024, Sampling(max_tokens=2)).ids) == 2
        with pytest.raises(RequestError) as caught:
            client.generate([504] * 1025, Sampling(max_tokens=2))
        assert "Prompt length (1025) exceeds maximum input length (1024)" in caught.value.why
        assert server.log
        for beyond in (0, 1):
            with client.stream([504] * 1024, Sampling(max_tokens=8192 - 1024 + beyond)) as stream:
                assert len(next(stream).ids) == 1
            shortened = "max_tokens is reduced to 7168" in server.log.read_text()
            assert shortened == bool(beyond)
    assert until(lambda: active(server.address) == 0, 3) < 1


# --- many at once ---


def test_64_streams_at_once_are_those_of_solo_runs(server: Server, show: Show) -> None:
    began = time.perf_counter()
    expected = {prompt: solo(server.address, prompt) for prompt in PROMPTS}
    one = len(PROMPTS) * TOKENS / (time.perf_counter() - began)
    assert len(set(expected.values())) == len(PROMPTS)

    async def ask_all() -> list[str]:
        async with AsyncClient(server.address) as client:
            ask = Sampling(max_tokens=TOKENS, min_tokens=TOKENS)
            asked = [PROMPTS[n % len(PROMPTS)] for n in range(STREAMS)]
            streams = await asyncio.gather(*(client.stream(prompt, ask) for prompt in asked))
            return [answer.text for answer in await asyncio.gather(*(stream.answer() for stream in streams))]

    began = time.perf_counter()
    found = asyncio.run(ask_all())
    many = STREAMS * TOKENS / (time.perf_counter() - began)
    show(f"\n1 stream {one:.0f} tokens/s, {STREAMS} streams in {SLOTS} slots {many:.0f}: {many / one:.2f} times")
    wrong = {n: (text, PROMPTS[n % len(PROMPTS)]) for n, text in enumerate(found)
             if text != expected[PROMPTS[n % len(PROMPTS)]]}  # fmt: skip
    assert wrong == {}
    assert many / one > 1.5, "a batch is no faster than its requests one by one"


def test_a_full_queue_refuses_and_recovers(server: Server, show: Show) -> None:
    async def crowd() -> list[str]:
        said = []
        async with AsyncClient(server.address) as client:
            await client.about()

            async def one(number: int) -> None:
                stream = await client.stream(f"Once upon a time {number}", Sampling(max_tokens=500))
                try:
                    await stream.answer()
                except RequestError as problem:
                    said.append(f"{problem.why}; {problem.fix}")

            tasks = [asyncio.create_task(one(number)) for number in range(SLOTS + QUEUE + 12)]
            deadline = time.perf_counter() + 20
            while len(said) < 12 and time.perf_counter() < deadline:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return said

    said = asyncio.run(crowd())
    assert 12 <= len(said) <= 12 + SLOTS
    assert all(re.search("[Mm]aximum queue size.*; ask again later", one) for one in said)
    took = until(lambda: active(server.address) == 0, 30)
    show(f"{len(said)} of {SLOTS + QUEUE + 12} refused: {said[0]}; all slots free {took:.2f} s after the rest left")
    assert serves(server.address)


# --- clients and processes that vanish ---


def test_a_client_that_vanishes_frees_its_slot_within_a_second(server: Server, show: Show) -> None:
    """Its connection is reset, or its process killed: nobody says goodbye."""
    body = b'{"text_input": "Once upon a time", "max_tokens": 900, "stream": true}'
    head = f"POST /v2/models/{BLS}/generate_stream HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((server.address.host, server.address.port)) as connection:
        connection.sendall(head.encode() + body)
        while b"data:" not in connection.recv(4096):
            pass
        assert until(lambda: active(server.address) == 1, 2) < 2
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets
    reset = until(lambda: active(server.address) == 0, 5)
    child = subprocess.Popen([sys.executable, "-c", VANISHING, server.address.http], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "first\n"
    assert until(lambda: active(server.address) == 1, 2) < 2
    child.kill()
    child.wait()
    killed = until(lambda: active(server.address) == 0, 5)
    show(f"\nHTTP connection reset: free after {reset:.2f} s; gRPC process killed: free after {killed:.2f} s")
    assert max(reset, killed) < 1
    assert serves(server.address)


def stub(server: Server, model: str) -> psutil.Process:
    """The process of a Python model."""
    (found,) = (
        process
        for process in psutil.Process(server.pid).children(recursive=True)
        if process.status() != psutil.STATUS_ZOMBIE and f"/{model}/1/model.py" in " ".join(process.cmdline())
    )
    return found


@pytest.mark.parametrize("model", ["preprocessing", "tensorrt_llm"])
def test_a_killed_process_of_a_model(server: Server, model: str, show: Show) -> None:
    """Whoever waits is told within three seconds; the server comes back by itself at the same address."""
    told: list[tuple[float, str]] = []
    killed = 0.0

    def ask(protocol: str) -> None:
        with Client(server.address, protocol=protocol, timeout=30) as client:  # type: ignore[arg-type]
            try:
                for _ in client.stream(f"Once upon a time, by {protocol}", Sampling(max_tokens=900)):
                    pass
            except LabError as problem:
                told.append((time.perf_counter() - killed, f"{problem.what}: {problem.why}"))

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(ask, protocol) for protocol in ("grpc", "http")]
        assert until(lambda: active(server.address) == 2, 10) < 10
        killed = time.perf_counter()
        stub(server, model).kill()
        for one in running:
            one.result()
    with suppress(ServerError):
        ask("grpc")  # nobody hangs who comes meanwhile
    until(lambda: server.address.is_ready(), 60)
    recovered = time.perf_counter() - killed
    assert server.is_alive
    assert serves(server.address)
    assert server.log
    assert "the process of a model was killed" in server.log.read_text()
    for seconds, message in told[:2]:
        show(f"\n{model} killed: told after {seconds:.2f} s: {message}")
    show(f"serving again after {recovered:.1f} s")
    assert len(told) >= 2, "a stream that broke off was taken for a whole one"
    assert max(seconds for seconds, _ in told[:2]) < 3
