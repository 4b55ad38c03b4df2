"""The ``labs`` command: one verb a room. A verb's room is imported when the verb is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from labsupport import __version__
from labsupport.errors import LabError

# verb -> (the click command's home, one line of help). The help stands here so that `labs --help` imports no room.
VERBS = {
    "doctor": ("labsupport.doctor.commands:doctor", "What this machine can do, and how to mend what it cannot."),
    "memory": ("labsupport.engine.ledger_command:memory", "What a model takes on a device, with the formula."),
    "models": ("labsupport.models.commands:models", "The models that the labs know."),
    "fetch": ("labsupport.models.commands:fetch", "Bring a model into the workspace."),
    "convert": ("labsupport.checkpoint.commands:convert", "Hugging Face folder -> TensorRT-LLM checkpoint."),
    "quantize": ("labsupport.checkpoint.quantize.commands:quantize", "Model -> TensorRT-LLM checkpoint of fewer bits."),
    "inspect": ("labsupport.checkpoint.commands:inspect", "Show what a TensorRT-LLM checkpoint holds."),
    "verify": ("labsupport.checkpoint.commands:verify", "Prove a checkpoint: structure, round trip, execution."),
    "build": ("labsupport.engine.commands:build", "Checkpoint -> engine, compiled ahead of time."),
    "generate": ("labsupport.engine.commands:generate", "Run a prompt through an engine."),
    "assemble": ("labsupport.repository.commands:assemble", "Engine + tokenizer -> Triton model repository."),
    "lint-repo": ("labsupport.repository.commands:lint_repo", "Pre-flight for any TensorRT-LLM model repository."),
    "respond": ("labsupport.validation.commands:respond", "Ask a target all variations of a file of prompts."),
    "compare": ("labsupport.validation.commands:compare", "Two targets' responses side by side, in colors and signs."),
    "replay": ("labsupport.validation.commands:replay", "A seeded answer, replayed token by token."),
    "trace": ("labsupport.validation.commands:trace", "A request's numbers on their way to the sampler, bit by bit."),
    "validate": ("labsupport.validation.commands:validate", "Is an engine or a server right? A ladder of checks."),
    "mutation-matrix": (
        "labsupport.validation.mutations.commands:mutation_matrix",
        "How good is the ladder? Faults, planted one by one.",
    ),
    "serve": ("labsupport.serving.commands:serve", "Serve a repository or a model with Triton."),
    "chat": ("labsupport.serving.commands:chat", "Talk to a served model."),
    "bench": ("labsupport.benchmark.commands:bench", "Measure, and print what was measured."),
    "run": ("labsupport.labs.commands:run", "Run labs headless, each in a fresh kernel."),
    "lab": ("labsupport.labs.commands:lab", "Open JupyterLab on learner copies."),
    "learner": ("labsupport.labs.commands:learner", "Write learner copies: no solutions, and they still run."),
    "lint": ("labsupport.labs.commands:lint", "Hold the labs against the house rules."),
    "handout": ("labsupport.labs.commands:handout", "Executed notebook -> self-contained HTML, and PDF."),
}


class Verbs(click.Group):
    """A group that imports a verb's room when the verb is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in VERBS:
            return None
        module, attribute = VERBS[name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs, in the order of the data"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="labs")
def labs() -> None:
    """Hands-on labs on serving language models, and the tools that they teach."""


def main() -> None:
    """Entry point: a LabError is printed as one block, and the exit code is 1."""
    try:
        labs()
    except LabError as error:
        click.echo(click.style("error: ", fg="red", bold=True, reset=True) + str(error), err=True)
        sys.exit(1)
