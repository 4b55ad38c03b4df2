"""Handouts: an executed notebook becomes self-contained pages, one for learners and one for instructors.

A page holds no script and asks for nothing outside of itself: formulas are drawn when the page is built, figures travel
inside it in a light and a dark form, and each of them has its alt text.
"""

from __future__ import annotations

from labsupport.labs.handout.contents import write_contents
from labsupport.labs.handout.page import EDITIONS, render
from labsupport.labs.handout.workshop import write_workshop

__all__ = ["EDITIONS", "render", "write_contents", "write_workshop"]
