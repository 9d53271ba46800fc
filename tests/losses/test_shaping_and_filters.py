"""Shaped rewards, and which rows are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.filter_trial import keeps_nothing
from hybridflow.losses.reward_shapings import ShapingInputs, overlong, reward_shapings, shaping
from hybridflow.losses.rollout_filters import FilterInputs, RolloutFilter, rollout_filters

LIMIT = 20
ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 1.0]), st.integers(-2, 2), st.integers(0, LIMIT)), max_size=12
)  # reward, group, length


def test_the_names_are_known() -> None:
    assert sorted(reward_shapings) == ["none", "overlong", "sigmoid"]
    assert sorted(rollout_filters) == ["overlong", "unequal_groups"]


def punishment_loop(length: int, cache: float) -> float:
    """Equation 13, case by case."""
    if length <= LIMIT - cache:
        return 0.0
    if length <= LIMIT:
        return (LIMIT - cache - length) / cache
    return -1.0


@given(ROWS, st.sampled_from([0.2, 0.5, 1.0]), st.sampled_from([1.0, 0.5]))
def test_overlong_shaping_against_a_loop(rows: list[tuple[float, int, int]], buffer: float, penalty: float) -> None:
    inputs = ShapingInputs(torch.tensor([r for r, _, _ in rows]), torch.tensor([n for *_, n in rows]).long(), LIMIT)
    found = shaping("overlong", {"buffer": buffer, "penalty": penalty})(inputs)
    expected = [r + penalty * punishment_loop(n, buffer * LIMIT) for r, _, n in rows]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_beyond_the_limit_the_punishment_is_whole() -> None:
    inputs = ShapingInputs(torch.ones(2), torch.tensor([LIMIT, LIMIT + 9]), LIMIT)
    assert overlong(inputs).tolist() == pytest.approx([0.0, 0.0])


@given(st.lists(st.floats(-80, 80), min_size=1, max_size=5), st.floats(-5, 5))
def test_sigmoid_shaping_against_a_loop(rewards: list[float], reference: float) -> None:
    inputs = ShapingInputs(torch.tensor(rewards, dtype=torch.float64), torch.ones(len(rewards)).long(), LIMIT)
    found = shaping("sigmoid", {"reference": reference})(inputs)
    assert found.tolist() == pytest.approx([1 / (1 + math.exp(reference - reward)) for reward in rewards])


def test_a_buffer_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match="buffer is 4096"):
        overlong(ShapingInputs(torch.ones(1), torch.tensor([1]), LIMIT), buffer=4096)


def test_no_shaping_leaves_rewards() -> None:
    rewards = torch.tensor([1.0, 2.0])
    assert shaping("none", {})(ShapingInputs(rewards, torch.tensor([1, LIMIT]), LIMIT)) is rewards


def build_filter_inputs(rows: list[tuple[float, int, int]]) -> FilterInputs:
    rewards, groups, lengths = (np.array([row[at] for row in rows]) for at in range(3))
    truncated = lengths >= LIMIT
    return FilterInputs(rewards.astype(np.float32), groups.astype(np.int64), lengths.astype(np.int64), truncated)


@given(ROWS)
def test_unequal_groups_against_a_loop(rows: list[tuple[float, int, int]]) -> None:
    kept = [i for i, (_, group, _) in enumerate(rows) if len({r for r, g, _ in rows if g == group}) > 1]
    assert rollout_filters.get("unequal_groups")(build_filter_inputs(rows)).tolist() == kept


@given(ROWS)
def test_overlong_filter_against_a_loop(rows: list[tuple[float, int, int]]) -> None:
    kept = [i for i, (*_, length) in enumerate(rows) if length < LIMIT]
    assert rollout_filters.get("overlong")(build_filter_inputs(rows)).tolist() == kept


@pytest.mark.parametrize("name", ["unequal_groups", "overlong"])
def test_a_filter_of_ours_can_keep_rows(name: str) -> None:
    assert not keeps_nothing(rollout_filters.get(name), prompts=4, samples=8, limit=LIMIT)


def test_a_filter_that_compares_samples_keeps_none_of_one() -> None:
    assert keeps_nothing(rollout_filters.get("unequal_groups"), prompts=512, samples=1, limit=LIMIT)


@pytest.mark.parametrize(
    ("keeps", "nothing"),
    [
        (lambda rows: np.flatnonzero(rows.rewards >= 1), False),
        (lambda rows: np.flatnonzero((rows.rewards > 6) & (rows.rewards < 8)), False),
        (lambda rows: np.flatnonzero(rows.rewards < 0), False),
        (lambda rows: np.flatnonzero(rows.rewards > 900), False),
        (lambda rows: np.flatnonzero(rows.rewards < -5e4), False),
        (lambda rows: np.flatnonzero(rows.truncated), False),
        (lambda rows: np.flatnonzero(rows.lengths == LIMIT // 2), False),
        (lambda rows: np.flatnonzero(rows.lengths > LIMIT), True),
        (lambda rows: np.zeros(0, dtype=np.int64), True),
    ],
)
def test_a_filter_of_the_users_is_tried_on_what_may_come(keeps: RolloutFilter, nothing: bool) -> None:
    assert keeps_nothing(keeps, prompts=16, samples=1, limit=LIMIT) is nothing


def test_of_few_rows_there_are_more_trials() -> None:
    narrow = lambda rows: np.flatnonzero((rows.rewards > 0.29) & (rows.rewards < 0.31))  # noqa: E731
    assert not keeps_nothing(narrow, prompts=1, samples=1, limit=LIMIT)
    assert keeps_nothing(rollout_filters.get("unequal_groups"), prompts=1, samples=1, limit=LIMIT)


def test_a_filter_that_raises_is_left_to_the_run() -> None:
    assert not keeps_nothing(lambda rows: 1 // 0, prompts=16, samples=1, limit=LIMIT)  # type: ignore[arg-type, return-value]
