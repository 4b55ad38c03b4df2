"""Handouts of a small lab that was really run: what stands in them, what does not, and what is refused."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from handout_fixture import code, lab, markdown, write
from nbformat.v4 import new_output

from labsupport.errors import NotebookError, ParameterError
from labsupport.labs.handout import render, write_contents

SECRET = "the_secret_of_the_solution"


class Page(HTMLParser):
    """All start tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("handouts")
    executed = write(lab(), folder / "executed" / "02_sampling.ipynb", run=True)
    made = render(executed, folder / "out")
    assert [path.name for path in made] == ["02_sampling.learner.html", "02_sampling.instructor.html"]
    return {path.name: path.read_text(encoding="utf-8") for path in (folder / "out").glob("*.html")}


@pytest.fixture(scope="module")
def learner(pages) -> str:
    return pages["02_sampling.learner.html"]


@pytest.fixture(scope="module")
def instructor(pages) -> str:
    return pages["02_sampling.instructor.html"]


def made(tmp_path: Path, *cells, edition: str = "instructor") -> str:
    """The page of a notebook of a few cells, with a title before them."""
    from nbformat.v4 import new_notebook

    notebook = new_notebook(cells=[markdown("# Lab 09 · Small"), *cells])
    path = write(notebook, tmp_path / "09_small.ipynb")
    return render(path, tmp_path / "out", [edition])[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["02_sampling.learner.html", "02_sampling.instructor.html", "index.html"])
def test_a_page_fetches_nothing_and_runs_nothing(pages, name):
    page = Page(pages[name])
    for tag, attrs in page.tags:
        assert tag not in {"script", "iframe", "link"}
        assert not any(attribute.startswith("on") for attribute in attrs)
        for attribute in ("src", "srcset", "data", "poster"):
            assert attrs.get(attribute, "data:").startswith("data:")
        if "href" in attrs and tag != "a":
            assert attrs["href"].startswith("#")
    assert not re.search(r"@import|url\(", "".join(re.findall(r"<style>(.*?)</style>", pages[name], re.DOTALL)))


def test_every_image_has_an_alt_text_and_a_dark_form(learner):
    images = Page(learner).all("img")
    assert [image["class"] for image in images] == ["on-light", "on-dark"] * 2
    assert {image["alt"] for image in images} == {
        "Two bars at temperature 1.0: Paris leads with 0.50.",
        "Two panels: at T = 0.5 Paris is far ahead, at T = 2 it is not.",
    }
    assert learner.count("<figcaption") == 2
    assert ">measured here</figcaption>" in learner


def test_a_learner_s_page_holds_no_solution_not_even_in_its_source(learner, instructor):
    assert SECRET not in learner
    assert "max trick" not in learner
    assert SECRET in instructor
    assert "max trick" in instructor
    assert "raise" in learner
    assert "Subtract the maximum first." in learner


def test_answers_are_closed_for_learners_and_open_for_instructors(learner, instructor):
    def hints(text: str) -> int:
        return len(re.findall(r"<details open>(?=\s*<summary>(?:Answer|Hint))", text))

    assert (hints(learner), hints(instructor)) == (0, 2)
    assert learner.count("<summary>Hint</summary>") == 1


def test_widgets_are_dropped_and_their_static_form_stays(learner):
    assert "widget-view" not in learner
    assert "VBox" not in learner
    assert "Two panels" in learner


@pytest.mark.parametrize(("quiet", "shown"), [("Settings", "SEED"), ("Set-up", "LabFigure"), ("Clean up", "bar")])
def test_housekeeping_cells_are_folded(learner, quiet, shown):
    folded = re.search(rf"<details class=\"cell[^>]*><summary>{quiet}</summary>(.*?)</details>", learner, re.DOTALL)
    assert folded
    assert shown in folded[1]


