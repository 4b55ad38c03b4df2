"""From a part of the network to a program for the compiler: ``torch.export``, with what may vary from call to call.

Three graphs of each kind: ``context`` runs any number of tokens of one sequence, ``1`` and ``8`` run one token of so
many sequences; on a GPU there is ``64`` too. A step with fewer sequences than a graph has rows is filled up; one with
more is run in turns.

Source: PyTorch 2.13, ``torch.export``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from labsupport.engine.build_config import BuildConfig
from labsupport.engine.compiler import Exported
from labsupport.engine.paged import look_back
from labsupport.engine.parts import HeadGraph, LayerGraph, Part, Parts
from labsupport.engine.products import Many, for_few_rows

CONTEXT = "context"
ROWS = {"cpu": (1, 8), "cuda": (1, 8, 64)}  # sequences of a generation graph
EXAMPLE = {"cpu": (5, 3), "cuda": (100, 16)}  # tokens of a prompt and blocks; kernels for a GPU are tuned for these
FEW = {"cpu": (1, 8), "cuda": (1,)}  # of these the loops of ``products`` are faster than the library


def rows_of(options: BuildConfig, device: str) -> tuple[int, ...]:
    """The generation graphs that an engine needs: one row, and more where it serves several.

    Example:
        >>> rows_of(BuildConfig(max_batch_size=4), "cpu"), rows_of(BuildConfig(max_batch_size=16), "cuda")
        ((1, 8), (1, 8, 64))
    """
    below = [rows for rows in ROWS[device] if rows < options.max_rows]
    return ROWS[device][: len(below) + 1]


def products(device: str, dtype: str) -> Many:
    """The product of matrices for prompts: the library's; where a CPU computes in float32, with its sides exchanged."""
    native = dtype == "bfloat16" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return F.linear if device != "cpu" or native else weights_first


def weights_first(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``weight @ x.T`` in float32: the library need not turn the weights, which are the larger side."""
    wide = torch.mm(weight.float(), x.flatten(0, -2).float().t()).t()
    return torch.unflatten((wide if bias is None else wide + bias).to(x.dtype), 0, x.shape[:-1])


def export_graphs(parts: Parts, options: BuildConfig) -> list[Exported]:
    """Every graph of the engine, as ``torch.export`` writes it."""
    kinds = {part.kind: part for part in parts.layers}
    jobs: list[tuple[str, Callable[[], Any]]] = []
    for part in kinds.values():
        for form in (CONTEXT, *rows_of(options, parts.device)):
            jobs.append((f"{part.kind}.{form}", lambda part=part, form=form: _export_layer(parts, part, options, form)))  # type: ignore[misc]
    head_forms = ([CONTEXT] if options.gather_context_logits else []) + list(rows_of(options, parts.device))
    for form in head_forms:
        jobs.append((f"head.{form}", lambda form=form: _export_head(parts, form)))  # type: ignore[misc]
    found = []
    for name, export in jobs:
        written = io.BytesIO()
        program = export()
        leaves = tree_leaves(program.example_inputs)
        forms = [(list(x.shape), str(x.dtype).removeprefix("torch."), str(x.device)) for x in leaves]
        program.example_inputs = None  # they hold weights, and the graph needs their shapes alone
        torch.export.save(program, written)
        found.append(Exported(name, written.getvalue(), forms))
    return found


@torch.no_grad()
def _export_layer(parts: Parts, part: Part, options: BuildConfig, form: Any) -> torch.export.ExportedProgram:
    device, block = _device(part), options.tokens_per_block
    tokens, width = EXAMPLE[parts.device]
    rows = tokens if form == CONTEXT else form
    table = torch.zeros((width,) if form == CONTEXT else (rows, width), dtype=torch.int64, device=device)
    at = look_back(torch.arange(rows, device=device), table, block, None)
    x = torch.zeros(1, rows, parts.config.hidden_size, dtype=getattr(torch, parts.config.dtype), device=device)
    pools = [
        torch.zeros(7, block, shape.heads, shape.size, dtype=x.dtype, device=device)
        for shape in part.pools
        for _ in range(2)
    ]
    blocks, pooled = torch.export.Dim("blocks", min=2, max=4096), torch.export.Dim("pooled", min=2, max=1 << 22)
    keys = block * blocks
    dynamic: list[Any] = [{}, {}, {}, {}, {1: blocks}, {1: keys}]
    if form == CONTEXT:
        many = torch.export.Dim("tokens", min=2, max=1 << 16)
        dynamic = [{1: many}, {0: many}, {0: many}, {0: many}, {0: blocks}, {0: many, 1: keys}]
    dynamic += [*({0: pooled} for _ in pools), *({} for _ in part.names)]
    for_few_rows(part.module, form in FEW[parts.device])
    inputs = (x, at.positions, at.block, at.offset, at.table, at.bias, *pools, *part.weights())
    return _export(LayerGraph(part), inputs, (*dynamic[:6], tuple(dynamic[6:])))


@torch.no_grad()
def _export_head(parts: Parts, form: Any) -> torch.export.ExportedProgram:
    part = parts.head
    rows = 5 if form == CONTEXT else form
    x = torch.zeros(1, rows, parts.config.hidden_size, dtype=getattr(torch, parts.config.dtype), device=_device(part))
    first: dict[int, Any] = {1: torch.export.Dim("tokens", min=2, max=1 << 16)} if form == CONTEXT else {}
    for_few_rows(part.module, form in FEW[parts.device])
    return _export(HeadGraph(part), (x, *part.weights()), (first, tuple({} for _ in part.names)))


def _export(module: LayerGraph | HeadGraph, inputs: tuple[Tensor, ...], dynamic: Any) -> torch.export.ExportedProgram:
    template = module.template
    held = dict(template.state_dict(keep_vars=True))
    # the weights are inputs; the template's own would be written into the program a second time
    template.to("meta")
    try:
        return torch.export.export(
            module, inputs, dynamic_shapes=dynamic, strict=False, prefer_deferred_runtime_asserts_over_guards=True
        )
    finally:
        template.to_empty(device=inputs[0].device)
        template.load_state_dict(held, assign=True)


def _device(part: Part) -> torch.device:
    return part.weights()[0].device
