"""Figures: plain results in, one house style out, in light and in dark.

A figure function takes arrays or dataclasses and an ``alt`` and returns a :class:`LabFigure`. The same object serves
the live widget (:func:`explore`), the static form (:func:`small_multiples`) and the handout.
"""

from __future__ import annotations

from labsupport.figures.explore import Choice, Explorer, Slider, explore
from labsupport.figures.figure import LabFigure, small_multiples
from labsupport.figures.style import HATCHES, ROLES, Theme, theme, visible

__all__ = [
    "HATCHES",
    "ROLES",
    "Choice",
    "Explorer",
    "LabFigure",
    "Slider",
    "Theme",
    "explore",
    "small_multiples",
    "theme",
    "visible",
]
