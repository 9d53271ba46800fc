"""Curves: every point where there is room, else buckets that hide no extreme."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.observe.report.choices import short
from hybridflow.observe.report.curves import drawn, series, varying

VALUES = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=200)


def test_values_stand_at_their_steps_and_what_is_missing_is_none() -> None:
    lines = [{"step": 0, "a": 1.0}, {"step": 2, "a": None, "b": 2}, {"step": 3, "b": "edited", "c": float("nan")}]
    assert series(lines) == ([0, 2, 3], {"a": [1.0, None, None], "b": [None, 2, None]})


def test_few_points_are_drawn_as_they_are() -> None:
    assert drawn([0, 1, 5], {"a": [0.5, None, 1.5], "same": [2.0, 2.0, 2.0]}, 30) == {
        "steps": [0, 1, 5],
        "every": 1,
        "mean": {"a": [0.5, None, 1.5], "same": 2},
        "low": {},
        "high": {},
    }


@given(VALUES, st.integers(1, 60))
def test_buckets_keep_extremes_and_are_as_many_as_there_is_room_for(curve: list[float | None], most: int) -> None:
    shown = drawn(list(range(len(curve))), {"a": curve}, most)
    assert len(shown["steps"]) * (3 if shown["every"] > 1 else 1) <= max(most, 3 * 12)
    assert shown["steps"] == sorted(set(shown["steps"])) and shown["steps"][-1] < len(curve)
    if varying({"a": curve}):
        known = [value for value in curve if value is not None]
        low, high = (shown[kind].get("a", shown["mean"]["a"]) for kind in ("low", "high"))
        assert min(value for value in low if value is not None) == pytest.approx(min(known), rel=1e-4)
        assert max(value for value in high if value is not None) == pytest.approx(max(known), rel=1e-4)
    else:
        assert shown["mean"]["a"] == short(curve[0])


def test_a_bucket_has_the_mean_of_what_is_known() -> None:
    shown = drawn(list(range(40)), {"a": [None, 1.0, 3.0, *[0.0] * 37]}, 39)
    assert shown["every"] == 4 and shown["mean"]["a"][0] == pytest.approx(4 / 3, rel=1e-4)
    assert (shown["low"]["a"][0], shown["high"]["a"][0]) == (0, 3) and shown["steps"][:2] == [2, 6]
