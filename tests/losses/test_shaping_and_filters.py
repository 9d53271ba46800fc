"""Shaped rewards, and which rows are left out."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.config.schema import AlgorithmConfig, ComponentConfig
from hybridflow.losses.filter_trial import keeps_nothing
from hybridflow.losses.reward_shapings import ShapingInputs, overlong, reward_shapings, shape, shaping, shapings_of
from hybridflow.losses.rollout_filters import FilterInputs, RolloutFilter, rollout_filters

LIMIT = 20
ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 1.0]), st.integers(-2, 2), st.integers(0, LIMIT)), max_size=12
)  # reward, group, length


def test_the_names_are_known() -> None:
    assert sorted(reward_shapings) == [
        "clip", "missing_eos", "none", "overlong", "running_norm", "sigmoid", "truncated",
    ]  # fmt: skip
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


ENDS = st.lists(st.tuples(st.floats(-20, 20), st.sampled_from(["end", "stop", "length"])), max_size=8)


def build_ended(rows: list[tuple[float, str]]) -> ShapingInputs:
    rewards = torch.tensor([reward for reward, _ in rows], dtype=torch.float64)
    return ShapingInputs(rewards, torch.ones(len(rows)).long(), LIMIT, [reason for _, reason in rows])


@given(ENDS, st.sampled_from([0.0, 1.0, 2.5]))
def test_penalties_for_how_a_response_ended_against_a_loop(rows: list[tuple[float, str]], penalty: float) -> None:
    inputs = build_ended(rows)
    missing = shaping("missing_eos", {"penalty": penalty})(inputs)
    assert missing.tolist() == pytest.approx([r - penalty * (reason != "end") for r, reason in rows])
    less = shaping("truncated", {"penalty": penalty})(inputs)
    assert less.tolist() == pytest.approx([r - penalty * (reason == "length") for r, reason in rows])
    instead = shaping("truncated", {"value": -3.0})(inputs)
    assert instead.tolist() == pytest.approx([-3.0 if reason == "length" else r for r, reason in rows])
    held = shaping("clip", {"low": -1.0, "high": 2.0})(inputs)
    assert held.tolist() == pytest.approx([min(max(r, -1.0), 2.0) for r, _ in rows])


@pytest.mark.parametrize("name", ["missing_eos", "truncated"])
def test_rows_of_which_nobody_knows_how_they_ended_are_told(name: str) -> None:
    with pytest.raises(ValueError, match=f"reward shaping '{name}' reads the column 'finish_reason'"):
        shaping(name, {})(ShapingInputs(torch.ones(1), torch.ones(1).long(), LIMIT))
    with pytest.raises(ValueError, match="low is 2, above high, 1"):
        shaping("clip", {"low": 2, "high": 1})(build_ended([]))


STEPS = st.lists(st.lists(st.floats(-50, 50), max_size=5), min_size=1, max_size=5)


@given(STEPS, st.booleans())
def test_running_normalization_against_all_rewards_so_far(steps: list[list[float]], center: bool) -> None:
    state: dict[str, float] = {}
    so_far: list[float] = []
    for rewards in steps:
        state = json.loads(json.dumps(state))  # a checkpoint between any two steps changes nothing
        inputs = ShapingInputs(torch.tensor(rewards, dtype=torch.float64), torch.ones(len(rewards)).long(), LIMIT)
        found = shaping("running_norm", {"center": center})(replace(inputs, state=state))
        so_far += rewards
        deviation = statistics.stdev(so_far) if len(so_far) > 1 else 0.0
        if deviation and deviation < 1e-6 * max(map(abs, so_far)):
            return  # all but equal: the deviation is rounding
        mean = statistics.mean(so_far) if center and so_far else 0.0
        expected = [(r - mean) / (deviation + 1e-8) if deviation else r - mean for r in rewards]
        assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.integers(0, 8))
def test_it_is_the_same_however_rows_lie_on_ranks(rewards: list[float], cut: int) -> None:
    """Also where a rank has none: all sum equally often, and remember the same."""
    whole, states = torch.tensor(rewards, dtype=torch.float64), [{}, {}, {}]  # type: ignore[var-annotated]
    parts = [whole[:cut], whole[cut:]]

    def shaped(rewards: torch.Tensor, state: dict[str, float], sums: Callable[[Tensor], Tensor]) -> list[float]:
        inputs = ShapingInputs(rewards, torch.ones(len(rewards)).long(), LIMIT, state=state, all_reduce=sums)
        return shaping("running_norm", {})(inputs).tolist()

    totals: list[Tensor] = []
    alone = shaped(whole, states[0], lambda vector: totals.append(vector) or vector)  # type: ignore[func-returns-value]
    found = []
    for part, state in zip(parts, states[1:], strict=True):
        known = iter(totals)
        found += shaped(part, state, lambda vector, known=known: next(known))  # type: ignore[misc]
        assert next(known, None) is None
    assert found == alone and states[1] == states[2] == states[0]


def test_several_are_applied_in_their_order() -> None:
    settings = AlgorithmConfig(name="any", reward_shapings={"truncated": {"value": 5.0}, "clip": {"high": 2.0}})
    assert shapings_of(settings) == [("truncated", {"value": 5.0}), ("clip", {"high": 2.0})]
    inputs = build_ended([(0.5, "end"), (0.5, "length")])
    assert shape(inputs, shapings_of(settings), {}).tolist() == [0.5, 2.0]
    assert shape(inputs, shapings_of(settings)[::-1], {}).tolist() == [0.5, 5.0]
    first = AlgorithmConfig(
        name="any", reward_shaping=ComponentConfig("clip", {"low": 1.0}), reward_shapings={"none": None}
    )
    assert shapings_of(first) == [("clip", {"low": 1.0}), ("none", {})]
    states: dict[str, dict[str, float]] = {}
    shape(inputs, [("running_norm", {}), ("clip", {})], states)
    assert states["running_norm"]["count"] == 2.0 and states["clip"] == {}


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
