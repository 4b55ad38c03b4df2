"""From a part of the network to machine code, ahead of time: ``torch.export``, then AOTInductor.

Three graphs of each kind: ``context`` runs any number of tokens of one sequence, ``1`` and ``8`` run one token of so
many sequences; on a GPU there is ``64`` too. A step with fewer sequences than a graph has rows is filled up; one with
more is run in turns.

Source: PyTorch 2.13, ``torch.export`` and ``torch._inductor.aoti_compile_and_package``.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_unflatten

from labsupport.engine.build_config import BuildConfig
from labsupport.engine.paged import look_back
from labsupport.engine.parts import HeadGraph, LayerGraph, Part, Parts
from labsupport.engine.products import Many, for_few_rows

CONTEXT = "context"
ROWS = {"cpu": (1, 8), "cuda": (1, 8, 64)}  # sequences of a generation graph
FEW = {"cpu": (1, 8), "cuda": (1,)}  # of these the loops of ``products`` are faster than the library
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "aot_inductor.package_constants_in_so": False,
        "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum may be one instruction
    },
    "cuda": {"aot_inductor.package_constants_in_so": False, "coordinate_descent_tuning": True},
}


@dataclass(frozen=True)
class Exported:
    """One graph before it is compiled.

    Args:
        name: ``layer.context``, ``layer.1``, ``head.8`` ...
        program: what ``torch.export.save`` wrote.
        inputs: shape, type and device of each example input.
    """

    name: str
    program: bytes
    inputs: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Compiled:
    """One graph.

    Args:
        name: as it was exported.
        path: the package.
        seconds: how long the compilation took.
    """

    name: str
    path: Path
    seconds: float


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
        forms = [(tuple(x.shape), x.dtype, str(x.device)) for x in tree_leaves(program.example_inputs)]
        program.example_inputs = None  # they hold weights, and the graph needs their shapes alone
        torch.export.save(program, written)
        found.append(Exported(name, written.getvalue(), forms))
    return found


@torch.no_grad()
def _export_layer(parts: Parts, part: Part, options: BuildConfig, form: Any) -> torch.export.ExportedProgram:
    device, block = _device(part), options.tokens_per_block
    rows = 5 if form == CONTEXT else form
    table = torch.zeros((3,) if form == CONTEXT else (rows, 3), dtype=torch.int64, device=device)
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
        tokens = torch.export.Dim("tokens", min=2, max=1 << 16)
        dynamic = [{1: tokens}, {0: tokens}, {0: tokens}, {0: tokens}, {0: blocks}, {0: tokens, 1: keys}]
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
        return torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)
    finally:
        template.to_empty(device=inputs[0].device)
        template.load_state_dict(held, assign=True)


def _device(part: Part) -> torch.device:
    return part.weights()[0].device


def compile_graphs(
    exported: Sequence[Exported],
    folder: Path,
    *,
    device: str,
    workers: int,
    progress: Callable[[Compiled], object],
) -> list[Compiled]:
    """Compile every program to ``folder/<name>.pt2``, ``workers`` at a time, each in a process of its own.

    Raises:
        EngineError: there is no compiler, or it failed.
    """
    run = partial(_compile, folder=folder, device=device)
    made = []
    if workers == 1:
        for one in map(run, exported):
            made.append(one)
            progress(one)
    else:
        with ProcessPoolExecutor(min(workers, len(exported)), mp_context=get_context("spawn")) as pool:
            for one in pool.map(run, exported):
                made.append(one)
                progress(one)
    return made


def _compile(exported: Exported, folder: Path, device: str) -> Compiled:
    began, target = time.perf_counter(), folder / f"{exported.name}.pt2"
    program = torch.export.load(io.BytesIO(exported.program))
    program.example_inputs = (_inputs_of(program, exported.inputs), {})
    torch._inductor.aoti_compile_and_package(program, package_path=str(target), inductor_configs=OPTIONS[device])
    return Compiled(exported.name, target, time.perf_counter() - began)


def _inputs_of(program: torch.export.ExportedProgram, forms: Sequence[tuple[Any, ...]]) -> Any:
    leaves = [torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in forms]
    (arguments, _keywords) = tree_unflatten(leaves, program.call_spec.in_spec)
    return arguments
