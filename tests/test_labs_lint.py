"""The lint: a good lab has no findings, and each house rule, when it is broken, is found with its mend."""

from __future__ import annotations

import copy
import shutil

import nbformat
import pytest
from labs_notebooks import SAMPLE, write_notebook

from labsupport.labs.lint import lint


def replace(old, new):
    """A change that replaces text in the first cell that has it."""

    def change(node):
        cell = next(cell for cell in node.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)

    return change


def append(new, heading="## 1 · Sums"):
    """A change that adds lines to the cell with ``heading``."""
    return replace(heading, f"{heading}\n{new}")


def add_code(source):
    def change(node):
        node.cells.insert(9, nbformat.v4.new_code_cell(source))

    return change


def untag(tag):
    def change(node):
        cell = next(cell for cell in node.cells if tag in cell.metadata.get("tags", []))
        cell.metadata.tags = []

    return change


def drop(text):
    def change(node):
        node.cells = [cell for cell in node.cells if text not in cell.source]

    return change


def swap(first, second):
    def change(node):
        places = [next(at for at, cell in enumerate(node.cells) if text in cell.source) for text in (first, second)]
        node.cells[places[0]], node.cells[places[1]] = node.cells[places[1]], node.cells[places[0]]

    return change


def run_it(node):
    node.cells[7].outputs = [nbformat.v4.new_output("stream", text="2")]
    node.cells[7].execution_count = 1


def keep_widgets(node):
    node.metadata["widgets"] = {"state": {}}
    node.cells[7].metadata["papermill"] = {"duration": 1}


def no_kernel(node):
    del node.metadata["kernelspec"]


def table_to_text(node):
    cell = next(cell for cell in node.cells if "## Troubleshooting" in cell.source)
    cell.source = cell.source.replace("|", " ")


def long_cells(node):
    for cell in node.cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            cell.source += "\n" + "\n".join(f"line_{n} = {n}" for n in range(25))


def long_prose(node):
    for cell in node.cells:
        if cell.cell_type == "markdown":
            cell.source += "\n\n" + "word " * 45


BROKEN = {
    "no title": (replace("# Lab 90 · A sample", "# A sample"), "the first cell has no title"),
    "wrong number": (replace("# Lab 90 ·", "# Lab 91 ·"), "the first cell has no title"),
    "no claim": (replace("By the end you will have shown", "You will see"), "makes no claim"),
    "card without a row": (replace("| Level | first steps |\n", ""), "the card has no row Level"),
    "few objectives": (replace("- Compute a sum.\n", ""), "2 objectives"),
    "a part is missing": (drop("## Recap"), "there is no `## Recap`"),
    "out of order": (swap("## Quiz", "## Recap"), "comes too late"),
    "unknown heading": (append("## An aside"), "unknown heading"),
    "twice": (append("## Objectives"), "comes twice"),
    "misnumbered section": (replace("## 2 · Products", "## 4 · Products"), "is section 2"),
    "few sections": (replace("## 3 · Differences", "### Differences"), "2 numbered sections"),
    "no takeaway": (replace("**Takeaway.**", "So:"), "has no takeaway"),
    "long idea": (append("word " * 100), "words of idea"),
    "no setup tag": (untag("setup"), "0 code cells are tagged 'setup'"),
    "no signature": (untag("signature"), "0 code cells are tagged 'signature'"),
    "parameters too late": (swap('PROFILE = "cpu"', "np.add(2, 2)"), "the parameters cell stands under"),
    "clean-up that closes nothing": (replace("lab.close()", "print(lab)"), "the clean-up closes nothing"),
    "open quiz": (replace("<details><summary>Answers", "<p><b>Answers"), "'Quiz' has no <details>"),
    "troubles without a table": (table_to_text, "'Troubleshooting' has no |"),
    "computed parameter": (replace("SEED = 0", "SEED = 1 + 1"), "is not NAME = literal"),
    "missing parameter": (replace("\nFAST = True", ""), "no parameter FAST"),
    "starts another lab": (replace('start("90"', 'start("09"'), "does not start this lab"),
    "long set-up": (replace("import numpy as np", "import numpy as np\n" + "SEED\n" * 6), "9 lines of code"),
    "long cell": (add_code("SEED\n" * 41), "41 lines of code"),
    "long cells": (long_cells, "the median code cell has"),
    "many long cells": (long_cells, "one code cell in ten has"),
    "long prose": (long_prose, "the median markdown cell has"),
    "outputs": (run_it, "it holds outputs or an execution count"),
    "widget state": (keep_widgets, "metadata hold 'widgets'"),
    "traces of a run": (keep_widgets, "metadata hold 'papermill'"),
    "no kernelspec": (no_kernel, "the kernel is None"),
    "shell escape": (add_code("!pip install torch"), "is no Python: '!pip install torch'"),
    "dead import": (add_code("import json"), "'json' is imported and never used"),
    "dead name": (add_code("from math import exp, log as ln\nexp(1)"), "'ln' is imported and never used"),
    "output widget": (add_code("import ipywidgets as w\nout = w.Output()"), "'Output' can hang"),
    "interact": (add_code("from ipywidgets import interact\n@interact\ndef f(x=3): ..."), "'interact' can hang"),
    "interact with limits": (
        add_code("from ipywidgets import interact\n@interact(x=(0, 9))\ndef f(x=3): ..."),
        "'interact' can hang",
    ),
    "bare figure": (add_code("import matplotlib.pyplot as plt\nplt.plot([1])"), "it imports matplotlib.pyplot"),
    "picture without alt text": (append("![](picture.png)"), "no alt text: ![](picture.png)"),
    "html picture without alt text": (append('<img src="a.png" alt="">'), "no alt text: <img"),
    "link to nowhere": (append("[next](91_next.ipynb)"), "'91_next.ipynb' leads nowhere"),
    "link on this machine": (append("[next](/tmp/91_next.ipynb)"), "holds on one machine only"),
    "British": (append("The Colour of a quantised tokeniser"), "'colour' is British"),
    "British code": (add_code("grey = SEED"), "'grey' is British"),
    "few exercises": (replace("### Exercise 90.3", "#### Exercise 90.3"), "2 exercises"),
    "misnumbered exercise": (replace("### Exercise 90.2", "### Exercise 90.7"), "exercise heading 'Exercise 90.7"),
    "no difficulty": (replace("●●○○○ · ", ""), "has no difficulty"),
    "no hint": (replace("<details><summary>Hint</summary>Look at the section above.</details>", "Look up."), "no hint"),
    "no solution": (drop("answer = 4"), "has the cells: exercise, check"),
    "solution before its stub": (swap("answer = None", "answer = 4"), "has the cells: solution, exercise, check"),
    "check of another exercise": (replace('check("90.2"', 'check("90.1"'), "the check cell of 90.2 checks 90.1"),
    "no check": (replace('answer = check("90.1", answer)', "answer"), "the check cell of 90.1 checks nothing"),
    "check in the solution": (replace("answer = 4", 'answer = check("90.1", 4)'), "calls check"),
    "stub that is none": (replace("answer = None", "answer = 3"), "the stub of 90.1 is no stub"),
    "solution outside": (
        lambda node: node.cells[9].metadata.update(tags=["solution"]),
        "a cell tagged 'solution' outside of the exercises",
    ),
}


