"""Scores and KL penalties, token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.rewards import token_rewards


@given(st.lists(st.integers(0, 6), max_size=8), st.integers(0, 2**31), st.sampled_from([0.0, 0.1, 2.0]))
def test_against_a_loop(lengths: list[int], seed: int, coef: float) -> None:
    random = torch.Generator().manual_seed(seed)
    rewards = torch.randn(len(lengths), generator=random)
    kl = torch.randn(sum(lengths), generator=random)
    expected, token = [], 0
    for row, length in enumerate(lengths):
        for place in range(length):
            score = rewards[row] if place == length - 1 else torch.tensor(0.0)
            expected.append(float(score - coef * kl[token]))
            token += 1
    found = token_rewards(rewards, torch.tensor(lengths, dtype=torch.int64), kl, coef)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_values_of_tokens_are_added_in() -> None:
    steps = torch.tensor([0.5, 0.0, -1.0])
    lengths = torch.tensor([2, 0, 1])
    found = token_rewards(torch.tensor([1.0, 2.0, 3.0]), lengths, torch.ones(3), 0.5, steps)
    assert found.tolist() == [0.0, 0.5, 1.5]
    with pytest.raises(ValueError, match="2 values of tokens for rows of 3 tokens"):
        token_rewards(torch.zeros(3), lengths, steps=torch.zeros(2))


def test_without_a_penalty_only_the_last_token_is_paid() -> None:
    found = token_rewards(torch.tensor([1, 2, 3]), torch.tensor([2, 0, 1]))
    assert found.dtype == torch.float32
    assert found.tolist() == [0.0, 1.0, 3.0]


def test_the_inputs_stay_as_they_were() -> None:
    kl = torch.ones(2)
    token_rewards(torch.ones(1), torch.tensor([2]), kl, kl_coef=1.0)
    assert kl.tolist() == [1.0, 1.0]


def test_no_gradient_leaves_through_a_reward() -> None:
    kl = torch.ones(2, requires_grad=True)
    assert not token_rewards(torch.ones(1), torch.tensor([2]), kl, 0.5).requires_grad


@pytest.mark.parametrize(("rewards", "kl"), [(3, 3), (2, 2), (2, 4)])
def test_disagreeing_shapes_are_named(rewards: int, kl: int) -> None:
    with pytest.raises(ValueError, match=rf"{rewards} rewards, {kl} KL values for 2 rows of 3 tokens"):
        token_rewards(torch.zeros(rewards), torch.tensor([1, 2]), torch.zeros(kl))
