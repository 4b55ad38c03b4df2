"""Each figure function, drawn in both themes: its size, its ink, nothing cut off; and what it refuses."""

from __future__ import annotations

import io

import numpy as np
import pytest
from figures_gallery import gallery
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures import LabFigure, theme
from labsupport.figures.beams import Candidate, beam_tree
from labsupport.figures.cache import shared_heads, step_triangle
from labsupport.figures.distributions import Stage, draws_against_theory, next_token, waterfall
from labsupport.figures.engines import EngineBar, engine_bars
from labsupport.figures.families import families, family_masks
from labsupport.figures.labels import spread
from labsupport.figures.layers import attention_triangle, logit_lens
from labsupport.figures.pipeline import Row, pipeline_map, table
from labsupport.figures.repository import Station, Wire, placeholder_strips, tree_and_graph
from labsupport.figures.roofline import Work, roofline
from labsupport.figures.style import contrast
from labsupport.figures.tiles import attention_tiles
from labsupport.figures.timing import durations, spoken

ALT = "A figure that is never drawn, because its data is refused."
GALLERY = gallery()


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("figure", GALLERY.values(), ids=GALLERY)
def test_it_is_drawn_at_text_width_with_ink_on_it_and_nothing_cut_off(figure: LabFigure, name: str):
    image = np.asarray(Image.open(io.BytesIO(figure.png(name, dpi=100))).convert("RGB")).astype(int)
    paper = image[0, 0]
    assert image.shape[1] == 650
    assert 100 < image.shape[0] < 900
    assert (np.abs(image - paper).max(axis=-1) > 60).mean() > 0.01
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert np.abs(border - paper).max() < 60


@pytest.mark.parametrize("name", [key for key in GALLERY if key not in ("small_multiples", "graphs_narrow")])
def test_no_words_leave_the_figure(name: str):
    page = theme("light")
    with page.active():
        figure = GALLERY[name].draw(page)
        figure.get_layout_engine().execute(figure)
        figure.draw_without_rendering()
        words = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label)]
        for text in filter(lambda text: text.get_text().strip(), words):
            box, frame = text.get_window_extent(), figure.bbox
            assert frame.x0 - 1 < box.x0 < box.x1 < frame.x1 + 1, text
            assert frame.y0 - 1 < box.y0 < box.y1 < frame.y1 + 1, text


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("figure", GALLERY.values(), ids=GALLERY)
def test_words_on_the_paper_are_readable(figure: LabFigure, name: str):
    page = theme(name)
    with page.active():
        drawn = figure.draw(page)
    for text in filter(lambda text: text.get_text().strip(), drawn.findobj(Text)):
        plate, color = text.get_bbox_patch(), to_hex(text.get_color())
        if plate is None and color in ("#000000", "#ffffff"):
            continue  # `lettering`, on a fill: its own test
        ground = plate.get_facecolor() if plate is not None and plate.get_facecolor()[3] else page.paper
        assert contrast(color, to_hex(ground)) >= 4.5, (text, color)


def test_bars_stand_for_the_leaders_and_the_rest_is_summed():
    figure = next_token([0.5, 0.3, 0.15, 0.05], ["a", "b", "c", "d"].__getitem__, top=2, alt=ALT).draw(theme("light"))
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0.3]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert "2 other tokens share 0.20" in axes.get_xlabel()


def test_a_removed_token_keeps_the_bar_that_it_had():
    stages = [Stage("softmax", [0.6, 0.3, 0.1]), Stage("top-k = 1", [1.0, 0, 0]), Stage("again", [1.0, 0, 0])]
    figure = waterfall(stages, ["a", "b", "c"].__getitem__, alt=ALT).draw(theme("light"))
    for axes in figure.axes[1:]:
        ghosts = [bar.get_width() for bar in axes.patches if bar.get_hatch() == "////"]
        assert ghosts == [0.3, 0.1]
        assert sum(text.get_text() == "out" for text in axes.texts) == 2


def test_families_see_what_their_name_says():
    masks = family_masks(source=3, target=2)
    assert masks["encoder"].all()
    assert (masks["decoder"] == np.tril(np.ones((5, 5)))).all()
    assert masks["encoder-decoder"][:3, :3].all()
    assert not masks["encoder-decoder"][:3, 3:].any()
    assert masks["encoder-decoder"][3].tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("places", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.05], [0.0, 5.0], [3.0]])
