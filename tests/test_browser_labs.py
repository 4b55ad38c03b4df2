"""Every lab as its learner meets it: JupyterLab in Chromium, from the first page to a passed exercise."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from browsers import chromium, end_kernels, jupyterlab, needs_chromium, serious_findings, shot

from labsupport.errors import NotebookError
from labsupport.labs.launcher import PAGE, shelve
from labsupport.labs.learner import write_copies
from labsupport.labs.lint.exercises import exercises
from labsupport.labs.notebook import find_labs, read
from labsupport.labs.progress import load

pytestmark = [pytest.mark.browser, needs_chromium]
LABS = find_labs()
SECOND = 1000  # Playwright counts in milliseconds
RAN = r"""() => {
  const cells = [...document.querySelectorAll('.jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell')];
  const failed = document.querySelector('[data-mime-type="application/vnd.jupyter.stderr"] .ansi-red-fg, '
    + '[data-mime-type="application/vnd.jupyter.error"]');
  return failed || (cells.length > 0 &&
    cells.every(cell => /\[\d+\]:/.test(cell.querySelector('.jp-InputPrompt').innerText))
    );
}"""
BEGAN = r"""() => [...document.querySelectorAll('.jp-InputPrompt')].some(one => /\[[\d*]+\]:/.test(one.innerText))"""
BYTES = """async image => {
  const bytes = await (await fetch(image.src)).arrayBuffer();
  const digest = await crypto.subtle.digest('SHA-256', bytes);
  return [...new Uint8Array(digest)].join() + ' of ' + bytes.byteLength;
}"""


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learner")
    write_copies(LABS, folder)
    shelve(LABS, folder)
    return folder


@pytest.fixture(scope="module")
def server(copies, tmp_path_factory):
    with jupyterlab(copies, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser, server):
    """A page that fails the test when it asks for anything outside of this machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    outside = []
    page.on("request", lambda request: outside.append(request.url) if is_outside(request.url) else None)
    yield page
    shot(page, "last")
    page.close()
    end_kernels(server)
    assert outside == []


def is_outside(address):
    return address.startswith("http") and not address.startswith("http://127.0.0.1:")


