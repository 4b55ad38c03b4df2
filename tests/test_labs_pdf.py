"""PDF handouts: what Chromium prints of a page, and what happens where there is no Chromium."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner
from handout_fixture import code, lab, markdown, write
from nbformat.v4 import new_notebook, new_output

from labsupport.cli import labs
from labsupport.errors import NotebookError, ParameterError
from labsupport.labs.handout import render
from labsupport.labs.handout.audit import audit
from labsupport.labs.handout.pdf import PAPERS, print_pages, printer_row

POINTS = {"a4": (595, 842), "letter": (612, 792)}
needs_chromium = pytest.mark.skipif(printer_row().state != "ok", reason="Chromium is not installed")
needs_poppler = pytest.mark.skipif(shutil.which("pdftotext") is None, reason="poppler-utils is not installed")


@pytest.fixture(scope="module")
def handouts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pdf")
    render(write(lab(), folder / "executed" / "02_sampling.ipynb", run=True), folder / "handouts")
    return folder / "handouts"


@pytest.fixture(scope="module")
def printed(handouts) -> dict[str, Path]:
    return {path.name: path for path in print_pages(sorted(handouts.glob("02_*.html")))}


def text_of(pdf: Path) -> str:
    return subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout


@pytest.mark.browser
@needs_chromium
def test_each_page_is_printed_on_each_paper(printed):
    assert set(printed) == {
        f"02_sampling.{edition}.{paper}.pdf" for edition in ("learner", "instructor") for paper in PAPERS
    }
    for name, path in printed.items():
        box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", path.read_bytes())
        assert (float(box[1]), float(box[2])) == pytest.approx(POINTS[name.split(".")[2]], abs=1.5)


@pytest.mark.browser
@needs_chromium
def test_a_pdf_is_tagged_and_has_an_outline_a_language_and_a_title(printed):
    for path in printed.values():
        content = path.read_bytes()
        assert b"/StructTreeRoot" in content
        assert b"/Marked true" in content
        assert b"/Outlines" in content
        assert re.search(rb"/Lang \(en", content)
        assert b"/Title" in content
        assert len(content) < 3_000_000


@pytest.mark.browser
@needs_chromium
@needs_poppler
def test_each_sheet_of_paper_has_its_number_and_title(printed):
    for path in printed.values():
        sheets = text_of(path).split("\f")[:-1]
        for number, sheet in enumerate(sheets, start=1):
            foot = sheet.strip().splitlines()[-1]
            assert re.fullmatch(rf"Lab 02 · Sampling\s+{number} ?/ ?{len(sheets)}", foot.strip())


@pytest.mark.browser
@needs_chromium
@needs_poppler
def test_paper_shows_housekeeping_but_no_answer_to_a_learner(printed):
    learner, instructor = (text_of(printed[f"02_sampling.{edition}.a4.pdf"]) for edition in ("learner", "instructor"))
    assert 'MODEL = "tiny"' in learner  # folded on the screen
    assert "in the notebook" in learner
    assert "Subtract the maximum first." not in learner
    assert "the_secret_of_the_solution" not in learner
    assert "max trick" not in learner
    assert "Subtract the maximum first." in instructor
    assert "the_secret_of_the_solution" in instructor
    assert "max trick" in instructor


@pytest.mark.browser
@needs_chromium
@needs_poppler
def test_paper_is_light_and_readable_in_gray(tmp_path, printed):
    pdf = printed["02_sampling.learner.a4.pdf"]
    subprocess.run(["pdftoppm", "-r", "20", "-gray", "-l", "1", pdf, tmp_path / "page"], check=True)
    from PIL import Image

    with Image.open(next(tmp_path.glob("page*.pgm"))) as drawn:
        assert drawn.getpixel((2, 2)) == 255
        shades = drawn.histogram()
    assert sum(shades[200:]) / sum(shades) > 0.8


@pytest.mark.browser
@needs_chromium
@needs_poppler
def test_a_line_that_announces_a_cell_stands_on_the_cells_page(tmp_path):
    cells = [markdown("# Lab 02 · Sampling")]
    for number in range(60):
        cells += [markdown(f"Filler.\n\nLook at {number}:"), code(f"first = {number}\nlast = {number}")]
    executed = write(new_notebook(cells=cells), tmp_path / "02_sampling.ipynb", run=False)
    (pdf,) = print_pages(render(executed, tmp_path / "out", ["learner"]), ["a4"])
    sheets = [[line.strip() for line in sheet.splitlines() if line.strip()] for sheet in text_of(pdf).split("\f")]
    ends = [sheet[-2] for sheet in sheets if len(sheet) > 2]  # the last line is the sheet's number
    assert len(ends) > 3
    assert not [end for end in ends if end.startswith("Look at")]


@pytest.mark.browser
@needs_chromium
@needs_poppler
def test_a_figure_that_misses_its_page_by_little_is_made_smaller_and_stays_readable(tmp_path):
    cells = [markdown("# Lab 02 · Sampling")]
    for shade in range(24):
        shown = new_output("display_data", data={"image/png": picture(shade)}, metadata={"alt": f"Shade {shade} of 24"})
        cells += [markdown("Filler.\n\n" * (shade % 5 + 1)), code("draw()")]
        cells[-1].outputs = [shown]
    executed = write(new_notebook(cells=cells), tmp_path / "02_sampling.ipynb", run=False)
    (pdf,) = print_pages(render(executed, tmp_path / "out", ["learner"]), ["letter"])
    listed = subprocess.run(["pdfimages", "-list", pdf], capture_output=True, text=True, check=True).stdout
    widths = [1040 / int(row.split()[12]) * 25.4 for row in listed.splitlines()[2:]]  # mm, of pixels an inch
    assert len(widths) == 24
    assert max(widths) == pytest.approx(145, abs=1.5)
    assert 2 < sum(width < 143 for width in widths) < 24
    assert min(widths) > 0.71 * 145


def picture(shade: int) -> str:
    """A picture of a figure's width and two thirds of its height, in base64."""
    from PIL import Image

    Image.new("RGB", (1040, 690), (shade, 90, 140)).save(target := BytesIO(), format="PNG")
    return base64.b64encode(target.getvalue()).decode()


