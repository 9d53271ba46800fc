"""Metrics: joining parts gives what the whole would have given."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.dispatch import concat
from hybridflow.observe.metrics import Metrics


def of(values: list[float]) -> Metrics:
    """What one rank records for its rows."""
    metrics = Metrics()
    metrics.mean("mean", sum(values), weight=len(values))
    metrics.total("total", sum(values))
    for value in values:
        metrics.largest("largest", value)
    return metrics


@given(st.lists(st.lists(st.floats(-100, 100), max_size=5), min_size=1, max_size=5))
def test_uneven_parts_join_exactly(parts: list[list[float]]) -> None:
    values = [value for part in parts for value in part]
    found = concat([of(part) for part in parts]).result()
    assert found["total"] == pytest.approx(sum(values), abs=1e-9)
    assert set(found) == ({"mean", "largest", "total"} if values else {"total"})
    if values:
        assert found["mean"] == pytest.approx(sum(values) / len(values), abs=1e-9)
        assert found["largest"] == max(values)


def test_a_name_may_be_recorded_many_times() -> None:
    metrics = Metrics()
    metrics.mean("actor/kl", 6.0, weight=3)
    metrics.mean("actor/kl", 2.0)
    assert metrics.result() == {"actor/kl": 2.0}


def test_joining_leaves_the_parts_alone() -> None:
    first, second = of([1.0]), of([3.0])
    concat([first, second])
    assert first.result() == {"largest": 1.0, "mean": 1.0, "total": 1.0}


def test_nothing_counted_is_no_metric() -> None:
    metrics = Metrics()
    metrics.mean("reward", 0.0, weight=0)
    assert metrics.result() == {}


def test_results_are_sorted_by_name() -> None:
    metrics = Metrics()
    metrics.mean("b", 1.0)
    metrics.largest("a", 1.0)
    assert list(metrics.result()) == ["a", "b"]


@pytest.mark.parametrize("values", [[math.nan, 1.0], [1.0, math.nan], [1.0, math.nan, 2.0]])
def test_nan_is_not_hidden_by_a_number(values: list[float]) -> None:
    found = concat([of([value]) for value in values]).result()
    assert math.isnan(found["largest"]) and math.isnan(found["mean"])
