"""Advantages without a critic against loops over rows and tokens."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.losses.advantages import AdvantageInputs, advantages, estimator
from tests.losses.replay import Ranks

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 2)), max_size=10)  # length, group
SEED = st.integers(0, 2**31)
Rows = list[tuple[int, int]]


def build_inputs(rows: Rows, seed: int) -> tuple[AdvantageInputs, list[list[float]]]:
    lengths, groups = [n for n, _ in rows], [g for _, g in rows]
    random = torch.Generator().manual_seed(seed)
    rewards, baseline = torch.randn(sum(lengths), generator=random), torch.randn(len(rows), generator=random)
    inputs = AdvantageInputs(
        rewards, torch.tensor(lengths).long(), group_id=torch.tensor(groups).long(), baseline_rewards=baseline
    )
    return inputs, [part.tolist() for part in rewards.split(lengths)] if lengths else []


def whitened_loop(values: list[float]) -> list[float]:
    if len(values) < 2:
        return [0.0] * len(values)
    return [(v - statistics.mean(values)) / (statistics.variance(values) + 1e-8) ** 0.5 for v in values]


def peer_rewards(rewards: list[list[float]], rows: Rows, row: int, itself: bool) -> list[float]:
    return [
        sum(r)
        for at, (r, (length, group)) in enumerate(zip(rewards, rows, strict=True))
        if length and group == rows[row][1] and (itself or at != row)
    ]


def assert_close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=1e-4)


@given(ROWS, SEED)
def test_rloo_against_a_loop(rows: Rows, seed: int) -> None:
    inputs, rewards = build_inputs(rows, seed)
    expected: list[float] = []
    for row, own in enumerate(rewards):
        others = peer_rewards(rewards, rows, row, itself=False)
        expected += [sum(own) - statistics.mean(others) if others else 0.0] * len(own)
    found, returns = estimator("rloo", {})(inputs)
    assert_close(found, expected)
    assert found.tolist() == returns.tolist()


@given(ROWS, SEED)
def test_remax_against_a_loop(rows: Rows, seed: int) -> None:
    inputs, rewards = build_inputs(rows, seed)
    to_come = [[sum(own[t:]) for t in range(len(own))] for own in rewards]
    assert inputs.baseline_rewards is not None
    greedy = inputs.baseline_rewards.tolist()
    found, returns = estimator("remax", {})(inputs)
    assert_close(found, [r - b for own, b in zip(to_come, greedy, strict=True) for r in own])
    assert_close(returns, [r for own in to_come for r in own])


@given(ROWS, SEED, st.floats(0, 1, width=32))
def test_reinforce_plus_plus_against_a_loop(rows: Rows, seed: int, gamma: float) -> None:
    inputs, rewards = build_inputs(rows, seed)
    to_come = [sum(gamma**k * r for k, r in enumerate(own[t:])) for own in rewards for t in range(len(own))]
    found, returns = estimator("reinforce_plus_plus", {"gamma": gamma})(inputs)
    assert_close(returns, to_come)
    assert_close(found, whitened_loop(to_come))


@given(ROWS, SEED)
def test_reinforce_plus_plus_with_baseline_against_a_loop(rows: Rows, seed: int) -> None:
    inputs, rewards = build_inputs(rows, seed)
    centered: list[float] = []
    for row, own in enumerate(rewards):
        if own:
            centered += [sum(own) - statistics.mean(peer_rewards(rewards, rows, row, itself=True))] * len(own)
    found, returns = estimator("reinforce_plus_plus_baseline", {})(inputs)
    if len(set(centered)) > 1 or not any(centered):
        assert_close(found, whitened_loop(centered))
    assert_close(returns, [sum(own) for own in rewards for _ in own])


def normalized_apart(values: list[float], rows: Rows) -> list[float]:
    """One reward by its groups: (r - mean) / (std + eps), empty rows being no members."""
    found = []
    for row, (length, group) in enumerate(rows):
        peers = [values[i] for i, (n, g) in enumerate(rows) if g == group and n]
        deviation = statistics.stdev(peers) if len(peers) > 1 else 0.0
        found.append((values[row] - statistics.mean(peers)) / (deviation + 1e-6) if length else 0.0)
    return found


def gdpo_loop(columns: list[list[float]], weights: list[float], rows: Rows) -> list[float]:
    apart = [normalized_apart(column, rows) for column in columns]
    sums = [sum(w * a[row] for w, a in zip(weights, apart, strict=True)) for row in range(len(rows))]
    scaled = iter(whitened_loop([value for value, (length, _) in zip(sums, rows, strict=True) if length]))
    return [value for length, _ in rows if length for value in [next(scaled)] * length]


@given(ROWS, SEED, st.sampled_from([[1.0], [1.0, 0.1], [1.0, -0.5, 2.0]]))
def test_gdpo_against_a_loop(rows: Rows, seed: int, weights: list[float]) -> None:
    inputs, _ = build_inputs(rows, seed)
    grades = torch.randn(len(rows), len(weights), generator=torch.Generator().manual_seed(seed))
    inputs = replace(inputs, columns={"grades": grades}, grade_weights=weights)
    found, returns = estimator("gdpo", {})(inputs)
    expected = gdpo_loop(grades.double().T.tolist(), weights, rows)
    if any(abs(value) > 1e-3 for value in expected) or not expected:  # else a deviation of roundings alone is scaled up
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(returns, found)


@given(ROWS, SEED)
def test_gdpo_of_one_reward_is_grpos_normalized_over_the_batch(rows: Rows, seed: int) -> None:
    inputs, rewards = build_inputs(rows, seed)
    expected = gdpo_loop([[sum(own) for own in rewards]], [1.0], rows)
    if any(abs(value) > 1e-3 for value in expected) or not expected:
        torch.testing.assert_close(estimator("gdpo", {})(inputs)[0], torch.tensor(expected), rtol=1e-3, atol=1e-4)


def test_gdpo_tells_rewards_apart_whose_sums_grpo_cannot() -> None:
    """The paper's example: of two rewards of 0 or 1, having both against none is more than having one against none."""
    grades = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    inputs = AdvantageInputs(
        grades.sum(1), torch.ones(4).long(), group_id=torch.tensor([0, 0, 1, 1]), columns={"grades": grades}
    )
    one, both = estimator("gdpo", {})(inputs)[0].tolist()[1::2]
    assert both == pytest.approx(2 * one)
    one, both = estimator("grpo", {})(inputs)[0].tolist()[1::2]
    assert both == pytest.approx(one, abs=1e-5)


