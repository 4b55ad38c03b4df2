"""A small lab with all that a handout must carry, and the means to run it."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FIGURE = '''
from labsupport.figures import LabFigure, Slider, explore
def bar(T: float) -> LabFigure:
    """One bar of height 1/T."""
    def draw(theme):
        figure, axes = theme.figure(height=1.4)
        axes.bar(["\u2423Paris", "\u2423the"], [0.5 / T, 0.3], **theme.fill("kept"))
        return figure
    return LabFigure(draw, alt=f"Two bars at temperature {T}: Paris leads with {0.5 / T:.2f}.")
'''


def markdown(source: str, *tags: str):
    return new_markdown_cell(source, metadata={"tags": list(tags)} if tags else {})


def code(source: str, *tags: str):
    return new_code_cell(source.strip(), metadata={"tags": list(tags)} if tags else {})


def lab():
    """The notebook, not yet run."""
    cells = [
        markdown("# Lab 02 · Sampling\n\nBy the end you will have shown that *temperature* moves mass, not logits."),
        markdown(
            "| | |\n|---|---|\n| Minutes | 45 |\n| Level | beginner |\n"
            "| After | [Lab 03](03_beam_search.ipynb#objectives) |"
        ),
        markdown("## Objectives\n\n- compute $p_i$ for any $T > 0$\n- name `top_k` and its trap"),
        markdown(
            "## Cold open: three bars\n\n$$p_i = \\frac{e^{z_i/T}}{\\sum_j e^{z_j/T}}$$\n\nWhat is $\\ln p_i$ when "
            "$T \\to 0$?\n\n<details>\n<summary>Answer</summary>\n\nIt is **0** for the largest $z_i$.\n\n</details>"
        ),
        code('SEED = 0\nMODEL = "tiny"  # literals only', "parameters"),
        code(FIGURE, "setup"),
        markdown("## 1 · Temperature\n\n**Takeaway.** Only gaps count.\n\n> Predict first."),
        code("bar(1.0)"),
        code('print("mass", 0.5)\nraise_to = [x**2 for x in range(3)]\nraise_to'),
        markdown("## Play: the slider"),
        code(
            'explore(bar, sliders={"T": Slider(0.5, 2.0, start=1.0, step=0.5)}, frames=[{"T": 0.5}, {"T": 2.0}],\n'
            '        alt="Two panels: at T = 0.5 Paris is far ahead, at T = 2 it is not.")',
            "signature",
        ),
        markdown("## Exercises\n\n### Exercise 02.1 · softmax\n\n●●○○○, 5 minutes."),
        code('def softmax(z):\n    """z [V] -> p [V]."""\n    raise NotImplementedError', "exercise"),
        markdown("<details><summary>Hint</summary>\n\nSubtract the maximum first.\n\n</details>"),
        code('def softmax(z):\n    return "the_secret_of_the_solution"', "solution"),
        code('print(softmax([1.0]), "is what the check saw")', "check"),
        markdown("Tell the class about the *max trick* of 1970.", "instructor"),
        markdown(
            "## Troubleshooting\n\n| symptom | cause | fix |\n|---|---|---|\n"
            "| `nan` | overflow | subtract the maximum |"
        ),
        code("del bar", "cleanup"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def write(notebook, path: Path, *, run: bool = False) -> Path:
    """Write ``notebook`` to ``path``, run before when asked to."""
    if run:
        from nbclient import NotebookClient

        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path
