"""Run one cell of a notebook with no more of the notebook than it needs."""

from __future__ import annotations

import ast
import symtable
from typing import Any

from labsupport.labs.notebook import Cell, Notebook


def bound(cell: Cell) -> set[str]:
    """The names that a cell binds at its top level; what a comprehension or a function binds stays inside it."""
    top = symtable.symtable(cell.source, cell.label, "exec")
    return {name.get_name() for name in top.get_symbols() if name.is_assigned() or name.is_imported()}


def used(cell: Cell) -> set[str]:
    """The names that a cell reads from outside of its functions."""
    top = symtable.symtable(cell.source, cell.label, "exec")
    read = {name.get_name() for name in top.get_symbols() if name.is_referenced()}
    return read | {name for child in top.get_children() for name in _globals(child)}


def _globals(table: symtable.SymbolTable) -> set[str]:
    own = {name.get_name() for name in table.get_symbols() if name.is_global() and name.is_referenced()}
    return own.union(*(_globals(child) for child in table.get_children()))


def needed(notebook: Notebook, cell: Cell) -> list[Cell]:
    """The cells before ``cell`` that bind, directly or not, what it reads; the latest one for each name.

    Stubs are left out: where a stub and a solution bind a name, the solution counts.
    """
    found: dict[int, Cell] = {}
    todo = [cell]
    while todo:
        reader = todo.pop()
        earlier = [one for one in notebook.code if one.index < reader.index and "exercise" not in one.tags]
        for name in used(reader):
            home = next((one for one in reversed(earlier) if name in bound(one)), None)
            if home is not None and home.index not in found:
                found[home.index] = home
                todo.append(home)
    return [found[index] for index in sorted(found)]


def run_cell(notebook: Notebook, cell: Cell) -> dict[str, Any]:
    """The names that stand after ``cell`` ran in a fresh namespace, with what it needs before it."""
    from IPython.display import display

    names: dict[str, Any] = {"display": display}
    for one in [*needed(notebook, cell), cell]:
        exec(compile(one.source, one.label, "exec"), names)
    return names


def checked(cell: Cell) -> dict[str, ast.expr]:
    """The calls ``check(id, attempt)`` in a cell: id -> the expression that is handed in."""
    calls = [node for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Call)]
    return {
        ast.literal_eval(call.args[0]): call.args[1]
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "check"
    }
