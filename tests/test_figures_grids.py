"""The figures of quantization: each renders on both pages, and bad input is told."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from labsupport.errors import ParameterError
from labsupport.figures import LabFigure, grids

WORDS = "A figure that is rendered by a test, with a few made-up weights."
WEIGHTS = np.random.default_rng(0).normal(size=640)
RANGES = {"before": {"inputs": [9, 1, 2], "weights": [1, 1, 1]}, "after": {"inputs": [3, 1, 1], "weights": [3, 1, 2]}}
FIGURES: dict[str, Callable[[], LabFigure]] = {
    "a ruled grid": lambda: grids.weight_grid(WEIGHTS, np.arange(-8, 8) / 4, alt=WORDS, note="4 bits"),
    "a fine grid": lambda: grids.weight_grid(WEIGHTS, np.arange(-128, 128) / 64, alt=WORDS, span=4, error=0.1),
    "number lines": lambda: grids.number_lines({"int4": np.arange(8), "int8": np.arange(128)}, alt=WORDS),
    "blocks": lambda: grids.block_levels(WEIGHTS[:96].round(1), 32, alt=WORDS),
    "blocks on given levels": lambda: grids.block_levels(WEIGHTS[:64], 32, [[0, 1], [-1, 1]], alt=WORDS),
    "ranges": lambda: grids.channel_ranges(RANGES, alt=WORDS),
    "nibbles": lambda: grids.nibbles(7, -1, alt=WORDS),
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FIGURES)
def test_it_renders(name: str, theme: str) -> None:
    assert FIGURES[name]().png(theme, dpi=60).startswith(b"\x89PNG")


def test_what_is_cut_looks_different_from_what_is_kept() -> None:
    whole, cut = (grids.weight_grid(WEIGHTS, np.linspace(-end, end, 16), alt=WORDS, span=4) for end in (4, 1))
    assert whole.png(dpi=60) != cut.png(dpi=60)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: grids.weight_grid([], [0, 1], alt=WORDS),
        lambda: grids.weight_grid(WEIGHTS, [1, 1], alt=WORDS),
        lambda: grids.number_lines({}, alt=WORDS),
        lambda: grids.block_levels(WEIGHTS[:33], 32, alt=WORDS),
        lambda: grids.block_levels(WEIGHTS[:64], 32, [[0, 1]], alt=WORDS),
        lambda: grids.channel_ranges({"before": {"inputs": [1, 2], "weights": [1]}}, alt=WORDS),
        lambda: grids.nibbles(8, 0, alt=WORDS),
    ],
)
def test_bad_input_is_told(bad: Callable[[], LabFigure]) -> None:
    with pytest.raises(ParameterError):
        bad()
