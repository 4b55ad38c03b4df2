"""Notebooks as data: reading, tags, the card, parameters, and which lab a person means."""

from __future__ import annotations

import pytest
from labs_notebooks import PARAMETERS, SAMPLE, write_notebook

from labsupport.errors import NotebookError, ParameterError
from labsupport.labs.notebook import find_labs, read, select


def test_a_lab_is_read_with_its_title_card_parameters_and_tags():
    lab = read(SAMPLE)
    assert (lab.number, lab.title) == ("90", "Lab 90 · A sample")
    assert lab.card["Minutes"] == "10"
    assert lab.card["Profile"] == "cpu"
    assert lab.parameters == {"PROFILE": "cpu", "MODEL": "smollm2-135m-instruct", "SEED": 0, "FAST": True}
    assert [cell.source for cell in lab.tagged("cleanup")] == ["lab.close()"]


@pytest.mark.parametrize("content", ["", "no json", "{}", '{"cells": 3}', '{"nbformat": 4, "cells": []}', "[1]"])
def test_what_is_no_notebook_is_said_so(tmp_path, content):
    path = tmp_path / "01_bad.ipynb"
    path.write_text(content)
    with pytest.raises(NotebookError, match="is not a notebook"):
        read(path)


def test_a_missing_file_and_an_empty_notebook_are_said_so(tmp_path):
    with pytest.raises(NotebookError, match="no notebook"):
        read(tmp_path / "02_absent.ipynb")
    empty = tmp_path / "02_empty.ipynb"
    empty.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    with pytest.raises(NotebookError, match="has no cells"):
        read(empty)


@pytest.mark.parametrize(
    "line", ["SEED = 1 + x", "SEED = int('3')", "import os", "SEED += 1", "SEED = ", "A, B = 1, 2"]
)
def test_parameters_are_literals_only(tmp_path, line):
    lab = read(write_notebook(tmp_path / "01_a.ipynb", (f"RATE = -1.5\n{line}", "parameters")))
    with pytest.raises(NotebookError, match="line 2 of the parameters is not NAME = literal"):
        _ = lab.parameters


def test_labs_are_chosen_by_number_name_path_or_all(tmp_path):
    first, second = (write_notebook(tmp_path / name, PARAMETERS) for name in ("02_two.ipynb", "11_eleven.ipynb"))
    other = write_notebook(tmp_path / "elsewhere" / "draft.ipynb", PARAMETERS)
    assert find_labs(tmp_path) == [first, second]
    assert select([], tmp_path) == select(["all"], tmp_path) == [first, second]
    assert select(["11", "2"], tmp_path) == [second, first]
    assert select(["02_two", "all"], tmp_path) == [first, second]
    assert select([str(other)], tmp_path) == [other]
    with pytest.raises(ParameterError, match="no lab '3'") as caught:
        select(["3"], tmp_path)
    assert "02_two, 11_eleven" in str(caught.value)
