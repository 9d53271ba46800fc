"""The clipped value loss, token by token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.value_loss import clipped_value_loss

# Quarters are exact in float32, so that ties fall the same way here and there.
NUMBER = st.integers(-12, 12).map(lambda n: n / 4)
TOKENS = st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=10)


@given(TOKENS, st.sampled_from([0.25, 0.5, 1.0]))
def test_against_a_loop(tokens: list[tuple[float, float, float]], clip: float) -> None:
    expected, clipped = [], 0
    for value, old, wanted in tokens:
        held = min(max(value, old - clip), old + clip)
        expected.append(max((value - wanted) ** 2, (held - wanted) ** 2) / 2)
        clipped += (held - wanted) ** 2 > (value - wanted) ** 2
    values, old_values, returns = torch.tensor(tokens).unbind(1)
    found = clipped_value_loss(values, old_values, returns, clip)
    assert found.loss.tolist() == expected
    assert float(found.metrics["critic/value_clip_fraction"]) == clipped
    assert float(found.metrics["critic/value_loss"]) == pytest.approx(sum(expected))
    assert float(found.metrics["critic/value_mean"]) == pytest.approx(sum(value for value, _, _ in tokens))


@given(TOKENS, st.sampled_from([0.25, 0.5, 1.0]))
def test_slopes_against_a_loop(tokens: list[tuple[float, float, float]], clip: float) -> None:
    """Where both sides of the maximum are equal the slope is their mean, and that of the clipped side is 0."""
    expected = []
    for value, old, wanted in tokens:
        held = min(max(value, old - clip), old + clip)
        free = abs(value - wanted) - abs(held - wanted)
        share = 1.0 if held == value or free > 0 else 0.5 if free == 0 else 0.0
        expected.append(share * (value - wanted))
    values, old_values, returns = (column.contiguous() for column in torch.tensor(tokens).unbind(1))
    clipped_value_loss(values.requires_grad_(), old_values, returns, clip).loss.sum().backward()
    assert values.grad is not None and values.grad.tolist() == expected


def test_no_tokens_give_no_loss() -> None:
    found = clipped_value_loss(*torch.zeros(3, 0), clip=0.2)
    assert found.loss.shape == (0,) and all(float(value) == 0 for value in found.metrics.values())


def slope_at(value: float, old: float, wanted: float) -> float:
    values = torch.tensor([value], requires_grad=True)
    clipped_value_loss(values, torch.tensor([old]), torch.tensor([wanted]), 0.2).loss.sum().backward()
    assert values.grad is not None
    return float(values.grad)


def test_within_the_bounds_the_slope_is_the_error() -> None:
    assert slope_at(0.1, old=0.0, wanted=1.0) == pytest.approx(-0.9)


def test_past_the_bounds_a_move_towards_the_target_gains_nothing() -> None:
    assert slope_at(0.5, old=0.0, wanted=1.0) == 0.0


def test_past_the_bounds_a_move_away_is_still_pulled_back() -> None:
    assert slope_at(-0.5, old=0.0, wanted=1.0) == pytest.approx(-1.5)


def test_gradients_flow_to_the_values_only() -> None:
    values, old, returns = (torch.tensor([1.0], requires_grad=True) for _ in range(3))
    found = clipped_value_loss(values, old, returns, 0.2)
    found.loss.sum().backward()
    assert values.grad is not None and old.grad is None and returns.grad is None
    assert not any(metric.requires_grad for metric in found.metrics.values())
