"""The figures of checkpoint conversion: the Sankey of names, the slices of ranks, the gated feed-forward."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures import LabFigure, theme
from labsupport.figures.gated import gated_branches, gated_mlp
from labsupport.figures.sankey import Flow, _stack, sankey
from labsupport.figures.shards import Kept, Share, shards

ALT = "A figure of a conversion, drawn for a test of its margins."
QKV = {"q": (8, 4), "k": (4, 4), "v": (4, 4)}
FLOWS = [Flow("embed_tokens", "vocab_embedding", 400), Flow("embed_tokens", "lm_head", 400), Flow("norm", "ln_f", 1)]


def halves(rank: int) -> Kept:
    rows = [(rank * 4, rank * 4 + 4), (rank * 2, rank * 2 + 2), (rank * 2, rank * 2 + 2)]
    return Kept(tuple(Share(name, part, (0, 4)) for name, part in zip(QKV, rows, strict=True)))


def many(ranks: int) -> list[Kept]:
    return [
        Kept((Share("q", (rank, rank + 1), (0, 4)), Share("k", (rank // 4, rank // 4 + 1), (0, 4))))
        for rank in range(ranks)
    ]


def gallery() -> dict[str, LabFigure]:
    values = np.random.default_rng(0).normal(size=(5, 64))
    table = {"embed_tokens": (5, 4)}
    padded = [
        Kept((Share("embed_tokens", (0, 3), (0, 4)),)),
        Kept((Share("embed_tokens", (3, 5), (0, 4)),), zero_rows=1),
    ]
    return {
        "sankey": sankey(FLOWS, left="Hugging Face", right="TensorRT-LLM", emphasis=["norm"], alt=ALT),
        "rows": shards(QKV, [halves(0), halves(1)], alt=ALT),
        "columns": shards({"o": (4, 4)}, [Kept((Share("o", (0, 4), (2 * r, 2 * r + 2)),)) for r in (0, 1)], alt=ALT),
        "padded": shards(table, padded, alt=ALT),
        "sixteen": shards({"q": (16, 4), "k": (4, 4)}, many(16), alt=ALT),
        "refused": shards(QKV, [], refused="9 attention heads do not divide by 2", alt=ALT),
        "gated_mlp": gated_mlp(alt=ALT),
        "gated_branches": gated_branches(np.maximum(values, -0.28), values * 2, alt=ALT),
    }


GALLERY = gallery()


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("figure", GALLERY.values(), ids=GALLERY)
def test_it_is_drawn_with_nothing_cut_off(figure: LabFigure, name: str):
    image = np.asarray(Image.open(io.BytesIO(figure.png(name, dpi=100))).convert("RGB")).astype(int)
    assert image.shape[1] == 650
    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert np.abs(border - image[0, 0]).max() < 60
    assert (np.abs(image - image[0, 0]).max(axis=-1) > 60).mean() > 0.005


@pytest.mark.parametrize("name", GALLERY)
def test_no_words_leave_the_figure(name: str):
    page = theme("light")
    with page.active():
        figure = GALLERY[name].draw(page)
        figure.get_layout_engine().execute(figure)
        figure.draw_without_rendering()
        for text in (text for axes in figure.axes for text in axes.texts if text.get_text().strip()):
            box, frame = text.get_window_extent(), figure.bbox
            assert frame.x0 - 1 < box.x0 < box.x1 < frame.x1 + 1, text
            assert frame.y0 - 1 < box.y0 < box.y1 < frame.y1 + 1, text


def test_boxes_of_the_sankey_are_as_tall_as_their_bytes():
    boxes = _stack({"a": 300, "b": 100, "speck": 1e-6})
    assert boxes["a"].height == pytest.approx(3 * boxes["b"].height)
    assert boxes["speck"].height > 0
    assert boxes["speck"].top + boxes["speck"].height == pytest.approx(1.0)


@pytest.mark.parametrize("flows", [[], [Flow("a", "b", 0)]])
def test_a_flow_carries_bytes(flows: list[Flow]):
    with pytest.raises(ParameterError):
        sankey(flows, left="from", right="to", alt=ALT)


@pytest.mark.parametrize(("ranks", "refused"), [([], ""), ([halves(0)], "no reason")])
def test_a_tensor_is_cut_or_refused(ranks: list[Kept], refused: str):
    with pytest.raises(ParameterError, match="refused"):
        shards(QKV, ranks, refused=refused, alt=ALT)


def test_branches_are_of_one_shape():
    with pytest.raises(ParameterError, match="shape"):
        gated_branches(np.zeros((2, 3)), np.zeros((2, 4)), alt=ALT)
