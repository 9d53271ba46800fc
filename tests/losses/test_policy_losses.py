"""The policy losses against the papers' words, token by token."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.losses.aggregations import sequence_mean, totals
from hybridflow.losses.policy_losses import PolicyInputs, gspo, policy_loss, policy_losses, ppo_clip

NUMBER = st.floats(-3, 0, width=32)
TOKEN = st.tuples(NUMBER, NUMBER, st.floats(-2, 2, width=32))
Token = tuple[float, float, float]  # log_prob, old_log_prob, advantage
Rows = list[list[Token]]
ROWS = st.lists(st.lists(TOKEN, max_size=5), max_size=6)
CLIP = st.sampled_from([0.1, 0.2, 0.28])
# Of one row: losses, their slopes in each token's log_prob, and how many tokens are clipped.
LoopResult = tuple[list[float], list[float], int]


def build_inputs(rows: Rows) -> PolicyInputs:
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.float64).reshape(-1, 3)
    new, old, advantages = (column.contiguous() for column in tokens.unbind(1))
    return PolicyInputs(new.requires_grad_(), old, advantages, torch.tensor([len(row) for row in rows]).long())


def clipped_loop(
    ratios: list[float], row: list[Token], low: float, high: float, dual: float | None = None
) -> LoopResult:
    losses, slopes, clipped = [], [], 0
    for ratio, (_, _, advantage) in zip(ratios, row, strict=True):
        objective, slope = ratio * advantage, ratio * advantage
        held = min(max(ratio, 1 - low), 1 + high) * advantage
        if held < objective:
            objective, slope = held, 0.0
        if dual is not None and advantage < 0 and objective < dual * advantage:
            objective, slope = dual * advantage, 0.0
        clipped += objective != ratio * advantage
        losses.append(-objective)
        slopes.append(-slope)
    return losses, slopes, clipped


def ppo_loop(row: list[Token], low: float, high: float, dual: float | None = None) -> LoopResult:
    return clipped_loop([math.exp(new - old) for new, old, _ in row], row, low, high, dual)


def gspo_loop(row: list[Token], low: float, high: float) -> LoopResult:
    ratio = math.exp(sum(new - old for new, old, _ in row) / len(row)) if row else 1.0
    return clipped_loop([ratio] * len(row), row, low, high)


def cispo_loop(row: list[Token], low: float, high: float) -> LoopResult:
    ratios = [math.exp(new - old) for new, old, _ in row]
    held = [min(max(ratio, 1 - low), 1 + high) for ratio in ratios]
    slopes = [-h * advantage for h, (_, _, advantage) in zip(held, row, strict=True)]
    losses = [slope * new for slope, (new, _, _) in zip(slopes, row, strict=True)]
    return losses, slopes, sum(h != ratio for h, ratio in zip(held, ratios, strict=True))


def pg_loop(row: list[Token]) -> LoopResult:
    return [-advantage * new for new, _, advantage in row], [-advantage for _, _, advantage in row], 0


def assert_agrees(name: str, rows: Rows, loop: Callable[..., LoopResult], **options: float) -> None:
    inputs = build_inputs(rows)
    found = policy_loss(name, options)(inputs)
    parts = [loop(row, *options.values()) for row in rows]
    losses, slopes = ([x for part in parts for x in part[at]] for at in (0, 1))  # type: ignore[union-attr]
    torch.testing.assert_close(found.loss, torch.tensor(losses, dtype=torch.float64))
    found.loss.sum().backward()
    torch.testing.assert_close(inputs.log_probs.grad, torch.tensor(slopes, dtype=torch.float64))
    if "actor/clip_fraction" in found.metrics:
        assert float(found.metrics["actor/clip_fraction"]) == pytest.approx(sum(part[2] for part in parts))


@given(ROWS, CLIP, CLIP)
def test_ppo_clip_against_a_loop(rows: Rows, low: float, high: float) -> None:
    assert_agrees("ppo_clip", rows, ppo_loop, clip_low=low, clip_high=high)


@given(ROWS, CLIP, CLIP)
def test_dual_clip_against_a_loop(rows: Rows, low: float, high: float) -> None:
    assert_agrees("ppo_clip", rows, ppo_loop, clip_low=low, clip_high=high, dual_clip=3.0)


@given(ROWS, CLIP, CLIP)
def test_gspo_against_a_loop(rows: Rows, low: float, high: float) -> None:
    assert_agrees("gspo", rows, gspo_loop, clip_low=low, clip_high=high)


@given(ROWS, CLIP, st.sampled_from([0.2, 4.0]))
def test_cispo_against_a_loop(rows: Rows, low: float, high: float) -> None:
    assert_agrees("cispo", rows, cispo_loop, clip_low=low, clip_high=high)


@given(ROWS)
def test_pg_against_a_loop(rows: Rows) -> None:
    assert_agrees("pg", rows, pg_loop)


@given(ROWS.filter(lambda rows: any(rows)), CLIP)
def test_gspo_by_sequence_mean_is_equation_5_where_a_row_has_one_advantage(rows: Rows, clip: float) -> None:
    rows = [[(new, old, row[0][2]) for new, old, _ in row] for row in rows]
    inputs = build_inputs(rows)
    weights = sequence_mean(inputs.lengths, *totals(inputs.lengths))
    found = torch.autograd.grad(
        (gspo(inputs, clip_low=clip, clip_high=clip).loss * weights).sum(), inputs.log_probs, retain_graph=True
    )[0]
    objectives = []
    for new, old, row in zip(
        inputs.log_probs.split([len(r) for r in rows]), inputs.old_log_probs.split([len(r) for r in rows]), rows,
        strict=True,
    ):  # fmt: skip
        if row:
            ratio = (new - old).mean().exp()
            objectives.append(torch.minimum(ratio * row[0][2], ratio.clamp(1 - clip, 1 + clip) * row[0][2]))
    # A ratio that stands on its bound to the last bit has two slopes.
    expected = torch.autograd.grad(-torch.stack(objectives).mean(), inputs.log_probs)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def loss_of_one(name: str, new: Tensor, old: Tensor, advantages: Tensor) -> Tensor:
    return policy_losses.get(name)(PolicyInputs(new, old, advantages, torch.tensor([len(new)]))).loss


def test_metrics_are_sums_over_tokens_without_gradient() -> None:
    new = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    metrics = ppo_clip(PolicyInputs(new, torch.tensor([-1.0] * 3), torch.ones(3), torch.tensor([2, 1]))).metrics
    assert float(metrics["actor/approx_kl"]) == pytest.approx(3.0)
    assert float(metrics["actor/ratio"]) == pytest.approx(1 + math.exp(-1) + math.exp(-2))
    assert all(value.shape == () and not value.requires_grad for value in metrics.values())


@pytest.mark.parametrize("name", sorted(policy_losses))
def test_the_first_step_is_the_policy_gradient(name: str) -> None:
    new = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss_of_one(name, new, new.detach().clone(), torch.tensor([3.0, -5.0])).sum().backward()
    assert new.grad is not None and new.grad.tolist() == [-3.0, 5.0]


@pytest.mark.parametrize("name", sorted(policy_losses))
def test_gradients_flow_to_the_policy_only(name: str) -> None:
    new, old, advantage = (torch.tensor([-1.0], requires_grad=True) for _ in range(3))
    loss_of_one(name, new, old, advantage).sum().backward()
    assert new.grad is not None and old.grad is None and advantage.grad is None


@pytest.mark.parametrize("name", sorted(policy_losses))
@pytest.mark.parametrize("advantage", [1.0, -1.0])
@pytest.mark.parametrize("gap", [500.0, -500.0])
def test_a_ratio_that_would_overflow_stays_finite(name: str, advantage: float, gap: float) -> None:
    new = torch.tensor([gap], requires_grad=True)
    loss = loss_of_one(name, new, torch.zeros(1), torch.tensor([advantage]))
    loss.sum().backward()
    assert new.grad is not None
    assert loss.isfinite().all() and new.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted(policy_losses))
def test_no_tokens_give_no_loss(name: str) -> None:
    found = policy_losses.get(name)(PolicyInputs(*torch.zeros(3, 0), torch.tensor([0, 0])))
    assert found.loss.shape == (0,)
    assert all(float(value) == 0 for value in found.metrics.values())


def test_the_names_are_known() -> None:
    assert sorted(policy_losses) == ["cispo", "gspo", "pg", "ppo_clip"]


def test_an_unknown_option_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"policy loss 'gspo'.*clip: .*clip_low="):
        policy_loss("gspo", {"clip": 0.1})


def test_a_dual_clip_that_would_flip_losses_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dual_clip is 1\.0"):
        ppo_clip(build_inputs([]), dual_clip=1.0)


@pytest.mark.parametrize("name", ["log_probs", "old_log_probs", "advantages"])
def test_disagreeing_shapes_are_named(name: str) -> None:
    good = dict.fromkeys(("log_probs", "old_log_probs", "advantages"), torch.zeros(3))
    with pytest.raises(ValueError, match=rf"^{name} has 2 entries; 2 rows of 3 tokens"):
        PolicyInputs(**{**good, name: torch.zeros(2)}, lengths=torch.tensor([1, 2]))