def broken(tmp_path, change):
    node = nbformat.read(SAMPLE, as_version=4)
    before = copy.deepcopy(node)
    change(node)
    assert node != before, "the change changed nothing"
    path = tmp_path / SAMPLE.name
    nbformat.write(node, path)
    return path


def test_a_lab_in_order_has_no_findings():
    assert lint([SAMPLE]) == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found_with_lab_cell_and_mend(tmp_path, case):
    change, what = BROKEN[case]
    found = [one for one in lint([broken(tmp_path, change)]) if what in one.what]
    assert found
    assert all(one.lab == "90_sample" and one.mend for one in found)


def test_a_finding_names_the_cell(tmp_path):
    (found,) = lint([broken(tmp_path, append("[next](91_next.ipynb)"))])
    assert found.cell == "lab90-006"
    assert str(found).startswith("90_sample lab90-006: the link '91_next.ipynb' leads nowhere\n    mend: ")


def test_the_card_leads_to_the_neighbors(tmp_path):
    for name in ("89_before.ipynb", "91_after.ipynb"):
        write_notebook(tmp_path / name, "1")
    shutil.copy(SAMPLE, tmp_path)
    whats = {found.what for found in lint([tmp_path / SAMPLE.name])}
    assert whats == {"Before does not lead to 89_before.ipynb", "After does not lead to 91_after.ipynb"}
    links = replace("| Before | nothing |", "| Before | [89](89_before.ipynb) |")
    path = broken(tmp_path, lambda node: (links(node), replace("After | no", "After | [91](91_after.ipynb), no")(node)))
    assert lint([path]) == []


def test_links_and_pictures_in_fenced_code_are_examples(tmp_path):
    assert lint([broken(tmp_path, append("```\n![](x.png) [a](nowhere.ipynb)\n## Not a heading\n```\n"))]) == []


def test_a_file_that_is_no_notebook_is_a_finding(tmp_path):
    bad = tmp_path / "01_bad.ipynb"
    bad.write_text("no json")
    (found,) = lint([bad])
    assert "is not a notebook" in found.what


def test_a_misnamed_file_is_a_finding(tmp_path):
    shutil.copy(SAMPLE, tmp_path / "Sample.ipynb")
    assert "the file is called Sample.ipynb" in {found.what for found in lint([tmp_path / "Sample.ipynb"])}
