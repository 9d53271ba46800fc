"""Metrics: joining parts gives what the whole would have given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.dispatch import concat
from hybridflow.observe.metrics import Metrics
from hybridflow.runtime.messages import Report


def build_metrics(values: list[float]) -> Metrics:
    """What one rank records for its rows."""
    metrics = Metrics()
    metrics.mean("mean", sum(values), weight=len(values))
    metrics.total("total", sum(values))
    for value in values:
        metrics.max("largest", value)
    return metrics


@given(st.lists(st.lists(st.floats(-100, 100), max_size=5), min_size=1, max_size=5))
def test_uneven_parts_join_exactly(parts: list[list[float]]) -> None:
    values = [value for part in parts for value in part]
    found = concat([build_metrics(part) for part in parts]).result()
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


def test_a_mean_over_things_is_over_all_of_them_also_where_none_had_any_of_it() -> None:
    some, none = Metrics(), Metrics()
    some.count("talks", 2)
    some.per("talks/found", 1.0, "talks")
    none.count("talks", 6)
    assert concat([some, none]).result() == concat([none, some]).result() == {"talks/found": 0.125}
    renamed = concat([some, none]).renamed("talks", "checker")
    assert concat([renamed, some]).result() == {"checker/found": 0.125, "talks/found": 0.5}
    assert none.result() == {} and none


def test_joining_leaves_the_parts_alone() -> None:
    first, second = build_metrics([1.0]), build_metrics([3.0])
    concat([first, second])
    assert first.result() == {"largest": 1.0, "mean": 1.0, "total": 1.0}


def test_nothing_counted_is_no_metric() -> None:
    metrics = Metrics()
    metrics.mean("reward", 0.0, weight=0)
    assert metrics.result() == {}


def test_results_are_sorted_by_name() -> None:
    metrics = Metrics()
    metrics.mean("b", 1.0)
    metrics.max("a", 1.0)
    assert list(metrics.result()) == ["a", "b"]


@pytest.mark.parametrize("values", [[math.nan, 1.0], [1.0, math.nan], [1.0, math.nan, 2.0]])
def test_nan_is_not_hidden_by_a_number(values: list[float]) -> None:
    found = concat([build_metrics([value]) for value in values]).result()
    assert math.isnan(found["largest"]) and math.isnan(found["mean"])


PARTS = st.lists(st.lists(st.floats(-100, 100, width=32), max_size=5), min_size=1, max_size=5)


@given(PARTS, st.sampled_from([0.0, 1e7]))
def test_a_spread_over_uneven_parts_is_that_of_the_whole(parts: list[list[float]], far: float) -> None:
    """Also far from 0, where a sum of squares has no digits left for the deviation."""
    whole = np.array([value + far for part in parts for value in part])
    ranks = [Metrics() for _ in parts]
    for metrics, part in zip(ranks, parts, strict=True):
        metrics.spread("reward/", np.array(part) + far)
    found = concat(ranks).result()
    assert set(found) == ({f"reward/{name}" for name in ("mean", "std", "min", "max")} if len(whole) else set())
    if len(whole):
        assert found["reward/mean"] == pytest.approx(whole.mean(), abs=1e-6)
        assert found["reward/std"] == pytest.approx(whole.std(ddof=1) if len(whole) > 1 else 0.0, abs=1e-5)
        assert (found["reward/min"], found["reward/max"]) == (whole.min(), whole.max())


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_a_spread_is_the_same_bits_however_its_values_are_parted(values: list[float], cuts: list[int]) -> None:
    """Graders that are given rows as they are sampled measure other parts at each time."""
    whole, bounds = Metrics(), [0, *sorted(cuts), len(values)]
    whole.spread("reward/", values)
    parts = [Metrics() for _ in bounds[1:]]
    for metrics, start, stop in zip(parts, bounds, bounds[1:], strict=False):
        metrics.spread("reward/", values[start:stop])
    assert concat(parts).result() == concat(parts[::-1]).result() == whole.result()


@pytest.mark.parametrize("values", [[math.nan, 1.0], [math.inf, 1.0], [1e200, 1.0], [1e308, 1e308]])
def test_the_spread_of_what_is_beyond_numbers_is_none(values: list[float]) -> None:
    metrics = Metrics()
    metrics.spread("reward/", values)
    assert not math.isfinite(metrics["reward/std"])


@given(PARTS)
def test_explained_variance_over_uneven_parts_is_that_of_the_whole(parts: list[list[float]]) -> None:
    targets = [np.array(part) for part in parts]
    guesses = [np.round(part / 10) * 10 + number for number, part in enumerate(targets)]
    ranks = [Metrics() for _ in parts]
    for metrics, part, guess in zip(ranks, targets, guesses, strict=True):
        metrics.explain("critic/vf_explained_var", part, guess)
    found, whole = concat(ranks).result(), np.concatenate(targets)
    if not len(whole) or whole.var() < 1e-6:
        return
    errors = whole - np.concatenate(guesses)
    assert found["critic/vf_explained_var"] == pytest.approx(1 - errors.var() / whole.var(), rel=1e-6, abs=1e-6)


def test_what_does_not_vary_is_not_explained() -> None:
    metrics = Metrics()
    metrics.explain("critic/vf_explained_var", [1.0, 1.0], [0.0, 1.0])
    assert metrics.result() == {} and metrics


@pytest.mark.parametrize("reward", [1.0, 0.1, 0.7])
def test_the_rounding_of_equal_returns_is_not_explained(reward: float) -> None:
    values = np.random.default_rng(1).normal(size=7).astype(np.float32)
    returns = (np.float32(reward) - values) + values  # as an estimator makes them: advantages and values
    metrics = Metrics()
    for part in (slice(0, 2), slice(2, 7)):
        ranks = Metrics()
        ranks.explain("critic/vf_explained_var", returns[part], values[part])
        metrics.add(ranks)
    assert returns.std() > 0
    assert "critic/vf_explained_var" not in metrics


@given(st.lists(st.integers(0, 5), min_size=1, max_size=9), st.integers(0, 9))
def test_the_effective_share_of_weights_is_kishs_however_they_are_parted(weights: list[int], cut: int) -> None:
    metrics = Metrics()
    for part in (weights[:cut], weights[cut:]):
        rank = Metrics()
        rank.effective("rollout_correction/effective_share", part)
        metrics.add(rank)
    expected = sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights)) if any(weights) else 0.0
    assert metrics["rollout_correction/effective_share"] == pytest.approx(expected, abs=1e-9)


def test_without_weights_there_is_no_effective_share() -> None:
    metrics = Metrics()
    metrics.effective("rollout_correction/effective_share", [])
    assert "rollout_correction/effective_share" not in metrics


def test_everything_survives_the_way_from_a_rank() -> None:
    metrics = build_metrics([1.0, 5.0])
    metrics.min("smallest", -1.0)
    metrics.spread("reward/", [1.0, 2.0, 4.0])
    metrics.explain("explained", [1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    metrics.effective("weighed", [1.0, 3.0])
    there = Report.decode(Report(metrics=metrics).encode()).metrics
    assert there == metrics and there is not None and there.result() == metrics.result()


def test_records_of_other_names_are_the_same() -> None:
    metrics = Metrics()
    metrics.mean("actor/kl", 6.0, 3)
    metrics.max("actor/kl_max", 4.0)
    metrics.spread("reward/", [1.0, 3.0])
    renamed = metrics.renamed("actor/", "checker/")
    assert {name: renamed[name] for name in renamed if "checker" in name} == {"checker/kl": 2.0, "checker/kl_max": 4.0}
    assert {*renamed} ^ {*metrics} == {"actor/kl", "actor/kl_max", "checker/kl", "checker/kl_max"}
    assert renamed["reward/std"] == metrics["reward/std"]
