"""``labs serve`` and ``labs chat``."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from labsupport.serving.server import Server

GRACE_S = 10.0
QUESTION = "The capital of France is"


@click.command()
@click.argument("source", required=False)
@click.option("--dtype", default="auto", show_default=True, help="Of the checkpoint, where one must be made.")
@click.option("--port", type=click.IntRange(1, 65533), help="Of HTTP; gRPC and metrics on the next two.  [default: 8000"
              ", or free ones]")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Who may connect: 0.0.0.0 is everybody.")
@click.option("--once", metavar="PROMPT", help="Stream one answer, print the seconds from this command to its first "
              "token, and stop.")  # fmt: skip
@click.option("--container", is_flag=True, help="Print the call that serves it in the pinned NVIDIA container.")
def serve(source: str | None, dtype: str, port: int | None, host: str, once: str | None, container: bool) -> None:
    """Serve SOURCE with Triton until Ctrl-C: a repository, an engine, a checkpoint, or a model (labs models).

    What is missing on the way to a repository is made first.
    """
    from labsupport.errors import ParameterError
    from labsupport.serving.address import Address, is_free
    from labsupport.serving.client import Client
    from labsupport.serving.container import container_command
    from labsupport.serving.making import repository_for
    from labsupport.serving.sampling import Sampling
    from labsupport.serving.server import Server

    if Address.from_environment() and not container:
        raise ParameterError(
            "TRITON_URL names a server that runs already",
            why="then nothing is started here",
            fix="unset TRITON_URL; or talk to that server: labs chat",
        )
    repository = repository_for(source, dtype=dtype, say=lambda line: click.echo(line, err=True))
    if container:
        click.echo(shlex.join(container_command(repository, Address(port or 8000, host))))
        click.echo("not run here; the engine must have been built in the same image", err=True)
        return
    chosen = port or (8000 if is_free(Address(8000, host)) else None)
    try:
        with Server(repository, port=chosen, host=host, grace=GRACE_S) as server:
            if once is None:
                _print_ready(server)
                server.wait()
            else:
                with Client(server.address) as client, client.stream(once, Sampling(max_tokens=32)) as stream:
                    first = 0.0
                    for chunk in stream:
                        first = first or _since_start()
                        click.echo(chunk.text, nl=False)
                click.echo()
                click.echo(f"ready after {server.ready_s:.1f} s; first token {first:.1f} s after the command", err=True)
    except KeyboardInterrupt:
        click.echo("stopped", err=True)


def _print_ready(server: Server) -> None:
    address = server.address
    body = '{"text_input": "%s", "max_tokens": 16}' % QUESTION  # noqa: UP031
    click.echo(
        f"ready after {server.ready_s:.1f} s: HTTP {address.http}, gRPC {address.grpc}, metrics {address.metrics}"
    )
    click.echo(f"  curl -s {address.http}/v2/models/tensorrt_llm_bls/generate -d '{body}'")
    click.echo(f"  labs chat {address.http}")
    click.echo("Ctrl-C stops it")


def _since_start() -> float:
    """Seconds since this process was started, imports included."""
    import psutil

    return time.time() - psutil.Process().create_time()


@click.command()
@click.argument("url", required=False)
@click.option("--model", default="tensorrt_llm_bls", show_default=True, help="The served model to talk to.")
@click.option("--system", help="What the model is told first.")
@click.option("--max-tokens", default=256, show_default=True, help="Tokens of an answer at most.")
@click.option("--temperature", type=float)
@click.option("--top-k", type=int)
@click.option("--top-p", type=float)
@click.option("--seed", type=int, help="The server's default is 0, so that a sampled answer repeats itself.")
def chat(
    url: str | None, model: str, system: str | None, max_tokens: int, temperature: float | None, top_k: int | None,
    top_p: float | None, seed: int | None,
) -> None:  # fmt: skip
    """Talk to the server at URL (HOST:PORT of HTTP; $TRITON_URL, else 127.0.0.1:8000).

    /reset forgets what was said, /exit or Ctrl-D ends. Ctrl-C cancels an answer, not the chat. Lines may be piped in.
    """
    from labsupport.errors import LabError
    from labsupport.serving.chat import Chat
    from labsupport.serving.client import Client
    from labsupport.serving.sampling import Sampling

    sampling = Sampling(max_tokens, temperature, top_k, top_p, seed)
    with Client(url, model=model) as client:
        client.about()
        talk = Chat(client, sampling, system)
        while (line := _next_line()) is not None:
            if line == "/exit":
                break
            if line == "/reset":
                talk.reset()
                click.echo("(forgotten)", err=True)
                continue
            if not line:
                continue
            answer = talk.say(line)
            try:
                for piece in answer:
                    click.echo(piece, nl=False)
                click.echo()
            except KeyboardInterrupt:
                answer.close()
                click.echo(" (cancelled)")
            except LabError as problem:
                if not sys.stdin.isatty():
                    raise
                click.echo(f"\n{problem}", err=True)


def _next_line() -> str | None:
    """The next line without its ends; None when there is none."""
    while True:
        try:
            if sys.stdin.isatty():
                import readline  # noqa: F401

                return input("> ").strip()
            line = sys.stdin.readline()
            return line.strip() if line else None
        except EOFError:
            return None
        except KeyboardInterrupt:
            click.echo("\n(Ctrl-D ends)", err=True)
