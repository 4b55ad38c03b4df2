"""Is a folder a TensorRT-LLM checkpoint? Every rule is a function from the checkpoint to what it finds wrong.

Nothing is executed and no original model is needed: config, files, names, shapes, types, and the values that every
rank must agree on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from labsupport.checkpoint.config import CONFIG
from labsupport.checkpoint.expected import CHECKED, QUANTIZED_AT_BUILD, expected, is_quantized
from labsupport.checkpoint.findings import Finding, Opened, opened
from labsupport.checkpoint.layout_cut import check_mapping
from labsupport.checkpoint.structure_values import finite, positive_scales, replicas
from labsupport.errors import LabError

CONVERT = "convert the model again: labs convert"
Rule = Callable[[Opened], Iterator[Finding]]


def check_structure(folder: Path) -> list[Finding]:
    """All findings of all rules, in the order of ``RULES``; an empty list means that the structure is sound.

    When the config cannot be read, or the model cannot be spread as it says, that is the only finding: every other
    rule needs to know what to expect.
    """
    try:
        with opened(folder) as checkpoint:
            if spread := list(divisible(checkpoint)):
                return spread
            return [finding for rule in RULES for finding in rule(checkpoint)]
    except LabError as error:
        return [Finding.of("config", error)]


def divisible(checkpoint: Opened) -> Iterator[Finding]:
    """Heads, KV heads and widths divide by tp_size; only some families have pipeline stages."""
    try:
        check_mapping(checkpoint.config)
    except LabError as error:
        yield Finding("mapping", f"{checkpoint.folder / CONFIG}: {error.what}", error.why, error.fix)


def family_keys(checkpoint: Opened) -> Iterator[Finding]:
    """Keys that a family's loader reads without a default, or with a default that is wrong for real models."""
    raw, architecture = checkpoint.raw, checkpoint.config.architecture
    needed: dict[str, str] = {}
    if architecture.startswith("Gemma"):
        needed["head_size"] = "Gemma's heads are wider than hidden_size / num_attention_heads, the default"
        if "tp_size" not in raw.get("mapping", {}):
            yield _lacks(checkpoint, "mapping.tp_size", "Gemma's config reads it to decide on the embedding")
    if architecture in ("Gemma2ForCausalLM", "Gemma3ForCausalLM"):
        needed["query_pre_attn_scalar"] = "without it the attention scores are scaled by sqrt(head_size)"
    if architecture in ("Gemma3ForCausalLM", "Qwen3ForCausalLM"):
        needed["qk_layernorm"] = "when it is missing it counts as false, and the norms of queries and keys are not read"
    if architecture == "Qwen3ForCausalLM":
        needed["attn_bias"] = "when it is missing it counts as true, as in Qwen2, and a bias is asked for"
    if architecture == "OPTForCausalLM":
        needed["do_layer_norm_before"] = "when it is missing it counts as false, which is right for OPT-350m alone"
    for key, why in needed.items():
        if raw.get(key) is None:
            yield _lacks(checkpoint, key, why)
    if checkpoint.config.position_embedding_type == "rope_gpt_neox" and raw.get("rotary_base") is None:
        yield Finding(
            "config",
            f"{checkpoint.folder / CONFIG} does not say rotary_base",
            f"{getattr(checkpoint.config, 'rotary_base', 10000.0):,.0f} is taken, and many models have another one",
            "write the model's rope_theta as rotary_base, or " + CONVERT,
            "warning",
        )


def files(checkpoint: Opened) -> Iterator[Finding]:
    """There is a readable file for each rank, and none besides."""
    yield from checkpoint.unreadable
    wanted = {f"rank{rank}.safetensors" for rank in range(checkpoint.config.mapping.files)}
    for extra in sorted({path.name for path in checkpoint.folder.glob("rank*.safetensors")} - wanted):
        yield Finding(
            "files",
            f"{checkpoint.folder / extra} belongs to no rank",
            f"mapping asks for {len(wanted)} ranks; the file may be left from another conversion",
            "remove it",
            "warning",
        )


