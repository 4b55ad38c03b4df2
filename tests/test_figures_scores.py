"""The figures of lab 03: token probabilities, the separation with its ROC curve, and trees in narrow panels."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures import LabFigure, theme
from labsupport.figures.beams import Candidate, beam_tree
from labsupport.figures.scores import separation, token_probabilities

ALT = "Two rows of bars: the first text has a geometric mean of 0.5, the second of 0.2."
NAMES = ["What is the capital of a land that nobody has ever heard of?", "b", "c", "d"]


def pixels(figure: LabFigure, name: str = "light") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png(name))).convert("RGB")).astype(int)


def bars(first=(0.5, 0.5)) -> LabFigure:
    return token_probabilities({"one": first, "two": [0.1, 0.4, 0.2]}, alt=ALT)


def cases(threshold=None, scores=(-2.0, -1.0, -0.5, -0.1)) -> LabFigure:
    return separation(NAMES, scores, [True, False, True, False], threshold=threshold, alt=ALT)


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("figure", [bars(), cases(), cases(threshold=-0.7)], ids=["bars", "cases", "threshold"])
def test_each_figure_is_drawn_in_both_themes(figure, name):
    image = pixels(figure, name)
    assert image.shape[1] == 1040
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_probability_threshold_and_order_are_seen():
    assert (pixels(bars()) != pixels(bars(first=(0.5, 0.9)))).any()
    assert (pixels(cases(threshold=-0.7)) != pixels(cases(threshold=-1.5))).any()
    assert (pixels(cases()) != pixels(cases(scores=(-1.0, -2.0, -0.5, -0.1)))).any()


@pytest.mark.parametrize("texts", [{}, {"empty": []}, {"zero": [0.0, 0.5]}, {"logs": [-0.5]}, {"above": [1.5]}])
def test_what_is_no_probability_is_refused(texts):
    with pytest.raises(ParameterError, match="probability"):
        token_probabilities(texts, alt=ALT)


@pytest.mark.parametrize(
    ("scores", "suspects"),
    [([-1.0], [True, False]), ([-1.0, -2.0], [True, True]), ([-1.0, -2.0], [False, False])],
)
def test_cases_of_one_class_or_unequal_lengths_are_refused(scores, suspects):
    with pytest.raises(ParameterError, match="both classes"):
        separation(["a", "b"], scores, suspects, alt=ALT)


def test_a_narrow_tree_puts_numbers_under_their_tokens_and_grows_taller():
    path = [Candidate(" Paris", -float(step), step - 1 if step else None, "kept") for step in range(4)]
    tree = beam_tree(path, alt=ALT)
    wide, narrow = (tree.draw(replace(theme("light"), width=width)) for width in (6.5, 3.25))
    assert narrow.get_figheight() > wide.get_figheight()
    texts = [[text.get_text() for text in figure.axes[0].texts] for figure in (wide, narrow)]
    assert "␣Paris  −1.00" in texts[0]
    assert "␣Paris\n−1.00" in texts[1]
