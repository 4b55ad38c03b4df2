"""Every handout in Chromium, offline: silent console, no request, alt text on each picture, accessible."""

from __future__ import annotations

import pytest
from browsers import chromium, needs_chromium, serious_findings, shot
from labs_executed import executed

from labsupport.labs.notebook import find_labs

pytestmark = [pytest.mark.browser, pytest.mark.notebook, pytest.mark.real_model, needs_chromium]
WINDOW = {"width": 1000, "height": 1300}


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


def test_axe_finds_what_is_wrong(browser):
    page = browser.new_page()
    page.set_content('<html lang="en"><main><img src="data:,"><p style="color: #bbb; background: #fff">pale</p></main>')
    assert {found.split()[0] for found in serious_findings(page)} == {"image-alt", "color-contrast", "document-title"}


@pytest.fixture(params=["light", "dark"])
def page(request, browser):
    """A page without a network; it fails the test when the console says anything or a request is made."""
    context = browser.new_context(color_scheme=request.param, viewport=WINDOW, offline=True)
    page, trouble = context.new_page(), []
    page.scheme = request.param
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda made: trouble.append(made.url) if not made.url.startswith(("file:", "data:")) else None)
    yield page
    context.close()
    assert trouble == []


@pytest.mark.parametrize("lab", find_labs(), ids=lambda lab: lab.stem)
def test_the_handouts_of_a_lab_are_offline_quiet_and_accessible(lab, page, tmp_path_factory):
    outcome = executed(lab, tmp_path_factory)
    pages = [path for path in outcome.handouts if path.suffix == ".html"]
    assert len(pages) == 2, outcome.problem
    for path in pages:
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        bare = page.eval_on_selector_all(
            "img, [role=img]",
            "all => all.filter(bare).map(e => e.outerHTML)".replace(
                "bare", "e => !(e.alt || e.getAttribute('aria-label') || e.querySelector(':scope > title'))"
            ),
        )
        assert bare == []
        broken = page.eval_on_selector_all("img", "all => all.filter(i => !i.naturalWidth).map(i => i.alt)")
        assert broken == []
        if "learner" in path.name:
            shot(page, f"{path.stem}_{page.scheme}", full_page=True)
        assert serious_findings(page) == []
        page.set_viewport_size({"width": 360, "height": 780})  # a phone
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        page.set_viewport_size(WINDOW)
