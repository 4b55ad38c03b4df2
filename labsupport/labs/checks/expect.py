"""Comparisons for checks: each raises :class:`Wrong` with a counter-example small enough to be worked by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from labsupport.labs.checks.core import Wrong

SHOWN = 8  # longer arrays are shortened in a message


def expect(condition: object, message: str) -> None:
    """Raise ``Wrong(message)`` unless ``condition`` holds."""
    if not condition:
        raise Wrong(message)


def expect_close(
    got: Any, want: Any, *, given: str | Mapping[str, Any] = "", rtol: float = 1e-5, atol: float = 1e-8
) -> None:
    """Compare numbers or arrays: shape first, then the values; infinities and NaN must stand in the same places.

    Args:
        got: the learner's result: number, sequence, numpy array or torch tensor, any shape.
        want: the right result.
        given: the input, as text or as ``{"logits": ..., "temperature": ...}``.
        rtol, atol: as in ``numpy.isclose``.

    Raises:
        Wrong: they differ; the message shows input, both results and the first place where they differ.
    """
    mine, right = _array(got, given), _array(want, given)
    if mine.shape != right.shape:
        raise Wrong(f"{_given(given)}the result has shape {mine.shape}, expected {right.shape}")
    same = np.isclose(mine, right, rtol=rtol, atol=atol, equal_nan=True)
    if same.all():
        return
    if right.ndim == 0:
        raise Wrong(f"{_given(given)}you got {mine:.6g}, expected {right:.6g}")
    place = tuple(int(axis) for axis in np.argwhere(~same)[0])
    where = place[0] if len(place) == 1 else place
    raise Wrong(
        f"{_given(given).rstrip()}\n  you got  {show(mine)}\n  expected {show(right)}\n"
        f"first difference at [{where}]: {mine[place]:.6g}, expected {right[place]:.6g}"
    )


def expect_equal(got: Any, want: Any, *, given: str | Mapping[str, Any] = "") -> None:
    """Compare answers exactly: text, token ids, lists, sets.

    Raises:
        Wrong: they differ; the message shows input and both.
    """
    if isinstance(got, np.ndarray) or hasattr(got, "detach"):
        got = _array(got, given).tolist()
    if got != want:
        raise Wrong(f"{_given(given)}you got {show(got)}, expected {show(want)}")


def expect_choice(got: Any, right: str, *, reasons: Mapping[str, str]) -> None:
    """Judge a predicted choice without giving the right one away.

    Args:
        got: the learner's choice, such as "b"; case and surrounding blanks do not matter.
        right: the right choice.
        reasons: for each wrong choice, why it is wrong.

    Raises:
        Wrong: another choice; the message is its reason, or the list of choices for one that does not exist.
    """
    chosen = str(got).strip().lower()
    if chosen == right.lower():
        return
    known = {choice.lower(): reason for choice, reason in reasons.items()}
    if chosen not in known:
        raise Wrong(f"{got!r} is none of the choices {', '.join(sorted([right.lower(), *known]))}")
    raise Wrong(f"{chosen!r}: {known[chosen]}")


def show(value: Any) -> str:
    """A value in one short line: arrays with four digits, long ones shortened."""
    if hasattr(value, "detach") or isinstance(value, (np.ndarray, np.generic)):
        array = _array(value, "")
        return np.array2string(array, precision=4, threshold=SHOWN, separator=", ", max_line_width=100)
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def _array(value: Any, given: str | Mapping[str, Any]) -> npt.NDArray[Any]:
    if hasattr(value, "detach"):  # a torch tensor, perhaps with a gradient or on a GPU
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise Wrong(f"{_given(given)}the result is {show(value)}, expected numbers")
    return array


def _given(given: str | Mapping[str, Any]) -> str:
    if isinstance(given, str):
        return f"For {given}: " if given else ""
    return f"For {', '.join(f'{name}={show(value)}' for name, value in given.items())}: "
