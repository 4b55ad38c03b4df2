"""The figures of lab 01: lanes of bytes, ladders of merges, shapes, three scales; in both themes and at both widths."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures import LabFigure, theme
from labsupport.figures.distributions import token_ribbon
from labsupport.figures.forward import Shape, shape_ribbon, three_scales
from labsupport.figures.tokens import byte_lanes, merge_ladder

ALT = "A figure of tokens that says in words what it shows."
WORDS = [" Paris", " the", "\n", "é"].__getitem__
LOGITS = np.array([17.4, 14.9, 3.0, -2.0])
FIGURES = {
    "lanes": byte_lanes("é 😀", [b"\xc3\xa9", b" \xf0\x9f", b"\x98\x80"], [7, 8, 9], alt=ALT),
    "ladder": merge_ladder([["p", "a", "r"], ["p", "ar"], ["par"]], alt=ALT),
    "ladder, notes": merge_ladder([["a", "b"], ["ab"]], notes=["bytes", "merge 1"], alt=ALT),
    "shapes": shape_ribbon([Shape("ids", (5,)), Shape("logits", (5, 49_152), "times the embedding")], alt=ALT),
    "scales": three_scales(LOGITS, WORDS, alt=ALT),
    "ribbon": token_ribbon(["a", "b", "c"], [1, 2, 3], [0.5, 0.3, 0.2, 0.0], WORDS, read=2, chosen=1, alt=ALT),
}


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_each_figure_is_drawn_with_ink_on_it_and_nothing_cut_off(figure: LabFigure, name: str):
    image = np.asarray(Image.open(io.BytesIO(figure.png(name, dpi=100))).convert("RGB")).astype(int)
    paper = image[0, 0]
    assert (np.abs(image - paper).max(axis=-1) > 60).mean() > 0.01
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert np.abs(border - paper).max() < 60


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_each_figure_fits_a_narrow_panel(figure: LabFigure):
    assert figure.image(replace(theme("light"), width=3.25)).width == 520


def test_a_token_that_cuts_a_character_is_hatched():
    figure = FIGURES["lanes"].draw(theme("light"))
    assert sum(patch.get_hatch() is not None for patch in figure.axes[0].patches) == 2


def test_unread_tokens_are_outlines():
    page = theme("light")
    ribbon = FIGURES["ribbon"].draw(page).axes[0]
    assert [patch.get_facecolor()[:3] == (1, 1, 1) for patch in ribbon.patches] == [False, False, True]


def test_the_scales_agree():
    logits, logs, probabilities = (
        [bar.get_width() for bar in axes.patches] for axes in FIGURES["scales"].draw(theme("light")).axes
    )
    assert logits == LOGITS.tolist()
    assert np.allclose(np.exp(logs), probabilities)
    assert np.allclose(np.subtract(logits, logs), logits[0] - logs[0])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: byte_lanes("ab", [b"a"], [1], alt=ALT), "do not spell"),
        (lambda: byte_lanes("ab", [b"a", b"b"], [1], alt=ALT), "do not spell"),
        (lambda: merge_ladder([], alt=ALT), "0 rows"),
        (lambda: merge_ladder([["a"], ["b"]], alt=ALT), "2 rows"),
        (lambda: merge_ladder([["a"]], notes=["x", "y"], alt=ALT), "2 notes"),
        (lambda: shape_ribbon([], alt=ALT), "0 shapes"),
        (lambda: shape_ribbon([Shape("ids", (0,))], alt=ALT), "without sizes"),
        (lambda: three_scales([[1.0, 2.0]], WORDS, alt=ALT), "shape"),
        (lambda: three_scales([1.0, np.inf], WORDS, alt=ALT), "shape"),
    ],
)
def test_data_that_cannot_be_drawn_is_refused(make, complaint):
    with pytest.raises(ParameterError, match=complaint):
        make()