def page_of_noise(path: Path, side: int) -> Path:
    """A page with a picture that cannot be compressed, of 3 * side**2 bytes."""
    from PIL import Image

    Image.frombytes("RGB", (side, side), os.urandom(3 * side**2)).save(path.with_suffix(".png"))
    picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
    page = f'<html lang="en"><title>Noise</title><img alt="noise" src="data:image/png;base64,{picture}"></html>'
    path.write_text(page, encoding="utf-8")
    return path


@pytest.mark.browser
@needs_chromium
def test_a_print_over_3_mb_is_refused_and_not_left_behind(tmp_path):
    with pytest.raises(NotebookError, match=r"noise.a4.pdf has 3.\d MB"):
        list(print_pages([page_of_noise(tmp_path / "noise.html", 1050)], ["a4"]))
    assert not list(tmp_path.glob("*.pdf"))


def test_a_page_over_6_mb_is_refused(tmp_path):
    page = page_of_noise(tmp_path / "noise.html", 1400).read_text(encoding="utf-8")
    with pytest.raises(NotebookError, match=r"the page has 7.\d MB"):
        audit(page)


def test_a_paper_that_is_none_is_named():
    with pytest.raises(ParameterError, match="no paper 'a5'"):
        print_pages([], ["a5"])


def test_without_chromium_the_error_carries_the_mend(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotebookError, match="Chromium") as caught:
        print_pages([])
    assert "apt-get install" in caught.value.fix


def test_without_chromium_the_html_is_written_and_the_mend_printed(monkeypatch, tmp_path):
    write(lab(), tmp_path / "build" / "executed" / "02_sampling.ipynb")
    source = write(lab(), tmp_path / "02_sampling.ipynb")
    monkeypatch.setenv("PATH", "")
    done = CliRunner().invoke(labs, ["handout", str(source), "--pdf", "--build", str(tmp_path / "build")])
    assert done.exit_code == 0, done.output
    assert "No PDF was made; the HTML stands." in done.output
    assert "mend: apt-get install" in done.output
    assert {path.suffix for path in (tmp_path / "build" / "handouts").glob("02_*")} == {".html"}


@pytest.mark.browser
@needs_chromium
def test_the_front_page_names_what_was_printed(tmp_path):
    write(lab(), tmp_path / "build" / "executed" / "02_sampling.ipynb")
    source = write(lab(), tmp_path / "02_sampling.ipynb")
    done = CliRunner().invoke(labs, ["handout", str(source), "--pdf", "--build", str(tmp_path / "build")])
    assert done.exit_code == 0, done.output
    front = (tmp_path / "build" / "handouts" / "index.html").read_text(encoding="utf-8")
    assert 'href="02_sampling.learner.a4.pdf"' in front
    assert 'href="02_sampling.instructor.letter.pdf"' in front