def test_labels_are_moved_apart_and_keep_their_order(places):
    moved = spread(places, gap=1.0)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(moved)[order]) >= 1.0 - 1e-9).all()
    assert np.mean(moved) == pytest.approx(np.mean(places))


@pytest.mark.parametrize(("seconds", "text"), [(2e-9, "2 ns"), (0.00125, "1.25 ms"), (1.0, "1 s"), (90, "90 s")])
def test_durations_are_spoken_with_a_unit(seconds, text):
    assert spoken(seconds) == text


WORD = ["a", "b"].__getitem__


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: next_token([0.5, 0.1], WORD, alt=ALT), "no distribution"),
        (lambda: next_token([[0.5, 0.5]], WORD, alt=ALT), "no distribution"),
        (lambda: next_token([1.5, -0.5], WORD, alt=ALT), "no distribution"),
        (lambda: waterfall([], WORD, alt=ALT), "vocabularies of"),
        (lambda: waterfall([Stage("one", [1.0]), Stage("two", [0.5, 0.5])], WORD, alt=ALT), "vocabularies of"),
        (lambda: draws_against_theory([1, 2, 3], [0.5, 0.5], WORD, alt=ALT), "counts of shape"),
        (lambda: draws_against_theory([0, 0], [0.5, 0.5], WORD, alt=ALT), "with 0 draws"),
        (lambda: beam_tree([], alt=ALT), "without candidates"),
        (lambda: beam_tree([Candidate("a", -1.0, 0, "kept")], alt=ALT), "names 0 as its parent"),
        (lambda: logit_lens([["a"]], [[0.5, 0.5]], tokens=["x"], layers=["0"], alt=ALT), "probabilities of shape"),
        (lambda: attention_triangle([[0.5, 0.5], [0.5, 0.5]], ["x", "y"], alt=ALT), "no triangle"),
        (lambda: attention_triangle([[1.0]], ["x", "y"], alt=ALT), "no triangle"),
        (lambda: pipeline_map("cloud", alt=ALT), "no station 'cloud'"),
        (lambda: table(["one"], [Row("ok", ("a", "b"))], alt=ALT), "2 cells under 1 columns"),
        (lambda: families([], ["y"], alt=ALT), "0 source tokens"),
        (lambda: engine_bars([], alt=ALT), "no bars"),
        (lambda: engine_bars([EngineBar("labs", "fp32", 9, 10, 11, 45)], alt=ALT), "not between"),
        (lambda: step_triangle(["a"], 2, prompt=1, cached=True, alt=ALT), "2 tokens so far of 1"),
        (lambda: step_triangle(["a"], 1, prompt=0, cached=True, alt=ALT), "0 in the prompt"),
        (lambda: shared_heads({"odd": (9, 2)}, alt=ALT), "no equal shares: odd"),
        (lambda: shared_heads({}, alt=ALT), "no kinds"),
        (lambda: roofline([], bandwidth=1, peak=1, alt=ALT), "0 dots"),
        (lambda: roofline([Work("a", 0, 1)], bandwidth=1, peak=1, alt=ALT), "1 dots"),
        (lambda: attention_tiles(8, 4, (0, 1), alt=ALT), "tile"),
        (lambda: attention_tiles(8, 4, (2, 0), alt=ALT), "tile"),
        (lambda: tree_and_graph([], [], [], alt=ALT), "without stations"),
        (lambda: tree_and_graph([], [Station("a")], [Wire("a", "b", ("x",))], alt=ALT), "a wire to 'b'"),
        (lambda: placeholder_strips({"a": ["broken"]}, alt=ALT), "an unknown outcome"),
        (lambda: durations({}, alt=ALT), "without runs"),
        (lambda: durations({"a": [0.0]}, alt=ALT), "took no time"),
        (lambda: durations({"a": [1.0]}, reference="b", alt=ALT), "no case 'b'"),
    ],
)
def test_data_that_cannot_be_drawn_is_refused_with_its_reason(make, complaint):
    with pytest.raises(ParameterError, match=complaint):
        make()
