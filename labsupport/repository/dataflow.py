"""What the files of a repository say at a glance: the graph inside the ensemble, and the tree on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from labsupport.errors import RepositoryError
from labsupport.repository.assemble import ASSETS
from labsupport.repository.text_format import CONFIG, ModelConfig, read_model_config

CLIENT = "client"


class Edge(NamedTuple):
    """A tensor on its way between two models, each of which has its own name for it.

    Args:
        source, gives: who writes it, and what the writer calls it; None where nobody does.
        target, takes: who reads it, and what the reader calls it.
    """

    source: str | None
    gives: str | None
    target: str
    takes: str


class Entry(NamedTuple):
    """A line of a tree: how deep it stands, its name, a few words about it."""

    depth: int
    name: str
    note: str


def edges(ensemble: ModelConfig) -> list[Edge]:
    """The graph of an ensemble, in the order of its steps, from the maps of ``ensemble_scheduling``.

    A map's key is a model's own name, its value the ensemble's name for the tensor: two models are joined where one
    maps an output, and the other an input, to the same name. The client writes the inputs and reads the outputs.
    """
    nobody = (None, None)
    written: dict[str, tuple[str | None, str | None]]
    written = {entry.name: (CLIENT, entry.name) for entry in ensemble.input}
    found: list[Edge] = []
    for step in ensemble.ensemble_scheduling.step:
        for takes, tensor in step.input_map.items():
            source, gives = written.get(tensor, nobody)
            found.append(Edge(source, gives, step.model_name, takes))
        written |= {tensor: (step.model_name, gives) for gives, tensor in step.output_map.items()}
    for entry in ensemble.output:
        source, gives = written.get(entry.name, nobody)
        found.append(Edge(source, gives, CLIENT, entry.name))
    return sorted(found, key=lambda edge: (edge.source or "", edge.target, edge.takes))


def undeclared(graph: list[Edge], configs: Mapping[str, ModelConfig]) -> list[Edge]:
    """The edges that nobody writes, or that end at a tensor which its model does not declare."""
    has = {name: ({x.name for x in one.input}, {x.name for x in one.output}) for name, one in configs.items()}

    def stands(edge: Edge) -> bool:
        given = edge.source == CLIENT or edge.gives in has.get(edge.source or "", (set(), set()))[1]
        return given and (edge.target == CLIENT or edge.takes in has.get(edge.target, (set(), set()))[0])

    return [edge for edge in graph if not stands(edge)]


def tree(repository: Path) -> list[Entry]:
    """The folders and files of a repository as lines, models first, with tensors counted and assets weighed."""
    lines = [Entry(0, f"{repository.name}/", "")]
    for model in sorted(path.parent for path in repository.glob(f"*/{CONFIG}")):
        lines += [Entry(1, f"{model.name}/", ""), Entry(2, CONFIG, _tensors(model / CONFIG))]
        versions = sorted(path for path in model.iterdir() if path.is_dir())
        for version in versions:
            files = sorted(path.name for path in version.iterdir())
            others = f"and {len(files) - 1} more" if len(files) > 1 else ""
            lines.append(Entry(2, f"{version.name}/" + ("model.py" if files else ""), others if files else "empty"))
        lines += [] if versions else [Entry(2, "no version folder", "")]
    for assets in sorted((repository / ASSETS).glob("*")):
        lines.append(Entry(1, f"{ASSETS}/{assets.name}/", ""))
        for folder in sorted(path for path in assets.iterdir() if path.is_dir()):
            held = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            lines.append(Entry(2, f"{folder.name}/", f"{len(held)} files, {_size(sum(held))}"))
    return lines


def _tensors(path: Path) -> str:
    try:
        config = read_model_config(path)
    except RepositoryError:
        return "cannot be read"
    return f"{len(config.input)} in, {len(config.output)} out"


def _size(count: int) -> str:
    unit, size = ("MB", 10**6) if count >= 10**6 else ("kB", 10**3) if count >= 10**3 else ("B", 1)
    return f"{count / size:.0f} {unit}"
