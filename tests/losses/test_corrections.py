"""Weights between the engine that samples and the one that trains, against loops over rows and tokens."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridflow.losses.corrections import CorrectionInputs, changed, correction, corrections

NUMBER = st.floats(-3, 0, width=32)
Rows = list[list[tuple[float, float]]]  # old, rollout
ROWS = st.lists(st.lists(st.tuples(NUMBER, NUMBER), max_size=5), max_size=6)
LEAST, MOST = 0.5, 3.0


def build_inputs(rows: Rows) -> CorrectionInputs:
    old, rollout = torch.tensor([token for row in rows for token in row]).reshape(-1, 2).unbind(1)
    return CorrectionInputs(old, rollout, torch.tensor([len(row) for row in rows]).long())


def ratios_loop(rows: Rows, by: str) -> list[float]:
    if by == "token":
        return [math.exp(old - rollout) for row in rows for old, rollout in row]
    return [math.prod(math.exp(old - rollout) for old, rollout in row) for row in rows for _ in row]


@pytest.mark.parametrize("by", ["token", "row"])
@given(rows=ROWS)
def test_truncated_against_a_loop(by: str, rows: Rows) -> None:
    found = correction(f"{by}_truncated", {"max": MOST})(build_inputs(rows))
    assert found.tolist() == pytest.approx([min(ratio, MOST) for ratio in ratios_loop(rows, by)], rel=1e-4)


def test_the_names_are_known() -> None:
    assert sorted(corrections) == ["row_masked", "row_truncated", "token_masked", "token_truncated"]


def test_changed_weights_are_counted() -> None:
    inputs = CorrectionInputs(torch.tensor([0.0, 1.0, 0.1]), torch.zeros(3), torch.tensor([1, 2]))
    assert changed(inputs, correction("token_truncated", {"max": 2.0})(inputs)).tolist() == [False, True, False]
    assert changed(inputs, correction("row_masked", {"max": 2.0})(inputs)).tolist() == [False, True, True]


@pytest.mark.parametrize("by", ["token", "row"])
@given(rows=ROWS)
def test_masked_against_a_loop(by: str, rows: Rows) -> None:
    ratios = ratios_loop(rows, by)
    assume(all(abs(ratio - bound) > 1e-4 for ratio in ratios for bound in (LEAST, MOST)))
    found = correction(f"{by}_masked", {"min": LEAST, "max": MOST})(build_inputs(rows))
    assert found.tolist() == pytest.approx([r if LEAST <= r <= MOST else 0.0 for r in ratios], rel=1e-4)


@pytest.mark.parametrize("name", sorted(corrections))
@given(rows=ROWS)
def test_engines_that_agree_need_no_correction(name: str, rows: Rows) -> None:
    rows = [[(old, old) for old, _ in row] for row in rows]
    assert correction(name, {})(build_inputs(rows)).tolist() == [1.0] * sum(map(len, rows))


@pytest.mark.parametrize("name", sorted(corrections))
@pytest.mark.parametrize("gap", [500.0, -500.0])
def test_weights_stay_finite_and_carry_no_gradient(name: str, gap: float) -> None:
    old = torch.tensor([gap], requires_grad=True)
    found = correction(name, {})(CorrectionInputs(old, torch.zeros(1), torch.tensor([1])))
    assert found.isfinite().all() and not found.requires_grad


def test_token_weights_make_the_samplers_mean_the_old_policys() -> None:
    sampler, policy = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    inputs = CorrectionInputs(policy.log(), sampler.log(), torch.tensor([1, 1, 1]))
    value = torch.tensor([1.0, -2.0, 5.0])
    weights = correction("token_truncated", {"max": 9.0})(inputs)
    assert float((sampler * weights * value).sum()) == pytest.approx(float((policy * value).sum()), rel=1e-5)


@pytest.mark.parametrize("name", ["old_log_probs", "rollout_log_probs"])
def test_disagreeing_shapes_are_named(name: str) -> None:
    good = dict.fromkeys(("old_log_probs", "rollout_log_probs"), torch.zeros(3))
    with pytest.raises(ValueError, match=rf"^{name} has 2 entries; 2 rows of 3 tokens"):
        CorrectionInputs(**{**good, name: torch.zeros(2)}, lengths=torch.tensor([1, 2]))
