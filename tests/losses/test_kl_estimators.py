"""KL estimates: their values, what their means estimate, and what their gradients point at."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.kl_estimators import kl_estimators

LOG_PROB = st.floats(-15, 0, width=32)


@given(st.lists(st.tuples(LOG_PROB, LOG_PROB), min_size=1, max_size=8))
def test_against_their_definitions(pairs: list[tuple[float, float]]) -> None:
    policy, reference = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    ratios = [math.exp(r - p) for p, r in pairs]
    expected = {
        "k1": [-math.log(ratio) for ratio in ratios],
        "k2": [math.log(ratio) ** 2 / 2 for ratio in ratios],
        "k3": [ratio - 1 - math.log(ratio) for ratio in ratios],
    }
    for name, values in expected.items():
        found = kl_estimators.get(name)(policy, reference)
        torch.testing.assert_close(found, torch.tensor(values, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@given(st.lists(st.tuples(LOG_PROB, LOG_PROB), min_size=1, max_size=8))
def test_the_slope_at_each_token(pairs: list[tuple[float, float]]) -> None:
    expected = {
        "k1": [1.0 for _ in pairs],
        "k2": [policy - reference for policy, reference in pairs],
        "k3": [1 - math.exp(reference - policy) for policy, reference in pairs],
    }
    for name, slopes in expected.items():
        policy, reference = (column.contiguous() for column in torch.tensor(pairs, dtype=torch.float64).unbind(1))
        kl_estimators.get(name)(policy.requires_grad_(), reference).sum().backward()
        torch.testing.assert_close(policy.grad, torch.tensor(slopes, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_the_names_are_known() -> None:
    assert list(kl_estimators) == ["k1", "k2", "k3"]


@given(st.lists(st.tuples(LOG_PROB, LOG_PROB), min_size=1, max_size=8))
def test_k2_and_k3_are_never_negative(pairs: list[tuple[float, float]]) -> None:
    policy, reference = torch.tensor(pairs).unbind(1)
    assert (kl_estimators.get("k2")(policy, reference) >= 0).all()
    assert (kl_estimators.get("k3")(policy, reference) >= 0).all()


def expected_estimate(name: str, logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """The mean over tokens that the policy samples, the sampling itself without gradient: an exact sum."""
    log_probs = torch.log_softmax(logits, 0)
    return (log_probs.exp().detach() * kl_estimators.get(name)(log_probs, reference)).sum()


def exact_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_p.exp() * (log_p - log_q)).sum()


@pytest.fixture
def policies() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(6, generator=random, dtype=torch.float64, requires_grad=True)
    return logits, torch.log_softmax(torch.randn(6, generator=random, dtype=torch.float64), 0)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_unbiased(name: str, policies: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, reference = policies
    torch.testing.assert_close(expected_estimate(name, logits, reference), exact_kl(logits.log_softmax(0), reference))


def test_gradients_are_those_that_the_documentation_names(policies: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, reference = policies
    log_probs = torch.log_softmax(logits, 0)
    forward, backward = exact_kl(log_probs, reference), exact_kl(reference, log_probs)
    expected = {
        "k1": torch.zeros(6, dtype=torch.float64),
        "k2": torch.autograd.grad(forward, logits, retain_graph=True)[0],
        "k3": torch.autograd.grad(backward, logits)[0],
    }
    for name, gradient in expected.items():
        found = torch.autograd.grad(expected_estimate(name, logits, reference), logits)[0]
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_a_far_token_stays_finite(name: str) -> None:
    policy = torch.tensor([-500.0, 0.0], requires_grad=True)
    estimate = kl_estimators.get(name)(policy, torch.tensor([0.0, -500.0]))
    estimate.sum().backward()
    assert policy.grad is not None
    assert estimate.isfinite().all() and policy.grad.isfinite().all()


def test_k3_is_exact_for_close_policies() -> None:
    found = kl_estimators.get("k3")(torch.tensor([-1.0]), torch.tensor([-1.0 + 2.0**-10]))
    torch.testing.assert_close(found.double(), torch.tensor([2.0**-21 + 2.0**-30 / 6]).double(), rtol=1e-3, atol=0)
