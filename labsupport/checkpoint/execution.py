"""The last proof: the checkpoint is run, and its logits are held against those of transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labsupport.checkpoint.config import CONFIG, CheckpointConfig, read_config, read_json
from labsupport.checkpoint.findings import Finding
from labsupport.checkpoint.quantize.proof import check_divergence, is_lossy
from labsupport.checkpoint.roundtrip import restore
from labsupport.errors import CheckpointError

TEXT = "The capital of France is Paris, and a server that batches its requests still has to find that out, one by one. "
LENGTH, LONGEST = 48, 1024  # tokens, where no window asks for more; and where one does
ROUNDING = 5e-6  # of the largest logit: what float32 sums in another order may differ by


@dataclass(frozen=True)
class Execution:
    """What the run gave.

    Args:
        tokens: token ids that were run.
        difference: largest absolute difference of any logit; None without a reference.
        scale: largest absolute logit.
        findings: empty when the logits agree.
        divergence: mean KL to the reference in nats a token, where the checkpoint computes with fewer bits; then
            ``difference`` says nothing.
    """

    tokens: int
    difference: float | None
    scale: float
    findings: tuple[Finding, ...] = ()
    divergence: float | None = None


def check_execution(folder: Path, reference: Path | None, tolerance: float = 1e-4) -> Execution:
    """Run a checkpoint in float32 and compare its logits with those of transformers, where there is a reference.

    A checkpoint of 16 bits is compared with the original *as the checkpoint rounds it*, in float32 on both sides, so
    that the same tolerance holds: what is tested is the network, and the round trip has tested the rounding. One with
    fewer bits is allowed a mean divergence of ``proof.LOST``.

    Args:
        folder: the checkpoint.
        reference: the Hugging Face folder, or None: then the logits need only be finite.
        tolerance: on the absolute difference of each logit. Float32 carries 7 digits, so a network with logits beyond
            20 is allowed ``ROUNDING`` times its largest one instead.

    Raises:
        CheckpointError: the network cannot be built.
    """
    import torch

    from labsupport.checkpoint.network import load_network

    config = read_config(folder)
    tokens = torch.tensor([_tokens(config, reference)])
    network = load_network(folder)
    ours = Trace(network)
    with torch.no_grad():
        logits = network(tokens)
    del network
    scale = float(logits.abs().max())
    if not bool(logits.isfinite().all()):
        return Execution(tokens.numel(), None, scale, (_not_finite(folder),))
    if reference is None:
        return Execution(tokens.numel(), None, scale)
    with torch.no_grad():
        found = _original(reference, folder, config)(tokens, output_hidden_states=True)
    if is_lossy(config):
        lost, findings = check_divergence(folder, logits, found.logits)
        return Execution(tokens.numel(), None, scale, findings, lost)
    difference, allowed = float((logits - found.logits).abs().max()), max(tolerance, ROUNDING * scale)
    if difference <= allowed:
        return Execution(tokens.numel(), difference, scale)
    where = ours.first_difference(list(found.hidden_states), allowed)
    return Execution(tokens.numel(), difference, scale, (_differ(folder, reference, difference, allowed, where),))


class Trace:
    """Records the hidden states of a network while it runs, in the order of transformers: inputs, then each layer."""

    def __init__(self, network: Any) -> None:
        self.states: list[Any] = []
        parts = [part for stage in network.stages for part in (stage.inputs, *stage.layers) if part is not None]
        for part in parts:
            part.register_forward_hook(lambda _module, _inputs, output: self.states.append(output))

    def first_difference(self, others: list[Any], tolerance: float) -> str:
        """Where the states part first: ``after the embedding``, ``after layer 3``, or ``after the last layer``."""
        # the last state of transformers has been through the final norm, so it is not compared
        for index, (mine, other) in enumerate(zip(self.states[:-1], others[:-1], strict=False)):
            if float((mine - other).abs().max()) > tolerance:
                return f"after layer {index - 1}" if index else "after the embedding"
        return "after the last layer"


def _tokens(config: CheckpointConfig, reference: Path | None) -> list[int]:
    """Token ids: text where the reference has a tokenizer; longer than the window where that is in reach."""
    window = getattr(config, "sliding_window", None) or 0
    longest = min(LONGEST, config.max_position_embeddings or LONGEST)
    length = min(longest, window + LENGTH if window + LENGTH <= longest else LENGTH)
    ids = list(range(3, 3 + length))
    if reference is not None and (reference / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(reference / "tokenizer.json"))
        ids = tokenizer.encode(TEXT * (1 + length // 8)).ids[:length]
    return [token % config.vocab_size for token in ids]


def _original(reference: Path, folder: Path, config: CheckpointConfig) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    from labsupport.models.quiet import quiet_transformers

    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(reference, dtype=torch.float32, attn_implementation="eager")
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        raise CheckpointError(
            f"transformers cannot load the reference {reference}",
            why=str(problem).strip().splitlines()[0],
            fix="get the model again: labs fetch; or leave this check out: labs verify --no-execution",
        ) from problem
    if config.dtype != "float32" and not is_lossy(config):
        with torch.no_grad():
            for name, values in restore(folder):
                model.get_parameter(name).copy_(torch.from_numpy(values))
    return model.eval()


def _not_finite(folder: Path) -> Finding:
    return Finding(
        "execution",
        f"the logits of {folder} are not finite",
        "a weight is out of range, or a norm's epsilon is wrong",
        "look at the finite rule of the structure, and at norm_epsilon",
    )


def _differ(folder: Path, reference: Path, difference: float, tolerance: float, where: str) -> Finding:
    fields = config_differences(read_config(folder), reference)
    return Finding(
        "execution",
        f"the logits of {folder} differ from transformers' by up to {difference:.3g}, and {tolerance:.0e} is allowed",
        f"the hidden states part {where}; " + ("; ".join(fields) if fields else "the configs agree"),
        f"correct {folder / CONFIG}" if fields else "convert the model again: labs convert",
    )


def config_differences(config: CheckpointConfig, reference: Path) -> list[str]:
    """Fields of a checkpoint's config that are not what the Hugging Face config makes of them, one sentence each.

    Fields that change no logit here (``logits_dtype``, the mapping, how the embedding is cut) are not compared.
    """
    from labsupport.checkpoint.config_hf import config_from_hf
    from labsupport.checkpoint.network.mlp import ACTIVATIONS

    meant = config_from_hf(read_json(reference / CONFIG), dtype=config.dtype).model_dump()
    ours = config.model_dump()
    if ACTIVATIONS.get(ours["hidden_act"]) is ACTIVATIONS.get(meant["hidden_act"]):
        ours["hidden_act"] = meant["hidden_act"]  # two names of one formula
    return [
        f"config.json has {key} {ours.get(key)!r} where the original makes it {value!r}"
        for key, value in meant.items()
        if key not in _WITHOUT_EFFECT and ours.get(key) != value
    ]


_WITHOUT_EFFECT = (
    "architecture", "mapping", "quantization", "logits_dtype", "use_parallel_embedding", "embedding_sharding_dim",
    "seq_length", "qwen_type", "tie_word_embeddings", "_sliding_window_pattern", "max_position_embeddings",
)  # fmt: skip