def test_headings_are_in_order_and_in_the_contents(learner):
    levels = [int(tag[1]) for tag, _ in Page(learner).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attrs["id"] for _, attrs in Page(learner).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"][1:] for attrs in Page(learner).all("a") if attrs["href"].startswith("#")]
    assert {"lab", "objectives", "exercise-02.1-softmax"} <= set(targets) <= set(ids)


def test_the_page_names_its_language_title_card_and_claim(learner):
    page = Page(learner)
    assert page.all("html") == [{"lang": "en"}]
    assert "<title>Lab 02 · Sampling</title>" in learner
    claim = "By the end you will have shown that temperature moves mass, not logits."
    assert {"name": "description", "content": claim} in page.all("meta")
    assert any("card" in attrs.get("class", "").split() for attrs in page.all("div"))
    assert page.all("a")[0] == {"class": "skip", "href": "#lab"}


def test_links_between_labs_stay_in_the_edition(learner, instructor):
    assert 'href="03_beam_search.learner.html#objectives"' in learner
    assert 'href="03_beam_search.instructor.html#objectives"' in instructor


def test_formulas_are_drawn_in_the_color_of_the_text_and_named(learner):
    drawings = Page(learner).all("svg")
    assert len(drawings) == 6
    assert {drawing["role"] for drawing in drawings} == {"img"}
    assert r"p_i = \frac{e^{z_i/T}}{\sum_j e^{z_j/T}}" in {drawing["aria-label"] for drawing in drawings}
    assert set(re.findall(r'fill="([^"]+)"', learner)) == {"currentColor"}
    assert "$" not in Page(learner).text


def test_code_and_text_colors_are_readable_in_both_modes():
    import labsupport.labs.handout as room

    style = (Path(room.__file__).parent / "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in _palettes(style))
    assert light.keys() == dark.keys()
    for palette in (light, dark):
        for name in set(palette) - {"paper", "soft", "rule"}:
            assert min(contrast(palette[name], palette[ground]) for ground in ("paper", "soft")) >= 4.5, name


def _palettes(style: str) -> list[str]:
    return [block for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL) if "--paper" in block]


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colors #rrggbb."""

    def luminance(color: str) -> float:
        channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dim, bright = sorted([luminance(one), luminance(other)])
    return (bright + 0.05) / (dim + 0.05)


def test_a_page_is_small_and_deterministic(tmp_path, learner):
    assert len(learner) < 200_000
    executed = write(lab(), tmp_path / "02_sampling.ipynb")
    first, second = (render(executed, tmp_path / folder, ["learner"])[0].read_bytes() for folder in ("one", "two"))
    assert first == second


def test_the_front_page_lists_each_lab_with_its_editions(tmp_path):
    made(tmp_path, edition="learner")
    made(tmp_path, edition="instructor")
    front = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    links = [attrs["href"] for attrs in Page(front).all("a")]
    assert links == ["09_small.learner.html", "09_small.instructor.html"]
    assert "Lab 09 · Small" in front
    assert "No handouts yet" in write_contents(tmp_path / "empty").read_text(encoding="utf-8")


def test_a_skipped_level_and_a_second_title_are_put_in_order(tmp_path):
    page = made(tmp_path, markdown("#### Deep"), markdown("# Again"), markdown("## Same\n\n## Same"))
    assert [tag for tag, _ in Page(page).tags if re.fullmatch(r"h\d", tag)] == ["h1", "h2", "h2", "h2", "h2"]
    assert 'id="same"' in page
    assert 'id="same-1"' in page


def image_output(**metadata):
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
    return new_output("display_data", data={"image/png": pixel}, metadata=metadata)


def with_output(output, **extra):
    cell = code("show()")
    cell.outputs = [output]
    return {**cell, **extra}


def test_an_image_without_alt_is_refused_and_leaves_nothing_behind(tmp_path):
    from nbformat import from_dict

    cell = from_dict(with_output(image_output(), id="picture"))
    with pytest.raises(NotebookError, match="picture: an image has no alt text"):
        made(tmp_path, cell)
    assert not list((tmp_path / "out").glob("*.html"))
    described = from_dict(with_output(image_output(**{"image/png": {"alt": "One gray pixel."}})))
    assert 'alt="One gray pixel."' in made(tmp_path, described)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("![](data:image/png;base64,AAAA)", "no alt text"),
        ("![a map](https://example.org/map.png)", "would be fetched"),
        ("![a map](not_there.png)", "would be fetched"),
        ("<script>alert(1)</script>", "<script>"),
        ('<p onclick="f()">x</p>', "a script in onclick"),
        ("[x](javascript:alert)", "a script in href"),
        ('<iframe src="data:text/html,x"></iframe>', "<iframe>"),
        ("<style>@import 'x.css'</style>", "loads something"),
        ('<p style="background: url(x.png)">x</p>', "loads something"),
    ],
)
def test_what_would_reach_outside_or_run_is_refused(tmp_path, source, complaint):
    cell = markdown(source)
    cell.id = "bad-cell"
    with pytest.raises(NotebookError, match=complaint) as caught:
        made(tmp_path, cell)
    assert "bad-cell" in str(caught.value)


def test_a_picture_beside_the_notebook_travels_inside_the_page(tmp_path):
    import base64

    (tmp_path / "dot.png").write_bytes(base64.b64decode(image_output().data["image/png"]))
    assert 'src="data:image/png;base64,' in made(tmp_path, markdown("![one gray dot](dot.png)"))


@pytest.mark.parametrize(("tex", "why"), [("x_{", "the parser says"), (r"\undefinedmacro{x}", "undefinedmacro")])
def test_a_formula_that_cannot_be_drawn_is_named_with_its_cell(tmp_path, tex, why):
    cell = markdown(f"see ${tex}$ here")
    cell.id = "formula-cell"
    with pytest.raises(NotebookError, match="formula-cell: the formula") as caught:
        made(tmp_path, cell)
    assert tex in caught.value.what
    assert why in caught.value.why


def test_a_formula_that_only_the_drawing_fails_on_becomes_mathml(tmp_path, monkeypatch):
    import ziamath

    def broken(*_, **__):
        raise KeyError("no glyph")

    monkeypatch.setattr(ziamath, "Latex", broken)
    assert "<math " in made(tmp_path, markdown("$x + 1$"))


def test_a_notebook_that_is_none_and_an_edition_that_is_none_are_named(tmp_path):
    with pytest.raises(NotebookError, match="no notebook"):
        render(tmp_path / "absent.ipynb", tmp_path)
    path = write(lab(), tmp_path / "02_sampling.ipynb")
    with pytest.raises(ParameterError, match="no edition 'teacher'"):
        render(path, tmp_path, ["teacher"])


def test_a_notebook_without_a_heading_is_refused(tmp_path):
    from nbformat.v4 import new_notebook

    path = write(new_notebook(cells=[markdown("no heading")]), tmp_path / "09_small.ipynb")
    with pytest.raises(NotebookError, match="has no heading"):
        render(path, tmp_path)
