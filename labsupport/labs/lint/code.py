"""Code cells: short, clean, and without what hangs or lies."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator

from labsupport.errors import NotebookError
from labsupport.labs.lint.finding import Finding, finding, lines
from labsupport.labs.notebook import Cell, Notebook, literals

MEDIAN_LINES, P90_LINES, MAX_LINES, SETUP_LINES = 6, 20, 40, 8
REQUIRED_PARAMETERS = ("PROFILE", "MODEL", "SEED", "FAST")
HANGING = {"Output", "interact", "interactive", "interact_manual", "interactive_output"}
PLOTTING = ("matplotlib", "seaborn", "plotly", "altair")


def limits(notebook: Notebook) -> Iterator[Finding]:
    """Code cells: median at most 6 lines, 90th percentile 20, maximum 40; set-up 8. Blank lines do not count."""
    counts = sorted(lines(cell) for cell in notebook.code)
    for cell in notebook.code:
        limit = SETUP_LINES if "setup" in cell.tags else MAX_LINES
        if lines(cell) > limit:
            mend = f"cut it to {limit}: what is not taught here goes to labsupport"
            yield finding(notebook, cell, f"{lines(cell)} lines of code", mend)
    if not counts:
        return
    middle, high = statistics.median(counts), counts[int(0.9 * (len(counts) - 1))]
    if middle > MEDIAN_LINES:
        yield finding(
            notebook, None, f"the median code cell has {middle:g} lines", f"cut cells in two, to {MEDIAN_LINES}"
        )
    if high > P90_LINES:
        yield finding(notebook, None, f"one code cell in ten has {high} lines or more", f"shorten them to {P90_LINES}")


def clean(notebook: Notebook) -> Iterator[Finding]:
    """No outputs, no execution counts, no traces of a run; the kernel is python3."""
    kernel = notebook.node.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        yield finding(notebook, None, f"the kernel is {kernel!r}", 'set metadata.kernelspec.name to "python3"')
    for trace in sorted({"widgets", "papermill"} & notebook.node.metadata.keys()):
        yield finding(notebook, None, f"the notebook's metadata hold {trace!r}", "clear all outputs and save")
    for cell in notebook.cells:
        if cell.node.get("outputs") or cell.node.get("execution_count") is not None:
            yield finding(notebook, cell, "it holds outputs or an execution count", "clear all outputs and save")
        for trace in sorted({"papermill", "execution"} & cell.node.metadata.keys()):
            yield finding(notebook, cell, f"its metadata hold {trace!r}", "clear all outputs and save")


def parameters(notebook: Notebook) -> Iterator[Finding]:
    """The parameters cell holds literals, the four that every lab has among them."""
    for cell in notebook.tagged("parameters"):
        try:
            known = literals(cell)
        except NotebookError as error:
            yield finding(notebook, cell, error.what, error.fix)
            continue
        missing = [name for name in REQUIRED_PARAMETERS if name not in known]
        if missing:
            yield finding(
                notebook, cell, f"no parameter {', '.join(missing)}", "every lab has PROFILE, MODEL, SEED, FAST"
            )
    for cell in notebook.tagged("setup"):
        if f'start("{notebook.number}"' not in cell.source:
            mend = f'`lab = start("{notebook.number}", profile=PROFILE, model=MODEL, seed=SEED, fast=FAST)`'
            yield finding(notebook, cell, "the set-up does not start this lab", mend)


def syntax(notebook: Notebook) -> Iterator[Finding]:
    """Each code cell is plain Python: no shell escapes and no magics."""
    for cell in notebook.code:
        try:
            ast.parse(cell.source)
        except SyntaxError as problem:
            what = f"line {problem.lineno} is no Python: {(problem.text or '').strip()!r}"
            yield finding(notebook, cell, what, "write plain Python; magics and shell escapes go to labsupport")


def dead_imports(notebook: Notebook) -> Iterator[Finding]:
    """What is imported is used."""
    trees = {cell.index: _tree(cell) for cell in notebook.code}
    used = {node.id for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for cell in notebook.code:
        for node in ast.walk(trees[cell.index]):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            for name in node.names:
                bound = name.asname or name.name.partition(".")[0]
                if bound not in used:
                    yield finding(notebook, cell, f"{bound!r} is imported and never used", "take the import out")


def hanging_widgets(notebook: Notebook) -> Iterator[Finding]:
    """No Output contexts and no interact: they hang headless runs."""
    mend = "use figures.explore(...): sliders, an image and observe"
    for cell in notebook.code:
        for node in ast.walk(_tree(cell)):
            name = _used_name(node)
            if name in HANGING:
                yield finding(notebook, cell, f"{name!r} can hang a headless run", mend)


def own_figures(notebook: Notebook) -> Iterator[Finding]:
    """Figures come from labsupport.figures, which asks for alt text."""
    for cell in notebook.code:
        for node in ast.walk(_tree(cell)):
            modules = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for module in modules:
                if module.partition(".")[0] in PLOTTING:
                    mend = "draw with a function of labsupport.figures: it asks for alt text and a badge"
                    yield finding(notebook, cell, f"it imports {module}", mend)


def _used_name(node: ast.AST) -> str:
    match node:
        case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
            return name
        case ast.FunctionDef(decorator_list=[ast.Name(id=name), *_]):
            return name
        case _:
            return ""


def _tree(cell: Cell) -> ast.Module:
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])  # the rule `syntax` reports it


CODE_RULES = (limits, clean, parameters, syntax, dead_imports, hanging_widgets, own_figures)
