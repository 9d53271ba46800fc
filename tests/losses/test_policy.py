"""The clipped policy loss against the paper's words, token by token."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.policy import policy_losses, ppo_clip

NUMBER = st.floats(-3, 0, width=32)
TOKENS = st.lists(st.tuples(NUMBER, NUMBER, st.floats(-2, 2, width=32)), min_size=1, max_size=10)
CLIP = st.sampled_from([0.1, 0.2, 0.28])


def _loop(tokens: list[tuple[float, float, float]], low: float, high: float) -> tuple[list[float], list[float], int]:
    """Losses, their slopes in log_prob, and how many tokens are clipped; one token after the other."""
    losses, slopes, clipped = [], [], 0
    for new, old, advantage in tokens:
        ratio = math.exp(new - old)
        held = min(max(ratio, 1 - low), 1 + high)
        blocked = held * advantage < ratio * advantage
        losses.append(-held * advantage if blocked else -ratio * advantage)
        slopes.append(0.0 if blocked else -ratio * advantage)
        clipped += blocked
    return losses, slopes, clipped


@given(TOKENS, CLIP, CLIP)
def test_against_a_loop(tokens: list[tuple[float, float, float]], low: float, high: float) -> None:
    new, old, advantage = torch.tensor(tokens, dtype=torch.float64).unbind(1)
    new.requires_grad_()
    found = ppo_clip(new, old, advantage, low, high)
    losses, slopes, clipped = _loop(tokens, low, high)
    torch.testing.assert_close(found.loss, torch.tensor(losses, dtype=torch.float64))
    found.loss.sum().backward()
    torch.testing.assert_close(new.grad, torch.tensor(slopes, dtype=torch.float64))
    assert float(found.metrics["actor/clip_fraction"]) == clipped


def test_metrics_are_sums_over_tokens_without_gradient() -> None:
    new = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    metrics = ppo_clip(new, torch.tensor([-1.0, -1.0, -1.0]), torch.ones(3), 0.2, 0.2).metrics
    assert float(metrics["actor/approx_kl"]) == pytest.approx(3.0)
    assert float(metrics["actor/ratio"]) == pytest.approx(1 + math.exp(-1) + math.exp(-2))
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


def test_the_first_step_is_the_policy_gradient() -> None:
    new = torch.tensor([-1.0, -2.0], requires_grad=True)
    ppo_clip(new, new.detach().clone(), torch.tensor([3.0, -5.0]), 0.2, 0.2).loss.sum().backward()
    assert new.grad is not None and new.grad.tolist() == [-3.0, 5.0]


def test_gradients_flow_to_the_policy_only() -> None:
    new, old, advantage = (torch.tensor([-1.0], requires_grad=True) for _ in range(3))
    ppo_clip(new, old, advantage, 0.2, 0.2).loss.sum().backward()
    assert new.grad is not None and old.grad is None and advantage.grad is None


@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("gap", [500.0, -500.0])
def test_a_ratio_that_would_overflow_stays_finite(advantage: float, gap: float) -> None:
    new = torch.tensor([gap], requires_grad=True)
    loss = ppo_clip(new, torch.zeros(1), torch.tensor([advantage]), 0.2, 0.2).loss
    loss.sum().backward()
    assert new.grad is not None
    assert loss.isfinite().all() and new.grad.isfinite().all()


def test_no_tokens_give_no_loss() -> None:
    found = ppo_clip(torch.zeros(0), torch.zeros(0), torch.zeros(0), 0.2, 0.2)
    assert found.loss.shape == (0,)
    assert all(float(value) == 0 for value in found.metrics.values())


def test_the_registry_knows_it() -> None:
    assert policy_losses.get("ppo_clip") is ppo_clip
