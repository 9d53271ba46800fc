"""Coefficients that move: each step by the papers' formulas, the direction, the bounds, and what a resumed run has."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybridflow.losses.kl_controllers import AdaptiveKL, FixedKL, KLController, kl_controllers
from hybridflow.losses.lagrange import Lagrange, constrained_advantages

MEASURED = st.lists(st.floats(0, 3), max_size=8)


def test_the_names_are_known() -> None:
    assert {name: kl_controllers.get(name) for name in kl_controllers} == {"adaptive": AdaptiveKL, "fixed": FixedKL}


@given(MEASURED)
def test_adaptive_kl_against_its_formula(measured: list[float]) -> None:
    controller, expected = AdaptiveKL(0.1, target=1.5), 0.1
    for kl in measured:
        controller.update(kl)
        error = (kl - 1.5) / 1.5
        expected *= 1 + 0.1 * max(-0.2, min(0.2, error))
    assert controller.coef == pytest.approx(expected)


def test_adaptive_kl_rests_at_its_target_and_moves_at_most_two_percent() -> None:
    controller = AdaptiveKL(1.0, target=6.0)
    controller.update(6.0)
    assert controller.coef == 1.0
    controller.update(1e9)
    assert controller.coef == pytest.approx(1.02)


@pytest.mark.parametrize(("far", "held", "back"), [(1e300, 1e9, 0.98), (0.0, 1e-9, 1.02)])
def test_adaptive_kl_comes_back_from_a_target_out_of_reach(far: float, held: float, back: float) -> None:
    controller = AdaptiveKL(0.1, target=1.0)
    for _ in range(50_000):
        controller.update(far)
    assert controller.coef == held
    controller.update(2.0 if back > 1 else 0.0)
    assert controller.coef == pytest.approx(held * back)


@given(MEASURED)
def test_a_fixed_coefficient_does_not_move(measured: list[float]) -> None:
    controller = FixedKL(0.3)
    for kl in measured:
        controller.update(kl)
    assert controller.coef == 0.3


@given(MEASURED, MEASURED)
@pytest.mark.parametrize("make", [lambda: FixedKL(0.3), lambda: AdaptiveKL(0.3, 1.0)])
def test_a_restored_kl_controller_goes_on_as_if_nothing_had_been(make, before: list[float], after: list[float]) -> None:  # type: ignore[no-untyped-def]
    whole: KLController = make()
    for kl in before:
        whole.update(kl)
    resumed: KLController = make()
    resumed.restore(whole.state())
    for kl in after:
        whole.update(kl)
        resumed.update(kl)
    assert resumed.coef == whole.coef


COSTS = st.lists(st.floats(-2, 2), max_size=8)


@given(COSTS)
def test_lagrange_against_its_formula(costs: list[float]) -> None:
    controller, expected = Lagrange(0.5, limit=0.25, lr=0.05), 0.5
    for cost in costs:
        controller.update(cost)
        expected *= math.exp(0.05 * expected * (cost - 0.25))
    assert controller.multiplier == pytest.approx(expected)


@pytest.mark.parametrize(("cost", "sign"), [(1.0, 1), (-1.0, -1), (0.0, 0)])
def test_the_multiplier_grows_above_the_limit_and_shrinks_below(cost: float, sign: int) -> None:
    controller = Lagrange(1.0)
    controller.update(cost)
    assert (controller.multiplier > 1) - (controller.multiplier < 1) == sign


def test_a_multiplier_may_stay_what_it_is() -> None:
    controller = Lagrange(0.3, lr=0.0)
    controller.update(50.0)
    assert controller.multiplier == pytest.approx(0.3)


def test_the_multiplier_is_held() -> None:
    controller = Lagrange(1.0, max=2.0)
    controller.update(1e6)
    assert controller.multiplier == pytest.approx(2.0)


def test_after_a_jump_it_is_held_above_zero_and_grows_again() -> None:
    """Far above the limit, then far below it: the logarithm goes by -795, which no float is the exponential of."""
    controller = Lagrange(1.0, limit=100.0)
    for cost in (150.0, 20.0, 20.0):
        controller.update(cost)
    assert controller.multiplier == pytest.approx(1e-3)
    for _ in range(5):
        controller.update(150.0)
    assert controller.multiplier == pytest.approx(1e-3 * math.exp(0.1 * 1e-3 * 50 * 5), rel=1e-3)
    controller.update(1e300)
    assert controller.multiplier == pytest.approx(100.0)


@pytest.mark.parametrize("kept", [0.0, 1e-320, 0.4, 1e9])
def test_a_checkpoint_from_before_the_logarithm_was_kept(kept: float) -> None:
    controller = Lagrange()
    controller.restore({"multiplier": kept})
    assert controller.multiplier == pytest.approx(min(max(kept, 1e-3), 100.0))
    controller.update(0.1)


@pytest.mark.parametrize("wrong", [{"multiplier": 1e-4}, {"max": 0.5}, {"min": 2.0}])
def test_a_multiplier_begins_between_its_bounds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is not between min"):
        Lagrange(**wrong)
    Lagrange(**{"multiplier": 1e-4, "min": 1e-5})


@given(COSTS, COSTS)
def test_a_restored_multiplier_goes_on_as_if_nothing_had_been(before: list[float], after: list[float]) -> None:
    whole, resumed = Lagrange(), Lagrange()
    for cost in before:
        whole.update(cost)
    resumed.restore(whole.state())
    for cost in after:
        whole.update(cost)
        resumed.update(cost)
    assert resumed.multiplier == whole.multiplier


@pytest.mark.parametrize("controller", [AdaptiveKL(0.1, 1.0), Lagrange()])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(controller: AdaptiveKL | Lagrange, value: float) -> None:
    with pytest.raises(ValueError, match=str(value)):
        controller.update(value)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_settings_that_cannot_work_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="target is"):
        AdaptiveKL(0.1, target=value)
    with pytest.raises(ValueError, match="multiplier is"):
        Lagrange(value)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), max_size=8), st.floats(0, 9))
def test_constrained_advantages_against_a_loop(pairs: list[tuple[float, float]], multiplier: float) -> None:
    rewards, costs = torch.tensor(pairs, dtype=torch.float64).reshape(-1, 2).unbind(1)
    expected = [r / (1 + multiplier) - c * multiplier / (1 + multiplier) for r, c in pairs]
    assert constrained_advantages(rewards, costs, multiplier).tolist() == pytest.approx(expected, abs=1e-9)


def test_constrained_advantages_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 advantages of reward and 3 of cost"):
        constrained_advantages(torch.zeros(2), torch.zeros(3), 1.0)
