"""What is kept of a run's metrics: its begin, its newest steps, and nothing that was undone."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.alarms import MetricWindow
from hybridflow.observe.alarms.metric_window import FIRST, NEWEST


def window_of(values: list[float | None], name: str = "x") -> MetricWindow:
    window = MetricWindow()
    for step, value in enumerate(values):
        assert window.take({"step": step, name: value})
    return window


def test_the_newest_values_are_those_of_steps_that_have_one() -> None:
    window = window_of([1.0, 2.0, 3.0])
    assert window.newest("x", 2) == [2.0, 3.0] and window.newest("x", 4) is None
    assert window.median("x", 3) == 2.0 and window.now("x") == 3.0
    window.take({"step": 3, "y": 1.0})
    assert window.newest("x", 2) == [2.0, 3.0] and window.newest("x", 3) == [1.0, 2.0, 3.0]
    assert window.now("x") is None and [*window.names] == ["y"]


@pytest.mark.parametrize(("gaps", "known"), [(1, True), (2, True), (3, False), (50, False)])
def test_what_fewer_than_every_second_step_has_is_no_value_of_now(gaps: int, known: bool) -> None:
    window = window_of([1.0, 2.0])
    for step in range(2, 2 + gaps):
        window.take({"step": step, "y": 1.0})
    assert (window.newest("x", 2) == [1.0, 2.0]) is known


def test_metrics_are_looked_at_together_where_steps_have_both() -> None:
    window = MetricWindow()
    for step in range(6):
        window.take({"step": step, "x": float(step)} | ({"y": 10.0 * step} if step % 2 else {}))
    assert window.together(("x", "y"), 2) == [(3.0, 30.0), (5.0, 50.0)]
    assert window.together(("x", "y"), 4) is None and window.together(("x", "z"), 1) is None


@given(st.lists(st.one_of(st.none(), st.floats(-10, 10)), min_size=1, max_size=2 * NEWEST), st.integers(1, 20))
def test_a_metric_with_gaps_is_its_newest_values(values: list[float | None], count: int) -> None:
    window = MetricWindow()
    for step, value in enumerate(values):
        window.take({"step": step} | ({} if value is None else {"x": value}))
    newest = [value for value in values[-2 * count :] if value is not None][-count:]
    possible = len(newest) == count and count <= len(values)
    assert window.newest("x", count) == (newest if possible else None)


def test_what_is_not_finite_is_nan_and_no_part_of_a_median() -> None:
    window = window_of([1.0, None, 3.0])
    assert window.newest("x", 2) is None and window.first("x", 2) == [1.0, 3.0]
    assert math.isnan(window_of([1.0, math.inf]).now("x") or 0.0)


def test_the_begin_may_be_skipped() -> None:
    window = window_of([9.0, 1.0, 2.0])
    assert window.first_median("x", 2, skip=1) == 1.5 and window.first_step("x", 1) == 1
    assert window.first("x", 3, skip=1) is None


@pytest.mark.parametrize(
    "line", [{}, {"step": None}, {"step": True}, {"step": 1.5}, {"step": 1, "validation/accuracy": 0.5}]
)
def test_other_lines_are_no_steps(line: dict[str, float | None]) -> None:
    assert not MetricWindow().take(line)


def test_what_is_no_number_is_not_there() -> None:
    window = MetricWindow()
    assert window.take({"step": 0, "x": "long", "y": True, "z": 10**400})
    assert [*window.names] == ["z"] and math.isnan(window.now("z") or 0.0)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=3 * NEWEST), st.data())
def test_a_run_that_goes_back_is_as_if_it_had_not_gone_on(values: list[float], data: st.DataObject) -> None:
    """But that what has left the window before does not come back."""
    back = data.draw(st.integers(0, len(values) - 1))
    window = window_of([*values])
    for step in range(back, len(values)):
        window.take({"step": step, "x": values[step]})
    assert [*window.steps][-1] == len(values) - 1
    count = min(len(values) - back, NEWEST)
    assert window.newest("x", count) == values[-count:]
    assert window.first("x", min(len(values), FIRST)) == values[:FIRST]


def test_steps_of_few_rows_are_taken_together() -> None:
    window = window_of([8.0, 16.0, 40.0, 8.0, 8.0], "rollout/rows")
    assert (window.newest_with(1, 3), window.newest_with(57, 3), window.newest_with(81, 3)) == (3, 4, None)
    assert (window.first_with(8, 1), window.first_with(9, 1), window.first_with(64, 2)) == (1, 2, 3)
    assert window.first_with(81, 1) is None
    assert (window_of([1.0]).newest_with(64, 3), window_of([1.0]).first_with(64, 1)) == (3, 1), "nobody counts them"
