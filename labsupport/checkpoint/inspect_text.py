"""A checkpoint as a tree of text, and a list of differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labsupport.checkpoint.config import CONFIG
from labsupport.checkpoint.inspect import Contents, Difference, Entry, entries, spans


def tree(contents: Contents) -> Iterator[str]:
    """The lines of a tree: folder, files, tensors; layers that are alike stand in one line, and so do files."""
    config, mapping = contents.config, contents.config.get("mapping") or {}
    facts = [(config.get("architecture") or ", ".join(config.get("architectures") or ["unknown architecture"]))]
    facts += [str(config.get("dtype") or config.get("torch_dtype") or "")]
    facts += [f"{key.removesuffix('_size')} {mapping[key]}" for key in ("tp_size", "pp_size") if key in mapping]
    if algo := (config.get("quantization") or {}).get("quant_algo"):
        facts.append(str(algo))
    yield f"{contents.folder}   {', '.join(fact for fact in facts if fact)}, {amount(contents.bytes)}"
    yield f"├── {CONFIG}"
    alike: dict[tuple[Entry, ...], list[str]] = {}
    for name, tensors in contents.files.items():
        alike.setdefault(tuple(entries(tensors)), []).append(name)
    for index, (group, names) in enumerate(alike.items()):
        last = index == len(alike) - 1
        yield f"{'└──' if last else '├──'} {', '.join(names)}   {amount(sum(entry.bytes for entry in group))}" + (
            " each" if len(names) > 1 else ""
        )
        for line in _table(group):
            yield f"{'   ' if last else '│  '} {line}"


def differences(found: Sequence[Difference]) -> Iterator[str]:
    """A line for each difference."""
    for one in found:
        if one.ours is None or one.theirs is None:
            side, has = ("second", one.theirs) if one.ours is None else ("first", one.ours)
            yield f"{one.where}  {one.name}   only in the {side}: {has}"
        elif one.ours != one.theirs:
            yield f"{one.where}  {one.name}   {one.ours} -> {one.theirs}" + _gap(one)
        else:
            yield f"{one.where}  {one.name}   {one.ours}" + _gap(one)


def amount(count: int) -> str:
    """Bytes in the unit that reads best.

    Example:
        >>> amount(538_090_408)
        '538.1 MB'
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _gap(one: Difference) -> str:
    return "" if one.largest is None else f"   largest difference {one.largest:.3g}"


def _table(group: Sequence[Entry]) -> Iterator[str]:
    rows = [(entry.name, entry.kind, str(list(entry.shape)), _layers(entry), amount(entry.bytes)) for entry in group]
    widths = [max(len(row[column]) for row in rows) for column in range(5)] if rows else []
    for index, row in enumerate(rows):
        mark = "└──" if index == len(rows) - 1 else "├──"
        cells = [row[0].ljust(widths[0]), row[1].ljust(widths[1]), row[2].ljust(widths[2]), row[3].ljust(widths[3])]
        yield f"{mark} {'  '.join(cells)}  {row[4].rjust(widths[4])}"


def _layers(entry: Entry) -> str:
    return f"layers {spans(entry.layers)}" if entry.layers else ""