@pytest.mark.parametrize("name", sorted(advantages))
@given(rows=ROWS, seed=SEED, data=st.data())
def test_groups_may_lie_on_any_rank(name: str, rows: Rows, seed: int, data: st.DataObject) -> None:
    """What a rank finds for its groups is what one rank finds that has all rows."""
    inputs, _ = build_inputs(rows, seed)
    inputs = replace(inputs, values=torch.sin(torch.arange(len(inputs.token_rewards)).float()))
    owner = data.draw(st.fixed_dictionaries({group: st.integers(0, 2) for group in range(-2, 3)}))
    rank = torch.tensor([owner[group] for _, group in rows], dtype=torch.int64)
    at_tokens = torch.repeat_interleave(rank, inputs.lengths)
    parts = [
        AdvantageInputs(
            inputs.token_rewards[at_tokens == part], inputs.lengths[rank == part], inputs.values[at_tokens == part],
            inputs.group_id[rank == part], inputs.baseline_rewards[rank == part],
        )
        for part in range(3)
    ]  # fmt: skip
    whole = estimator(name, {})(inputs)
    for part, found in enumerate(Ranks().run(advantages.get(name), parts)):
        for column, expected in zip(found, whole, strict=True):
            torch.testing.assert_close(column, expected[at_tokens == part], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(advantages))
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [1, 0], [1, 1, 4]])
def test_few_and_empty_rows_give_finite_numbers_without_gradient(name: str, lengths: list[int]) -> None:
    rewards, values = (torch.ones(sum(lengths), requires_grad=True) for _ in range(2))
    rows = torch.arange(len(lengths))
    inputs = AdvantageInputs(rewards, torch.tensor(lengths).long(), values, rows, rows.float())
    for found in advantages.get(name)(inputs):
        assert found.shape == rewards.shape and found.dtype == torch.float32
        assert found.isfinite().all() and not found.requires_grad


@pytest.mark.parametrize("name", ["rloo", "reinforce_plus_plus_baseline"])
@pytest.mark.parametrize("reward", [0.1, 0.0, -1e6])
def test_equal_rewards_and_lone_rows_give_exactly_nothing(name: str, reward: float) -> None:
    group_id = torch.tensor([size for size in range(1, 20) for _ in range(size)])
    inputs = AdvantageInputs(torch.full(group_id.shape, reward), torch.ones_like(group_id), group_id=group_id)
    assert (advantages.get(name)(inputs)[0] == 0).all()


@pytest.mark.parametrize(
    ("name", "column"),
    [("rloo", "group_id"), ("remax", "baseline_rewards"), ("reinforce_plus_plus_baseline", "group_id")],
)
def test_a_missing_column_is_named(name: str, column: str) -> None:
    with pytest.raises(ValueError, match=f"'{name}'.*{column}"):
        advantages.get(name)(AdvantageInputs(torch.zeros(1), torch.tensor([1])))