class Screen:
    """A lab on the screen: its cells by their place in the file."""

    def __init__(self, page, path):
        self.page, self.path, self.notebook = page, path, read(path)
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")

    def cell(self, index):
        return self.panel.locator(".jp-Notebook .jp-Cell").nth(index)

    def tagged(self, tag):
        return [cell.index for cell in self.notebook.tagged(tag) if cell.kind == "code"]

    def run_all(self):
        for _ in range(3):  # a click that comes before the kernel makes JupyterLab ask which one to take
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_text("Run All Cells", exact=True).click()
            self.page.wait_for_timeout(3 * SECOND)
            question = self.page.locator(".jp-Dialog button.jp-mod-accept")
            if not question.count() and self.page.evaluate(BEGAN):
                break
            if question.count():
                question.click()
                self.page.wait_for_timeout(3 * SECOND)
        self.page.wait_for_function(RAN, timeout=480 * SECOND, polling=500)

    def saved(self):
        """The file after Ctrl+S, once it holds what the screen shows: JupyterLab also saves by itself, in mid-run."""
        self.panel.locator(".jp-Notebook").first.focus()
        self.page.keyboard.press("Control+s")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with suppress(NotebookError):  # it may be being written
                saved = read(self.path)
                if all(cell.node.execution_count for cell in saved.code):
                    return saved
            self.page.wait_for_timeout(200)
        raise AssertionError("the lab was not saved")

    def write(self, index, source):
        """Type into a cell in place of what stands there, and run it."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(source)
        self.run(index)

    def run(self, index):
        before = self.prompt(index)
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(
            "([cell, old]) => { const now = cell.querySelector('.jp-InputPrompt').innerText;"
            " return now !== old && /\\d/.test(now); }",
            arg=[self.cell(index).element_handle(), before],
            timeout=120 * SECOND,
        )

    def prompt(self, index):
        return self.cell(index).locator(".jp-InputPrompt").inner_text()

    def output(self, index):
        return self.cell(index).locator(".jp-OutputArea-output").all_inner_texts()


def opened(page, server, path):
    page.goto(f"{server}/lab/tree/{path.name}?token=t&reset")
    page.locator(".jp-NotebookPanel .jp-Notebook .jp-Cell").first.wait_for(timeout=60 * SECOND)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").first.wait_for(timeout=60 * SECOND)
    page.get_by_text("Python 3 (ipykernel) | Idle").first.wait_for(timeout=60 * SECOND)
    return Screen(page, path)


@pytest.mark.timeout(1200)
@pytest.mark.real_model
@pytest.mark.notebook
@pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.stem)
def test_a_lab_in_the_browser(lab, copies, server, page):
    """Runs all cells with stubs untouched; moves the signature; one exercise right, one wrong."""
    screen = opened(page, server, copies / lab.name)
    screen.run_all()
    everything_ran(screen)
    the_picture_moves(screen, lab.stem)
    right, wrong = solved(screen, read(lab))
    shot(page, f"{lab.stem}_verdicts")
    kept = load(copies)
    assert (kept[right].passed != "", kept[wrong].passed, kept[wrong].wrong) == (True, "", 1)
    screen.saved()
    page.goto(f"{server}/lab/tree/{PAGE}?token=t&reset")
    row = page.locator(f".jp-RenderedMarkdown tr:has-text('{lab.name[:2]} · ')")
    row.wait_for()
    assert re.search(r"■◧□+ 1 of \d", row.inner_text())


def test_the_first_page_leads_to_the_labs(server, page):
    page.goto(f"{server}/?token=t")
    page.get_by_role("heading", name="LLM Serving Labs").wait_for(timeout=60 * SECOND)
    links = page.locator(".jp-MarkdownViewer .jp-RenderedMarkdown td a")
    assert links.all_inner_texts() == [read(lab).title.removeprefix("Lab ") for lab in LABS]
    assert serious_findings(page, ".jp-RenderedMarkdown") == []
    shot(page, "start")
    links.last.click()
    page.locator(".jp-NotebookPanel .jp-Notebook h1").first.wait_for(timeout=60 * SECOND)
    assert page.locator(".jp-NotebookPanel h1").first.inner_text().startswith(read(LABS[-1]).title)


def everything_ran(screen):
    """No cell failed, and each check says that its exercise was not attempted."""
    saved = screen.saved()
    failed = [output for cell in saved.code for output in cell.node.outputs if output.output_type == "error"]
    assert failed == []
    assert all(cell.node.execution_count for cell in saved.code)
    checks = saved.tagged("check")
    said = ["".join(output.get("text", "") for output in cell.node.outputs) for cell in checks]
    assert all(": not yet attempted." in text for text in said), said
    shot(screen.page, f"{screen.path.stem}_end")


def the_picture_moves(screen, name):
    """Each control changes the picture or the sentence below it; the first one changes the picture."""
    (index,) = screen.tagged("signature")
    handles = screen.cell(index).locator(".noUi-handle")
    handles.first.scroll_into_view_if_needed()
    shot(screen.page, f"{name}_signature")
    before = shown(screen, index)
    for number in range(handles.count()):
        handle = handles.nth(number)
        there, back = ("ArrowLeft", "ArrowRight") if at_its_end(handle) else ("ArrowRight", "ArrowLeft")
        steps = 0
        while steps == 0 or not within_seconds(screen.page, lambda: shown(screen, index) != before):
            assert steps < 4, f"control {number} changes nothing up to {handle.get_attribute('aria-valuetext')}"
            handle.press(there)
            steps += 1
        if number == 0:
            assert within_seconds(screen.page, lambda: shown(screen, index)[0] != before[0])
            shot(screen.page, f"{name}_signature_moved")
        for _ in range(steps):  # each control is tried from the start: top-k = 1 would leave a seed without effect
            handle.press(back)
        assert within_seconds(screen.page, lambda: shown(screen, index) == before)


def shown(screen, index):
    """The live picture's bytes, and the sentence below it."""
    cell = screen.cell(index)
    return cell.locator("img.widget-image").evaluate(BYTES), cell.locator("p[role=status]").inner_text()


def within_seconds(page, condition):
    for _ in range(50):
        if condition():
            return True
        page.wait_for_timeout(0.2 * SECOND)
    return False


def at_its_end(handle):
    return handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemax")


def solved(screen, original):
    """Solve the first exercise, miss the second, and look at both verdicts; returns their ids."""
    first, second = exercises(original)[:2]
    ids = [one.heading.split()[1] for one in (first, second)]
    right = "\n\n".join(cell.source for cell in first.cells if cell.kind == "code" and "solution" in cell.tags)
    stub = next(cell.source for cell in second.cells if "exercise" in cell.tags)
    wrong = re.sub(r"= None", "= 'wrong'", stub.replace("raise NotImplementedError", "return 'wrong'"))
    for one, source, verdict in ((first, right, "✓ Exercise {}: passed."), (second, wrong, "✗ Exercise {}: not right")):
        id = one.heading.split()[1]
        stub_at, check_at = places(screen, id)
        screen.write(stub_at, source)
        screen.run(check_at)
        assert verdict.format(id) in "\n".join(screen.output(check_at))
    said = "\n".join(screen.output(places(screen, ids[1])[1]))
    assert f'hint("{ids[1]}") shows hint 1 of' in said
    return ids


def places(screen, id):
    """Where the exercise and its check stand in the learner's copy."""
    (check,) = [cell.index for cell in screen.notebook.tagged("check") if f'"{id}"' in cell.source]
    return max(index for index in screen.tagged("exercise") if index < check), check
