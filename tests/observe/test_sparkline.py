"""Sparklines: as wide as there is room, in the order of the numbers, whatever these are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.sparkline import BARS, sparkline


def test_a_line_that_rises() -> None:
    assert sparkline([(step, float(step)) for step in range(8)], 8) == BARS
    assert sparkline([(step, float(step)) for step in range(80)], 8) == BARS


def test_what_has_no_number_is_a_blank() -> None:
    assert sparkline([(0, 0.0), (1, None), (2, 1.0)], 10) == "▁ █"
    assert sparkline([(0, 0.0), (3, 1.0)], 10) == "▁  █"
    assert sparkline([(0, None)], 10) == " " and sparkline([], 10) == "" and sparkline([(0, 1.0)], 0) == ""


def test_a_number_that_stays_is_a_low_line() -> None:
    assert sparkline([(step, 5.0) for step in range(4)], 10) == "▁▁▁▁"


POINTS = st.lists(st.tuples(st.integers(0, 2**62), st.none() | st.floats(allow_nan=False, allow_infinity=False)))


@given(POINTS.map(lambda points: sorted(points, key=lambda point: point[0])), st.integers(-1, 50))
def test_any_numbers_are_drawn(points: list[tuple[int, float | None]], width: int) -> None:
    line = sparkline(points, width)
    assert len(line) <= max(0, width) and set(line) <= {*BARS, " "}
