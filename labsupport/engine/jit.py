"""One exported program -> kernels for a GPU, kept: ``torch.compile``'s own compiler, and all that it wrote to disk.

A package is a zip of ``graph`` (the compiled function), ``constants`` (tensors that it takes before the inputs) and
``cache`` (its kernels, and the launch sizes that tuning found the fastest). Whoever loads it puts the cache where the
compiler looks first, and nothing is compiled or tuned a second time.

Source: PyTorch 2.11 and 2.13, ``torch._inductor.standalone_compile``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import labsupport.engine.gpu  # noqa: F401  # a graph calls its operations by name

GRAPH, CONSTANTS, CACHE = "graph", "constants", "cache/"
PLACE = "<the cache>"  # stands for the folder where Triton wrote its lists of files, which hold full paths
WHOLE = {"use_static_cuda_launcher": False}  # which would keep kernels as they were before tuning, beside the cache


class Graph:
    """A loaded package.

    Args:
        function: what the compiler made.
        constants: tensors that it takes before the inputs.
    """

    def __init__(self, function: Any, constants: Sequence[Tensor]) -> None:
        self._function, self._constants = function, constants

    def run(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Call the graph; pools among the inputs are written in place."""
        found: Sequence[Tensor] = self._function(*self._constants, *inputs)
        return found


def compile_program(program: torch.export.ExportedProgram, inputs: Sequence[Tensor], target: Path,
                    options: dict[str, Any]) -> None:  # fmt: skip
    """Compile ``program``, run it on ``inputs`` so that its kernels are tuned, and write the package ``target``.

    Whatever lies in the compiler's cache goes in too: give the process a cache of its own (TORCHINDUCTOR_CACHE_DIR).
    """
    from torch._inductor import config, standalone_compile
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    module, held = program.graph_module, {**program.state_dict, **program.constants}
    module.graph.set_codegen(torch.fx.graph.CodeGen())  # tensors in, tensors out: no nested arguments
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    constants = []
    for node, spec in zip(places, program.graph_signature.input_specs, strict=True):
        if spec.target is not None and node.users:
            constants.append(held[spec.target])
        elif spec.target is not None:
            module.graph.erase_node(node)  # weights of the template, which come as inputs
    module.recompile()
    known: list[Any] = [node.meta["val"] for node in module.graph.nodes if node.op == "placeholder"]
    for node in module.graph.output_node().all_input_nodes:
        node.meta["example_value"] = node.meta["val"]  # where the compiler looks for the symbols of the shapes
    _symbols_alone(known)
    # graphs are compiled side by side, each in a process of its own: none of them starts sixteen more
    with torch.no_grad(), config.patch({**WHOLE, "compile_threads": 1}):
        made = standalone_compile(module, known, options={"config_patches": {**options, **WHOLE}}, aot=True)
        made(*constants, *inputs)
        with TemporaryDirectory() as place:
            graph = Path(place) / GRAPH
            made.save(path=str(graph))
            torch.save(constants, Path(place) / CONSTANTS)
            _pack(Path(place), Path(cache_dir()), target)


def _symbols_alone(known: Sequence[Any]) -> None:
    """Drop the values of whole expressions: a program read from a file has them, and the compiler expects symbols."""
    for one in known:
        env = one.fake_mode.shape_env
        for held in (env.replacements, env.backed_var_to_val if hasattr(env, "backed_var_to_val") else env.var_to_val):
            for key in [key for key in held if not key.is_Symbol]:
                del held[key]


def load(package: Path) -> Graph:
    """Load a package in any process of the machine that it was made on."""
    from torch._inductor import config
    from torch._inductor.runtime.cache_dir_utils import cache_dir
    from torch._inductor.standalone_compile import CompiledArtifact

    with TemporaryDirectory() as place, config.patch({**WHOLE, "compile_threads": 1}):
        _unpack(package, Path(cache_dir()), Path(place))
        constants = torch.load(Path(place) / CONSTANTS)
        return Graph(CompiledArtifact.load(path=str(Path(place) / GRAPH)), constants)


def _pack(place: Path, cache: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in (GRAPH, CONSTANTS):
            archive.write(place / name, name)
        for path in sorted(cache.rglob("*")):
            if path.is_file() and path.suffix not in (".lock", ".o", ".gch"):
                raw = path.read_bytes()
                listed = path.suffix == ".json"
                name = CACHE + path.relative_to(cache).as_posix()
                archive.writestr(name, raw.replace(str(cache).encode(), PLACE.encode()) if listed else raw)


def _unpack(package: Path, cache: Path, place: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(place, [GRAPH, CONSTANTS])
        for name in archive.namelist():
            path = cache / name.removeprefix(CACHE)
            if name.startswith(CACHE) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                raw = archive.read(name)
                path.write_bytes(raw.replace(PLACE.encode(), str(cache).encode()) if path.suffix == ".json" else raw)
