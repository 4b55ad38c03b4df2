"""``labs build`` and ``labs generate``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FOLDER = click.Path(path_type=Path)


def _limit(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(f"--{name}", name, type=int, help=text)


@click.command()
@click.argument("checkpoint", type=_FOLDER)
@_limit("max_batch_size", "Requests served at once.  [default: 8]")
@_limit("max_input_len", "Tokens of a prompt.  [default: 1024]")
@_limit("max_seq_len", "Prompt and output together.  [default: the model's positions]")
@_limit("max_num_tokens", "Tokens of one step, over all requests.  [default: 1024]")
@_limit("max_beam_width", "Beams of a request.  [default: 1]")
@_limit("tokens_per_block", "Tokens in a block of the KV cache.  [default: 32]")
@click.option("--kv_cache_type", help="paged, the one that this engine has.")
@click.option("--gather_context_logits", is_flag=True, help="Logits of every prompt token can be asked for.")
@click.option("--gather_generation_logits", is_flag=True, help="Logits of every generated token can be asked for.")
@click.option("--workers", default=2, show_default=True, help="Compilers that run at once.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--backend", type=click.Choice(["torch", "tensorrt_llm"]), default="torch", show_default=True,
              help="tensorrt_llm: trtllm-build, run in its container and printed elsewhere.")  # fmt: skip
@click.option("--output", type=_FOLDER, help="The folder to write.  [default: work/engines/<model>/<recipe>]")
@click.option("--dry-run", is_flag=True, help="Print the options, or trtllm-build's line, and write nothing.")
@click.option("--force", is_flag=True, help="Build again, and replace OUTPUT whatever it is.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
def build(
    checkpoint: Path, workers: int, device: str, backend: str, output: Path | None, dry_run: bool, force: bool,
    quiet: bool, **options: Any,
) -> None:  # fmt: skip
    """Write an engine from a TensorRT-LLM CHECKPOINT, and print its folder. Options are those of trtllm-build."""
    from labsupport.checkpoint.config import read_config
    from labsupport.engine.build import build as make
    from labsupport.engine.build import default_output
    from labsupport.engine.build_config import build_config, resolve

    chosen = build_config(**{name: value for name, value in options.items() if value is not None})
    if backend == "tensorrt_llm":
        _tensorrt_llm(checkpoint, output or default_output(checkpoint, "trtllm"), chosen, workers, dry_run=dry_run)
        return
    if dry_run:
        resolved, notes = resolve(chosen, read_config(checkpoint))
        click.echo(resolved.model_dump_json(indent=2))
        for note in notes:
            click.echo(note, err=True)
        return
    done = make(
        checkpoint, chosen, output=output, device=device, workers=workers, force=force,
        progress=lambda phase: None if quiet else click.echo(f"  {phase}", err=True),
    )  # fmt: skip
    click.echo(done.folder)
    if not quiet:
        for note in done.report.notes:
            click.echo(note, err=True)
        size = sum(done.report.bytes.values())
        how = "built before from the same checkpoint and options" if done.skipped else f"{done.seconds:.1f} s"
        click.echo(f"{size / 1e6:.1f} MB, {len(done.report.kernels)} graphs, {how}", err=True)


def _tensorrt_llm(checkpoint: Path, output: Path, options: Any, workers: int, *, dry_run: bool) -> None:
    import shutil
    import subprocess

    from labsupport.checkpoint.config import read_config
    from labsupport.engine.build_config import resolve
    from labsupport.engine.real_stack import today, trtllm_build
    from labsupport.errors import EngineError

    resolved, _ = resolve(options, read_config(checkpoint))
    call = trtllm_build(checkpoint, output, resolved, workers=workers)
    click.echo(shlex.join(call))
    if dry_run or shutil.which(call[0]) is None:
        click.echo("not run here: trtllm-build comes with the container of TensorRT-LLM; legacy since 1.0", err=True)
        click.echo(f"today, without a build: {today(Path('MODEL'), resolved)}", err=True)
        return
    if subprocess.run(call, check=False).returncode:
        raise EngineError(
            "trtllm-build ended with an error",
            why="its own message stands above",
            fix=f"run it alone: {shlex.join(call)}",
        )
    click.echo(output)


@click.command()
@click.argument("engine", type=_FOLDER)
@click.argument("prompt")
@click.option("--tokenizer", help="The model's name or folder.  [default: work/checkpoints/<the engine's parent>]")
@click.option("--max-tokens", default=64, show_default=True, help="Tokens to write at most.")
@click.option("--temperature", type=float)
@click.option("--top-k", type=int)
@click.option("--top-p", type=float)
@click.option("--seed", type=int, default=0, show_default=True, help="0 is what TensorRT-LLM takes when none is given.")
@click.option("--raw", is_flag=True, help="PROMPT as it is, without the chat template.")
def generate(
    engine: Path, prompt: str, tokenizer: str | None, max_tokens: int, temperature: float | None, top_k: int | None,
    top_p: float | None, seed: int, raw: bool,
) -> None:  # fmt: skip
    """Run PROMPT through an ENGINE folder, and print the text as it comes."""
    from labsupport.engine.runner import Runner
    from labsupport.models import load_tokenizer

    engine = engine.expanduser().resolve()
    words = load_tokenizer(tokenizer or engine.parent.name)
    chat = not raw and words.chat_template
    turn = [{"role": "user", "content": prompt}]
    ids = (words.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
           if chat else words(prompt)["input_ids"])  # fmt: skip
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    settings = {name: value for name, value in given.items() if value is not None}
    shown, so_far = "", list[int]()
    ends = [words.eos_token_id]
    for result in Runner(engine).stream(ids, max_new_tokens=max_tokens, seed=seed, end_ids=ends, **settings):
        so_far += result.output_token_ids[0]
        text = words.decode(so_far, skip_special_tokens=True)
        if not text.endswith("\ufffd"):  # half a character: its other bytes come with the next token
            click.echo(text[len(shown) :], nl=False)
            shown = text
    click.echo()
