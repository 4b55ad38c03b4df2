"""The memory bars: drawn in both themes, and only for sizes that exist."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from labsupport.errors import ParameterError
from labsupport.figures.memory import MemoryBar, memory_bars

ALT = "Two bars of memory: one of 16 GB fits below the line at 24 GB, one of 31 GB crosses it."


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_bars_are_drawn_against_the_line(theme: str) -> None:
    bars = [MemoryBar("int8", 7.0, 8.0, 1.0), MemoryBar("float16", 14.0, 16.0, 1.0)]
    figure = memory_bars(bars, capacity=24.0, device="24 GB card", alt=ALT)
    picture = Image.open(io.BytesIO(figure.png(theme))).convert("RGB")
    assert picture.width == 1040
    assert len(set(picture.resize((104, picture.height // 10)).getdata())) > 20
    assert figure.badge == "simulated"


@pytest.mark.parametrize("bars", [[], [MemoryBar("x", -1.0, 0.0, 0.0)]])
def test_sizes_that_do_not_exist_are_refused(bars: list[MemoryBar]) -> None:
    with pytest.raises(ParameterError, match="negative size"):
        memory_bars(bars, capacity=24.0, device="24 GB card", alt=ALT)