def names(checkpoint: Opened) -> Iterator[Finding]:
    """Each rank holds the tensors of its architecture and place: none is missing; what is extra is not read."""
    for rank, file in checkpoint.ranks.items():
        forms, held = expected(checkpoint.config, rank), set(file.tensors)
        missing = [name for name in forms if name not in held]
        extra = sorted(name for name in held - set(forms) if not _unknown(checkpoint, name))
        table = file.tensors.get("transformer.vocab_embedding.weight")
        if missing == ["lm_head.weight"] and table is not None and table.shape == forms["lm_head.weight"].shape:
            yield Finding(
                "names",
                f"{file.path} has no lm_head.weight",
                "trtllm-build then takes transformer.vocab_embedding.weight for it, which fits tied tables only",
                CONVERT + ", which always writes it",
                "warning",
            )
        elif missing and (first := _first_layer(extra)) and first == checkpoint.config.layers_of(rank).start:
            yield Finding(
                "names",
                f"{file.path} counts its layers from {first}",
                "layers are counted from 0 on each pipeline stage, not over the whole model",
                "rename transformer.layers.<n> to start at 0, or " + CONVERT,
            )
            continue
        elif missing:
            yield Finding(
                "names",
                f"{file.path} has no {missing[0]}" + _and_more(missing),
                "trtllm-build stops: the tensor is required but not provided",
                CONVERT,
            )
        if extra:
            yield Finding(
                "names",
                f"{file.path} has the extra tensor {extra[0]}" + _and_more(extra),
                "trtllm-build warns and does not read it; a tensor under a wrong name looks like this as well",
                "remove it, if it is not needed",
                "warning",
            )


def shapes(checkpoint: Opened) -> Iterator[Finding]:
    """Each tensor has the shape that the config gives it on this rank."""
    for rank, file in checkpoint.ranks.items():
        for name, form in expected(checkpoint.config, rank).items():
            info = file.tensors.get(name)
            if info is None or info.shape == form.shape:
                continue
            turned = (
                " It looks transposed: linear weights are stored (out, in)." if info.shape == form.shape[::-1] else ""
            )
            yield Finding(
                "shapes",
                f"{name} in {file.path} is {_size(info.shape)}, not {_size(form.shape)}",
                f"this is what config.json makes of it on rank {rank} of {checkpoint.config.mapping.files}.{turned}",
                CONVERT,
            )


def types(checkpoint: Opened) -> Iterator[Finding]:
    """Each tensor has the config's dtype, or the one that its quantization stores."""
    for rank, file in checkpoint.ranks.items():
        for name, form in expected(checkpoint.config, rank).items():
            info = file.tensors.get(name)
            if info is None or info.kind in form.kinds:
                continue
            algo = checkpoint.config.quantization.quant_algo
            if info.kind == "I8" and algo in QUANTIZED_AT_BUILD:
                why = f"{algo} takes int8 for weights already in the layout of one GPU; float weights work on all"
            else:
                why = f"config.json says dtype {checkpoint.config.dtype}" + (f", quant_algo {algo}" if algo else "")
            wanted = " or ".join(form.kinds)
            yield Finding("types", f"{name} in {file.path} is {info.kind}, not {wanted}", why, CONVERT)


def quantization(checkpoint: Opened) -> Iterator[Finding]:
    """What can be said about quantized weights without a GPU."""
    config, algo = checkpoint.config, checkpoint.config.quantization.quant_algo
    if not config.quantization.quantized:
        return
    if algo not in CHECKED:
        yield Finding(
            "quantization",
            f"the tensors of quant_algo {algo} are not known here",
            f"forms are written for {', '.join(CHECKED)}",
            "build it: trtllm-build checks them",
            "warning",
        )
    multiple = config.quantization.group_size if algo == "W4A16_AWQ" else 64
    for name, form in expected(config, 0).items():
        if name.endswith((".qkv.weight", ".dense.weight", ".fc.weight", ".gate.weight", ".proj.weight")):
            rows = form.shape[0] * (2 if algo == "W4A16_AWQ" else 1)
            if rows % 64 or form.shape[1] % multiple:
                yield Finding(
                    "quantization",
                    f"{name} is {_size((rows, form.shape[1]))} on each rank, and {algo} wants multiples of 64"
                    + (f" and {multiple}" if multiple != 64 else ""),
                    "kernels for few bits work on tiles; other sizes are padded by some loaders and refused by others",
                    "use a smaller tp_size, or another quant_algo",
                    "warning",
                )
                return


def _unknown(checkpoint: Opened, name: str) -> bool:
    """Whether a tensor belongs to a quantized module of a form that is not known here."""
    algo = checkpoint.config.quantization.quant_algo
    return algo not in CHECKED and is_quantized(checkpoint.config, name.rpartition(".")[0])


def _lacks(checkpoint: Opened, key: str, why: str) -> Finding:
    return Finding("config", f"{checkpoint.folder / CONFIG} lacks '{key}'", why, "add it, or " + CONVERT)


def _first_layer(extra: list[str]) -> int:
    layers = [int(found[1]) for name in extra if (found := re.match(r"transformer\.layers\.(\d+)\.", name))]
    # only layers past the rank's own count are extra, so look at the lowest index that the count can start from
    return min(layers, default=0)


def _and_more(found: list[str]) -> str:
    return f" and {len(found) - 1} more" if len(found) > 1 else ""


def _size(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"


RULES: tuple[Rule, ...] = (
    family_keys, files, names, shapes, types, quantization, finite, positive_scales, replicas,
)  # fmt: skip
