"""The losses of preferences, pair by pair."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.preference_losses import bradley_terry, columns_of, dpo, pair_losses, signed_cost

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


Labeled = tuple[float, float, bool, bool]


@given(st.lists(st.tuples(SCORE, SCORE, st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_signed_cost_against_a_loop(pairs: list[Labeled]) -> None:
    costs = torch.tensor([pair[:2] for pair in pairs], dtype=torch.float64, requires_grad=True)
    harmful = [torch.tensor([pair[at] for pair in pairs]) for at in (2, 3)]
    found = signed_cost(*costs.unbind(1), chosen_harmful=harmful[0], rejected_harmful=harmful[1])
    found.loss.sum().backward()
    losses, slopes, right = [], [], 0.0
    for chosen, rejected, bad_chosen, bad_rejected in pairs:
        s_chosen, s_rejected = (1 if bad else -1 for bad in (bad_chosen, bad_rejected))
        margin, of_chosen, of_rejected = rejected - chosen, s_chosen * chosen, s_rejected * rejected
        losses.append(sum(math.log1p(math.exp(-x)) for x in (margin, of_chosen, of_rejected)))
        p, q, r = (1 / (1 + math.exp(x)) for x in (margin, of_chosen, of_rejected))  # σ(-x), the slope of -log σ(x)
        slopes.append([p - s_chosen * q, -p - s_rejected * r])
        right += ((of_chosen > 0) + (of_rejected > 0)) / 2
    assert found.loss.tolist() == pytest.approx(losses, rel=1e-9)
    assert costs.grad is not None
    assert costs.grad.flatten().tolist() == pytest.approx([x for row in slopes for x in row], rel=1e-9, abs=1e-12)
    assert float(found.metrics["reward_model/loss"]) == pytest.approx(sum(losses), rel=1e-5)
    assert float(found.metrics["reward_model/accuracy"]) == sum(rejected > chosen for chosen, rejected, *_ in pairs)
    assert float(found.metrics["reward_model/sign_accuracy"]) == right


def test_the_signs_give_the_cost_its_zero() -> None:
    """A shift of both costs changes nothing that ranks, but it takes harm under zero."""
    costs, harmful = torch.tensor([[-2.0], [2.0]]), {name: torch.tensor([name[0] == "r"]) for name in LABELS}
    right, shifted = (signed_cost(*(costs + shift), **harmful) for shift in (0.0, -5.0))
    assert float(shifted.loss) > float(right.loss) + 2
    accuracy = [float(found.metrics["reward_model/sign_accuracy"]) for found in (right, shifted)]
    assert accuracy == [1.0, 0.5]


LABELS = ("chosen_harmful", "rejected_harmful")


def test_a_loss_says_what_it_reads_of_a_pair() -> None:
    assert {name: columns_of(name) for name in pair_losses} == {"bradley_terry": (), "signed_cost": LABELS}


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
