"""Lines of a chart: inside their frame, in order, and broken where a value is missing."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from backend.web.console.charts import Chart, Series, line_chart

VALUES = st.lists(st.none() | st.floats(-2, 3), min_size=1, max_size=80)


def places(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", path)]


@given(VALUES)
def test_every_value_has_its_place(values: list[float | None]) -> None:
    chart = line_chart([str(number) for number in range(len(values))], [Series("score", values)])
    [line] = chart.lines
    drawn = [place for path in line.paths for place in places(path)]
    there = [value for value in values if value is not None]
    assert len(drawn) == len(line.points) == len(there)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    for (x, y), value in zip(drawn, there, strict=True):
        assert chart.left <= x <= chart.right
        share = (chart.bottom - y) / (chart.bottom - 14)
        assert abs(share - min(1.0, max(0.0, value))) < 0.001
    gaps = sum(1 for before, now in zip([None, *values], values, strict=False) if before is None and now is not None)
    assert len(line.paths) == gaps


@given(st.integers(1, 500))
def test_labels_are_few_and_the_first_is_there(count: int) -> None:
    chart: Chart = line_chart([str(number) for number in range(count)], [Series("score", [0.5] * count)])
    assert 1 <= len(chart.labels) <= 7
    assert chart.labels[0][1] == "0"


def test_a_constant_curve_can_be_drawn() -> None:
    assert line_chart(["1", "2"], [Series("loss", [2.0, 2.0])], 2.0, 2.0).lines[0].points[0].y > 0
