"""The figures of lab 02: rulers, the waterfall with its draws, named curves; each in both themes and at both widths."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures import LabFigure, theme
from labsupport.figures.distributions import Stage
from labsupport.figures.sampling import curves, rulers, sampling_waterfall
from labsupport.figures.style import ROLES

WORDS = [" Paris", " the", " a", "\n", " $5", "é"].__getitem__
MODEL = np.array([0.5, 0.2, 0.15, 0.1, 0.04, 0.01])
CUT = np.array([0.5, 0.2, 0.15, 0.0, 0.0, 0.0]) / 0.85
COUNTS = np.array([590, 230, 180, 0, 0, 0])
ALT = "Bars of six tokens: Paris leads with 0.5, and three are removed."


def pixels(figure: LabFigure, name: str = "light") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure.png(name))).convert("RGB")).astype(int)


def share(image: np.ndarray, role: str) -> float:
    color = np.array([int(ROLES[role][i : i + 2], 16) for i in (1, 3, 5)])
    return float((np.abs(image - color).max(axis=-1) < 12).mean())


def ruler(**options) -> LabFigure:
    return rulers([Stage("the model", MODEL), Stage("top-k 3", CUT)], WORDS, names=4, alt=ALT, **options)


def waterfall(**options) -> LabFigure:
    stages = [Stage("softmax", MODEL), Stage("top-k 3", CUT)]
    return sampling_waterfall(stages, COUNTS, WORDS, alt=ALT, **options)


def lines(**options) -> LabFigure:
    series = {"top-k": [5, 5, 5], "top-p": [1, 10, 900]}
    return curves([0.5, 1, 2], series, x_label="T", y_label="tokens", log_y=True, alt=ALT, **options)


FIGURES = {
    "rulers": ruler(),
    "rulers, arrows": ruler(marks=[0.2, 0.9, 1.0]),
    "rulers, shared": ruler(shared=0.74),
    "rulers, cut": ruler(cut=0.6),
    "waterfall": waterfall(chosen=1),
    "curves": lines(mark=(1.0, "T = 1"), level=(5.0, "five"), highlight="top-p"),
}


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_each_figure_is_drawn_in_both_themes(figure, name):
    image = pixels(figure, name)
    assert image.shape[1] == 1040
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_a_mark_paints_the_token_that_it_picks():
    assert share(pixels(ruler(marks=[0.2])), "chosen") > share(pixels(ruler()), "chosen") == 0
    wide, thin = (share(pixels(ruler(marks=[u])), "chosen") for u in (0.2, 0.95))
    assert wide > 1.5 * thin  # Paris owns 0.59 of the last ruler, " a" owns 0.18


def test_a_shared_number_marks_every_ruler():
    assert share(pixels(ruler(shared=0.3)), "chosen") > 1.5 * share(pixels(ruler(marks=[0.3])), "chosen")


def test_removed_tokens_stay_in_the_waterfall():
    assert share(pixels(waterfall()), "removed") > 0
    assert share(pixels(waterfall()), "generated") > 0  # the diamonds


def test_a_narrow_waterfall_shows_the_first_and_the_last_column():
    three = [Stage("softmax", MODEL), Stage("T = 1", MODEL), Stage("top-k 3", CUT)]
    figure = sampling_waterfall(three, COUNTS, WORDS, alt=ALT)
    page = theme("light")
    assert len(figure.draw(page).axes) == 3
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.draw(replace(page, width=3.2)).axes] == [
        "softmax",
        "top-k 3",
    ]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: rulers([], WORDS, alt=ALT), "full vocabulary"),
        (lambda: rulers([Stage("a", MODEL), Stage("b", MODEL[:3])], WORDS, alt=ALT), "full vocabulary"),
        (lambda: ruler(marks=[0.0]), "0 to 1"),
        (lambda: ruler(shared=1.2), "0 to 1"),
        (lambda: sampling_waterfall([Stage("a", MODEL)], COUNTS[:2], WORDS, alt=ALT), "needs its count"),
        (lambda: sampling_waterfall([Stage("a", MODEL)], 0 * COUNTS, WORDS, alt=ALT), "needs its count"),
        (lambda: curves([1, 2], {}, x_label="x", y_label="y", alt=ALT), "one value a place"),
        (lambda: curves([1, 2], {"a": [1]}, x_label="x", y_label="y", alt=ALT), "one value a place"),
    ],
)
def test_what_cannot_be_drawn_says_why(make, words):
    with pytest.raises(ParameterError) as caught:
        make()
    assert words in str(caught.value)
