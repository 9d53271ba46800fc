"""The losses of preferences, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.preference import bradley_terry, dpo

SCORE = st.integers(-40, 40).map(lambda n: n / 4)


@given(st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=10))
def test_against_a_loop(pairs: list[tuple[float, float]]) -> None:
    scores = torch.tensor(pairs, requires_grad=True)
    found = bradley_terry(*scores.unbind(1))
    found.loss.sum().backward()
    expected = [-math.log(1 / (1 + math.exp(rejected - chosen))) for chosen, rejected in pairs]
    assert found.loss.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    wrong = [1 / (1 + math.exp(chosen - rejected)) for chosen, rejected in pairs]  # σ(-margin)
    assert scores.grad is not None
    assert scores.grad[:, 0].tolist() == pytest.approx([-p for p in wrong], rel=1e-5, abs=1e-7)
    assert scores.grad[:, 1].tolist() == pytest.approx(wrong, rel=1e-5, abs=1e-7)
    assert float(found.metrics["reward_model/loss"]) == pytest.approx(sum(expected), rel=1e-5, abs=1e-6)
    assert float(found.metrics["reward_model/accuracy"]) == sum(chosen > rejected for chosen, rejected in pairs)
    assert float(found.metrics["reward_model/margin"]) == pytest.approx(sum(c - r for c, r in pairs), abs=1e-4)


def test_a_margin_of_any_size_has_a_loss() -> None:
    found = bradley_terry(torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4]))
    assert found.loss.tolist() == [2e4, 0.0]


@given(st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=10), SCORE)
def test_only_differences_count(pairs: list[tuple[float, float]], shift: float) -> None:
    chosen, rejected = torch.tensor(pairs).unbind(1)
    moved = bradley_terry(chosen + shift, rejected + shift).loss
    assert torch.equal(moved, bradley_terry(chosen, rejected).loss)


@given(st.lists(st.tuples(SCORE, SCORE, SCORE, SCORE), min_size=1, max_size=10), st.sampled_from([0.1, 0.5]))
def test_dpo_against_a_loop(pairs: list[tuple[float, float, float, float]], beta: float) -> None:
    columns = torch.tensor(pairs, dtype=torch.float64, requires_grad=True)
    found = dpo(*columns.unbind(1), beta)
    found.loss.sum().backward()
    margins = [beta * (chosen - ref_chosen) - beta * (rejected - ref_rejected)
               for chosen, rejected, ref_chosen, ref_rejected in pairs]  # fmt: skip
    assert found.loss.tolist() == pytest.approx([math.log1p(math.exp(-m)) for m in margins], rel=1e-6, abs=1e-9)
    slopes = [beta / (1 + math.exp(m)) for m in margins]
    assert columns.grad is not None
    assert columns.grad[:, 0].tolist() == pytest.approx([-s for s in slopes], rel=1e-6)
    assert columns.grad[:, 1].tolist() == pytest.approx(slopes, rel=1e-6)
    assert not columns.grad[:, 2:].any()
    assert float(found.metrics["actor/dpo_margin"]) == pytest.approx(sum(margins), abs=1e-3)


def test_dpo_begins_at_log_2_and_a_tie_is_a_mistake() -> None:
    chosen, rejected = torch.tensor([-3.0]), torch.tensor([-5.0])
    found = dpo(chosen, rejected, chosen, rejected)
    assert found.loss.tolist() == pytest.approx([math.log(2)])
    assert float(found.metrics["actor/dpo_accuracy"]) == 0
