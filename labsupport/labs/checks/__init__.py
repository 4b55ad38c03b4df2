"""Exercise checks: a learner's attempt is judged at once, and the lab runs on either way."""

from __future__ import annotations

from labsupport.labs.checks.core import (
    Exercise,
    Verdict,
    Wrong,
    check,
    exercise,
    exercises_of,
    find,
    judge,
)
from labsupport.labs.checks.expect import expect, expect_choice, expect_close, expect_equal, show

__all__ = [
    "Exercise",
    "Verdict",
    "Wrong",
    "check",
    "exercise",
    "exercises_of",
    "expect",
    "expect_choice",
    "expect_close",
    "expect_equal",
    "find",
    "judge",
    "show",
]
