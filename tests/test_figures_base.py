"""The house style, the figure with its alt text and badge, small multiples, and the live explorer."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures import ROLES, Choice, Explorer, LabFigure, Slider, small_multiples, theme, visible
from labsupport.figures.explore import _titles
from labsupport.figures.figure import MIME, _number
from labsupport.figures.style import contrast, lettering

ALT = "One bar: the token Paris has probability 0.61."


def bar(height: float = 0.61, alt: str = ALT, badge: str = "measured here") -> LabFigure:
    def draw(theme):
        figure, axes = theme.figure(height=1.2)
        axes.bar(["␣Paris"], [height], **theme.fill("kept"))
        axes.set_ylim(0, 1)
        return figure

    return LabFigure(draw, alt=alt, badge=badge)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_is_readable_on_its_paper(name):
    page = theme(name)
    assert contrast(page.ink, page.paper) > 12
    assert contrast(page.muted, page.paper) > 4.5
    assert all(contrast(page.ink, fill) > 4.5 for fill in (page.soft, page.paper))


@pytest.mark.parametrize("color", [*ROLES.values(), "#FFFFFF", "#000000"])
def test_lettering_is_readable_on_every_role(color):
    assert contrast(lettering(color), color) >= 4.5


def test_contrast_is_that_of_wcag_2():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#FFFFFF", "#767676") == pytest.approx(4.54, abs=0.01)  # the lightest gray that passes AA on white


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("role", ROLES)
def test_words_in_the_color_of_a_role_are_readable_and_the_color_changes_only_where_it_must(role, name):
    page, color = theme(name), ROLES[role]
    assert contrast(page.legible(color), page.paper) >= 4.5
    assert (page.legible(color).upper() == color) == (contrast(color, page.paper) >= 4.5)


def test_a_figure_is_six_and_a_half_inches_wide_and_not_blank():
    for name in ("light", "dark"):
        image = pixels(bar().png(name, dpi=100))
        assert image.shape[1] == 650
        assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_light_and_dark_stand_on_their_own_paper_and_share_the_color_of_a_role():
    green = np.array([0x00, 0x9E, 0x73])
    for name, paper in [("light", 255), ("dark", 0x15)]:
        image = pixels(bar().png(name))
        assert image[0, 0, 0] == paper
        assert (np.abs(image.astype(int) - green).max(axis=-1) < 6).mean() > 0.05


def test_rendering_is_deterministic_and_deaf_to_the_reader_s_matplotlib():
    first = bar().png()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert bar().png() == first
        assert matplotlib.rcParams["font.size"] == 20


@pytest.mark.parametrize(
    ("value", "text"), [(0.001, "0.001"), (50, "50"), (20000.0, "20,000"), (1e27, "10²⁷"), (2e-7, "2·10⁻⁷")]
)
def test_ticks_of_a_logarithmic_axis_are_plain_text(value, text):
    assert _number(value) == text


def test_drawing_registers_nothing_with_pyplot():
    import matplotlib.pyplot as plt

    bar().png()
    assert plt.get_fignums() == []


def test_a_dollar_sign_in_a_token_is_text():
    def draw(theme):
        figure, axes = theme.figure(height=1.0)
        axes.set_title("$x_{ and $")  # as mathematics this would not parse
        return figure

    assert LabFigure(draw, alt=ALT).png()


@pytest.mark.parametrize("alt", ["", "Bars.", "  probabilities       ", "a_very_long_name_of_a_picture_file.png"])
def test_an_alt_text_that_says_nothing_is_refused(alt):
    with pytest.raises(ParameterError, match="does not describe a figure"):
        bar(alt=alt)


@pytest.mark.parametrize("badge", ["", "measured", "recorded", "recorded on H200", "faked"])
def test_a_badge_that_does_not_tell_the_origin_is_refused(badge):
    with pytest.raises(ParameterError, match="where the numbers come from"):
        bar(badge=badge)


@pytest.mark.parametrize("badge", ["measured here", "simulated", "diagram", "recorded on one H200, 2026-11-21"])
def test_the_badge_is_drawn_in_the_lower_right_corner(badge):
    image = pixels(bar(badge=badge).png(dpi=100))
    corner, opposite = image[-20:, -100:], image[-20:, :100]
    assert corner.min() < 160
    assert opposite.min() == 255


def test_the_output_carries_alt_badge_width_and_the_dark_picture():
    data, metadata = bar()._repr_mimebundle_(include=None, exclude=None)
    assert metadata["image/png"] == {"alt": ALT, "badge": "measured here", "width": 624}
    assert base64.b64decode(data["image/png"]) == bar().png("light")
    assert base64.b64decode(data[MIME]["dark"]) == bar().png("dark")
    assert (data[MIME]["alt"], data[MIME]["badge"]) == (ALT, "measured here")
    assert ALT in data["text/plain"]


def test_small_multiples_keep_the_panels_pixel_for_pixel():
    panels = [bar(0.2), bar(0.9), bar(0.5)]
    together = small_multiples(panels, titles=["low", "high", "middle"], alt="Three bars: 0.2, 0.9 and 0.5 high.")
    image = pixels(together.png(dpi=100))
    green = np.abs(image.astype(int) - [0x00, 0x9E, 0x73]).max(axis=-1) < 6
    half = image.shape[0] // 2
    areas = [green[:half, :325].sum(), green[:half, 325:].sum(), green[half:, :325].sum()]
    assert image.shape[1] == 650
    assert areas[0] < areas[2] < areas[1]
    assert not green[half:, 325:].any()


def test_small_multiples_refuse_what_does_not_match():
    with pytest.raises(ParameterError, match="0 panels"):
        small_multiples([], alt=ALT)
    with pytest.raises(ParameterError, match="2 panels and 1 titles"):
        small_multiples([bar(), bar()], titles=["one"], alt=ALT)
    with pytest.raises(ParameterError, match="different badges"):
        small_multiples([bar(), bar(badge="simulated")], alt=ALT)
    assert small_multiples([bar(), bar(badge="simulated")], alt=ALT, badge="simulated").badge == "simulated"


def explorer(calls: list[float] | None = None, **changes) -> Explorer:
    def make(T: float, name: str) -> LabFigure:
        if calls is not None:
            calls.append(T)
        return bar(T / 2, alt=f"One bar of height {T / 2} for the case {name}.")

    settings = {
        "sliders": {"T": Slider(0.0, 2.0, start=1.0, step=0.1, label="temperature"), "name": Choice(("a", "b"))},
        "frames": [{"T": 0.2, "name": "a"}, {"T": 2.0, "name": "b"}],
        "alt": "The bar grows with the temperature.",
    }
    return Explorer(make, **{**settings, **changes})


def test_moving_a_slider_redraws_the_picture_and_its_sentence():
    live = explorer()
    before = live.picture.value
    live.controls["T"].value = 0.4
    assert live.picture.value != before
    assert "height 0.2 for the case a" in live.sentence.value
    live.controls["name"].value = "b"
    assert "case b" in live.sentence.value
    assert not any(control.continuous_update for control in live.controls.values())


def test_a_state_that_was_seen_is_not_drawn_again():
    calls: list[float] = []
    live = explorer(calls)
    for value in (0.4, 1.0, 0.4, 1.0):
        live.controls["T"].value = value
    assert calls.count(0.4) == calls.count(1.0) == 1


def test_what_adding_up_steps_leaves_behind_is_not_shown():
    calls: list[float] = []
    live = explorer(calls)
    live.controls["T"].value = 0.8 + 0.05 + 0.05
    assert calls[-1] == 0.9 != 0.8 + 0.05 + 0.05


def test_the_labels_of_all_sliders_are_equally_wide():
    widths = {control.style.description_width for control in explorer().controls.values()}
    assert len(widths) == 1


def test_the_static_form_is_displayed_after_the_live_one(monkeypatch):
    import IPython.display

    shown: list[object] = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    live = explorer()
    live._ipython_display_()
    assert [type(thing).__name__ for thing in shown] == ["VBox", "LabFigure"]
    assert shown[1].alt == "The bar grows with the temperature."
    assert "Output" not in {type(child).__name__ for child in shown[0].children}


def test_a_panel_is_titled_by_what_tells_it_from_the_others():
    sliders = {"T": Slider(0.0, 2.0, start=1.0, step=0.1, label="temperature"), "name": Choice(("a", "b"))}
    assert _titles(sliders, [{"T": 0.2, "name": "a"}, {"T": 2.0, "name": "a"}]) == [
        "temperature\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.2",  # a title breaks between two values, not within one
        "temperature\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}2.0",
    ]
    (both,) = _titles(sliders, [{"T": 0.2, "name": "a"}])
    assert both.replace("\N{NO-BREAK SPACE}", " ") == "temperature = 0.2, name = a"


def test_a_long_panel_title_is_wrapped_and_not_cut():
    together = small_multiples([bar(), bar()], titles=["a word " * 12, "short"], alt="Two equal bars side by side.")
    image = pixels(together.png(dpi=100)).min(axis=-1)
    assert image[:45, 322:326].min() > 200  # nothing runs over the edge of the left panel
    assert image[20:45, :300].min() < 100  # its title goes on in a second line


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([], "does not fit the sliders"),
        ([{"T": 1.0}], "does not fit the sliders"),
        ([{"T": 9.0, "name": "a"}], "cannot reach"),
        ([{"T": 1.0, "name": "c"}], "cannot reach"),
        ([{"T": "warm", "name": "a"}], "cannot reach"),
    ],
)
def test_frames_that_the_sliders_cannot_reach_are_refused(frames, complaint):
    with pytest.raises(ParameterError, match=complaint):
        explorer(frames=frames)


def test_controls_that_cannot_start_are_refused():
    with pytest.raises(ParameterError, match="cannot start at 3"):
        Slider(0, 2, start=3)
    with pytest.raises(ParameterError, match="not among the options"):
        Choice(("a", "b"), start="c")


def test_whole_numbers_give_a_slider_of_whole_numbers():
    assert type(Slider(1, 50, start=10).widget("k")).__name__ == "IntSlider"
    assert type(Slider(0.0, 1.0, start=0.5, step=0.1).widget("p")).__name__ == "FloatSlider"


def test_unknown_roles_and_themes_are_named():
    with pytest.raises(ParameterError, match="no role 'winner'"):
        theme("light").fill("winner")
    with pytest.raises(ParameterError, match="no theme 'sepia'"):
        bar().png("sepia")


def test_white_space_in_tokens_is_visible():
    assert [visible(token) for token in (" a b", "\n", "\t", "")] == ["␣a␣b", "↵", "⇥", "∅"]
