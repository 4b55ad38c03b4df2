"""A figure to play with: sliders over a picture, and beside it the static form that paper and screen readers need.

The picture is a ``widgets.Image`` that an observer redraws. There is no ``Output`` widget: its context can leave a
headless run waiting for ever (nbclient issue 312).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labsupport.errors import ParameterError
from labsupport.figures.figure import LabFigure, small_multiples

if TYPE_CHECKING:
    import ipywidgets

Value = int | float | str


@dataclass(frozen=True)
class Slider:
    """A range to slide over; whole numbers throughout give a slider of whole numbers.

    Args:
        low, high: the ends, both reachable.
        start: where it stands at first.
        step: the distance between two stops.
        label: its name on the screen; the argument's name when empty.

    Example:
        >>> Slider(0.1, 2.0, start=1.0, step=0.1).allows(0.7)
        True
    """

    low: float
    high: float
    start: float
    step: float = 1
    label: str = ""

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high or self.step <= 0:
            raise ParameterError(
                f"a slider from {self.low} to {self.high} in steps of {self.step} cannot start at {self.start}",
                why="the start lies between the ends, and a step is larger than 0",
                fix="Slider(low, high, start=..., step=...) with low <= start <= high",
            )

    def allows(self, value: Value) -> bool:
        """Whether ``value`` lies within the ends."""
        return not isinstance(value, str) and self.low <= value <= self.high

    def widget(self, name: str) -> ipywidgets.Widget:
        """The live control."""
        import ipywidgets

        whole = all(isinstance(value, int) for value in (self.low, self.high, self.start, self.step))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        ends = {"min": self.low, "max": self.high, "step": self.step, "value": self.start}
        return kind(**ends, description=self.label or name, **_manners())


@dataclass(frozen=True)
class Choice:
    """A few named values to step through, in order.

    Args:
        options: the values.
        start: the first one shown; the first option when empty.
        label: its name on the screen; the argument's name when empty.
    """

    options: tuple[Value, ...]
    start: Value | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if not self.options or (self.start is not None and self.start not in self.options):
            raise ParameterError(
                f"the start {self.start!r} is not among the options {self.options!r}",
                why="a choice begins at one of its own options",
                fix="Choice((first, second, ...), start=second)",
            )

    def allows(self, value: Value) -> bool:
        """Whether ``value`` is one of the options."""
        return value in self.options

    def widget(self, name: str) -> ipywidgets.Widget:
        """The live control."""
        import ipywidgets

        start = self.options[0] if self.start is None else self.start
        return ipywidgets.SelectionSlider(
            options=self.options, value=start, description=self.label or name, **_manners()
        )


class Explorer:
    """The live controls, the picture, its sentence, and the static form; displays all of them.

    Args, errors: as for :func:`explore`.

    Attributes:
        controls: the live controls, by argument name.
        picture: the ``widgets.Image``.
        sentence: the ``widgets.HTML`` with the alt text of the picture (an ``Image`` widget has none of its own).
        static: the small multiples.
    """

    def __init__(
        self,
        make: Callable[..., LabFigure],
        *,
        sliders: Mapping[str, Slider | Choice],
        frames: Sequence[Mapping[str, Value]],
        alt: str,
        columns: int = 2,
    ) -> None:
        _require_frames(sliders, frames)
        import ipywidgets

        self._make = make
        self._drawn: dict[tuple[Value, ...], tuple[bytes, str]] = {}
        panels = [make(**frame) for frame in frames]
        self.static = small_multiples(panels, titles=_titles(sliders, frames), alt=alt, columns=columns)
        self.controls = {name: slider.widget(name) for name, slider in sliders.items()}
        longest = max(len(control.description) for control in self.controls.values())
        for control in self.controls.values():  # one width, so that the tracks begin and end below each other
            control.style.description_width = f"{0.6 * longest:.1f}em"
            control.layout.width = f"calc(320px + {0.6 * longest:.1f}em)"
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%", "width": "624px"})
        self.sentence = ipywidgets.HTML()
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def _redraw(self, _change: object = None) -> None:
        values = {name: _tidy(control.value) for name, control in self.controls.items()}
        key = tuple(values.values())
        if key not in self._drawn:
            figure = self._make(**values)
            self._drawn[key] = figure.png(), figure.alt
        self.picture.value, words = self._drawn[key]
        self.sentence.value = f'<p role="status" style="max-width: 624px; line-height: 1.4">{html.escape(words)}</p>'

    def _ipython_display_(self) -> None:
        import ipywidgets
        from IPython.display import display

        display(ipywidgets.VBox([*self.controls.values(), self.picture, self.sentence]))
        display(self.static)


def explore(
    make: Callable[..., LabFigure],
    *,
    sliders: Mapping[str, Slider | Choice],
    frames: Sequence[Mapping[str, Value]],
    alt: str,
    columns: int = 2,
) -> None:
    """Show ``make``'s figure under live sliders, and always also its static form.

    Args:
        make: called with one keyword argument a slider; the same values must give the same figure (frames are kept).
        sliders: argument name -> :class:`Slider` or :class:`Choice`.
        frames: the settings of the static small multiples, each naming all sliders.
        alt: what the static form shows.
        columns: panels in a row of the static form; 1 where a panel needs the full width.

    Raises:
        ParameterError: no frames, a frame that does not name all sliders, or a value that its slider cannot reach.

    Example::

        explore(
            lambda T: top_tokens(softmax(logits / T), tokens, alt=f"Ten most probable tokens at temperature {T}."),
            sliders={"T": Slider(0.1, 2.0, start=1.0, step=0.1, label="temperature")},
            frames=[{"T": 0.2}, {"T": 1.0}],
            alt="At temperature 0.2 one token holds nearly everything; at 1.0 ten tokens share.",
        )
    """
    from IPython.display import display

    display(Explorer(make, sliders=sliders, frames=frames, alt=alt, columns=columns))


def _require_frames(sliders: Mapping[str, Slider | Choice], frames: Sequence[Mapping[str, Value]]) -> None:
    for frame in frames or [{}]:
        if frame.keys() != sliders.keys():
            raise ParameterError(
                f"the frame {dict(frame)} does not fit the sliders {', '.join(sliders)}",
                why="each panel of the static form needs one value for each slider",
                fix="frames=[{" + ", ".join(f"{name!r}: ..." for name in sliders) + "}, ...]",
            )
        for name, value in frame.items():
            if not sliders[name].allows(value):
                raise ParameterError(
                    f"the frame {dict(frame)} sets {name} to {value!r}, which its slider cannot reach",
                    why="the static form shows states of the live one",
                    fix=f"a value within {sliders[name]}",
                )


def _titles(sliders: Mapping[str, Slider | Choice], frames: Sequence[Mapping[str, Value]]) -> list[str]:
    """What tells a frame from the others: a value that all share is left out. A line breaks only between two values."""
    apart = [name for name in sliders if len({frame[name] for frame in frames}) > 1] or list(sliders)
    return [
        ", ".join(_unbroken(f"{sliders[name].label or name} = {frame[name]}") for name in apart) for frame in frames
    ]


def _unbroken(words: str) -> str:
    return words.replace(" ", "\N{NO-BREAK SPACE}")


def _tidy(value: Value) -> Value:
    """Without what adding up steps leaves behind: 0.9000000000000001 is 0.9."""
    return round(value, 9) if isinstance(value, float) else value


def _manners() -> dict[str, Any]:
    return {"continuous_update": False}  # redraw when the learner lets go, not at each pixel on the way
