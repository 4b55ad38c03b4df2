"""A handout in a real browser: no request leaves the page, dark mode is dark, paper is always white."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from handout_fixture import lab, write

from labsupport.labs.handout import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    executed = write(lab(), folder / "02_sampling.ipynb", run=True)
    return render(executed, folder / "out", ["learner"])[0]


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize(("scheme", "shown", "dark"), [("light", "on-light", False), ("dark", "on-dark", True)])
def test_each_mode_shows_its_own_paper_and_figures(chromium, page_file, scheme, shown, dark):
    page = chromium.new_context(color_scheme=scheme).new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(page_file.as_uri())
    visible = page.eval_on_selector_all("figure img", "all => all.filter(i => i.offsetParent).map(i => i.className)")
    assert visible == [shown] * 2
    red = page.evaluate("parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert (red < 60) == dark
    formula = page.evaluate("getComputedStyle(document.querySelector('svg.tex use')).fill")
    assert formula == page.evaluate("getComputedStyle(document.body).color")
    assert [url for url in requests if not url.startswith("data:")] == [page_file.as_uri()]


def test_paper_is_white_also_from_a_dark_screen(chromium, page_file):
    page = chromium.new_context(color_scheme="dark").new_page()
    page.goto(page_file.as_uri())
    page.emulate_media(media="print")
    assert page.eval_on_selector_all("figure img.on-dark", "all => all.every(i => !i.offsetParent)")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_a_phone_needs_no_sideways_scrolling(chromium, page_file):
    page = chromium.new_context(viewport={"width": 360, "height": 700}).new_page()
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
