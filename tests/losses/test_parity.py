"""The same tensors through our losses and through released code: TRL's trainers, and RLlib's GAE.

Both sides start at padded log-probs [B, C]; the loss and its gradient there must agree. What is not compared: the
clipped value loss (this TRL has no PPO of its own, and RLlib clips the error in place of the value; `test_value` has it
against a loop), and rows without tokens (TRL counts them as rows with a loss of 0, we leave them out).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hybridflow.losses.advantages import AdvantageInputs, estimator
from hybridflow.losses.aggregations import aggregations, totals
from hybridflow.losses.corrections import CorrectionInputs, correction
from hybridflow.losses.kl_estimators import kl_estimators
from hybridflow.losses.policy_losses import PolicyInputs, policy_loss
from hybridflow.losses.preference_losses import bradley_terry, dpo
from hybridflow.losses.rewards import token_rewards
from tests.losses.released import Table, loss, mask_of, rllib_gae, sampler, scored, trainer

SAMPLES = 3  # a group
LIMIT = 8
LENGTHS = st.integers(1, 3).flatmap(lambda n: st.lists(st.integers(1, LIMIT), min_size=3 * n, max_size=3 * n))
SEED = st.integers(0, 2**31)
few = settings(max_examples=20)


@dataclass(frozen=True)
class Rows:
    """Rows of these lengths; the rest is float64, [B, C] but for `rewards` [B]."""

    lengths: list[int]
    log_probs: Tensor
    old: Tensor
    ref: Tensor
    rewards: Tensor
    token_advantages: Tensor

    @property
    def mask(self) -> Tensor:
        return mask_of(self.lengths)

    @property
    def sizes(self) -> Tensor:
        return torch.tensor(self.lengths)

    @property
    def advantages(self) -> Tensor:
        """[B], of rows."""
        return self.token_advantages[:, 0]


def build_rows(lengths: list[int], seed: int) -> Rows:
    """Log-probs about 0.3 apart, so that some tokens and rows are clipped, and some are not."""
    random = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    first, *rest = torch.randn(4, *shape, generator=random, dtype=torch.float64).unbind()
    old = -3 * torch.rand(shape, generator=random, dtype=torch.float64) - 0.1
    rewards = torch.randn(len(lengths), generator=random, dtype=torch.float64)
    return Rows(lengths, old + 0.3 * first, old, old + 0.3 * rest[0], rewards, rest[1])


def ours(
    rows: Rows, table: Tensor, advantages: Tensor, name: str, aggregate: str, kl_coef: float = 0.0, **options: Any
) -> Tensor:
    """The loss of a step, as the actor puts it together. `advantages` are [B] or [B, C]."""
    whole = advantages if advantages.dim() == 2 else advantages[:, None].expand_as(table)
    log_probs, old, ref, given = (column[rows.mask] for column in (table, rows.old, rows.ref, whole))
    found = policy_loss(name, options)(PolicyInputs(log_probs, old, given, rows.sizes)).loss
    found = found + kl_coef * kl_estimators.get("k3")(log_probs, ref)
    return (found * aggregations.get(aggregate)(rows.sizes, *totals(rows.sizes), limit=LIMIT)).sum()


def assert_agree(
    rows: Rows, theirs: Any, ours: Tensor, table: Tensor, *, value: bool = True, **columns: Tensor
) -> None:
    """The value, and the gradient at the log-probs; weights are float32 on our side."""
    found = loss(theirs, rows.lengths, **columns)
    found.backward()
    ours.backward()
    if value:
        assert ours.item() == pytest.approx(found.item(), rel=1e-5, abs=1e-7)
    assert table.grad is not None
    torch.testing.assert_close(table.grad, theirs.model.log_probs.grad, rtol=1e-5, atol=1e-8)


# (TRL's settings, our loss, our aggregation, our options). TRL has no name for PPO: with an advantage a token and the
# mean over all tokens its loss is that of PPO.
LOSSES: dict[str, tuple[dict[str, Any], str, str, dict[str, Any]]] = {
    "grpo": ({"loss_type": "grpo", "beta": 0.04}, "ppo_clip", "sequence_mean", {"kl_coef": 0.04}),
    "dr_grpo": ({"loss_type": "dr_grpo", "max_completion_length": LIMIT}, "ppo_clip", "fixed_length_mean", {}),
    "dapo": ({"loss_type": "dapo", "epsilon_high": 0.28}, "ppo_clip", "token_mean", {"clip_high": 0.28}),
    "gspo": (
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15},
        "gspo", "sequence_mean", {"clip_low": 0.1, "clip_high": 0.15},
    ),
    "cispo": ({"loss_type": "cispo", "epsilon_high": 1.3}, "cispo", "token_mean", {"clip_high": 0.3}),
    "ppo": ({"loss_type": "bnpo"}, "ppo_clip", "token_mean", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@few
@given(LENGTHS, SEED)
def test_the_loss_of_a_step_is_trls(name: str, lengths: list[int], seed: int) -> None:
    theirs, own, aggregate, options = LOSSES[name]
    rows = build_rows(lengths, seed)
    table = rows.log_probs.clone().requires_grad_()
    advantages = rows.token_advantages if name == "ppo" else rows.advantages
    columns = {"old_per_token_logps": rows.old, "ref_per_token_logps": rows.ref, "advantages": advantages}
    made = sampler("GRPOTrainer", Table(rows.log_probs), **theirs)
    assert_agree(rows, made, ours(rows, table, advantages, own, aggregate, **options), table, **columns)


def test_clipping_shows_in_what_is_compared() -> None:
    """Among the rows that the test above draws there are both kinds of tokens and of rows."""
    rows = build_rows([3, 8, 1, 5, 2, 7], 0)
    inputs = [column[rows.mask] for column in (rows.log_probs, rows.old, rows.token_advantages)]
    for name, options in (
        ("ppo_clip", {}),
        ("gspo", {"clip_low": 0.1, "clip_high": 0.15}),
        ("cispo", {"clip_high": 0.3}),
    ):
        clipped = policy_loss(name, options)(PolicyInputs(*inputs, rows.sizes)).metrics["actor/clip_fraction"]
        assert 0 < float(clipped) < sum(rows.lengths)


def advantages_of(rows: Rows, name: str, kl_coef: float = 0.0, **options: Any) -> Tensor:
    """[B] by our estimator, from rewards less `kl_coef` times k1; they are the same at each token of a row."""
    kl = kl_estimators.get("k1")(rows.old, rows.ref)[rows.mask]
    inputs = AdvantageInputs(
        token_rewards(rows.rewards, rows.sizes, kl, kl_coef), rows.sizes,
        group_id=torch.arange(len(rows.lengths)) // SAMPLES,
    )  # fmt: skip
    found = estimator(name, options)(inputs)[0]
    return found[torch.cumsum(rows.sizes, 0) - 1].double()


@pytest.mark.parametrize(("scale", "normalize"), [("group", True), ("none", False)])
@few
@given(LENGTHS, SEED)
def test_grpos_advantages_are_trls(scale: str, normalize: bool, lengths: list[int], seed: int) -> None:
    rows = build_rows(lengths, seed)
    made = sampler("GRPOTrainer", Table(rows.old), num_generations=SAMPLES, scale_rewards=scale)
    found = scored(made, lengths, rows.rewards)["advantages"]
    expected = advantages_of(rows, "grpo", normalize_std=normalize, eps=1e-4)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@few
@given(LENGTHS, SEED)
def test_rloos_advantages_and_gradient_are_trls(lengths: list[int], seed: int) -> None:
    """With the KL inside the rewards.

    TRL multiplies by the ratio of whole rows, which is 1 at the first step on a rollout, where its gradient is ours:
    the mean over rows of -A times the gradient of log π(row). The values of the two losses say nothing.
    """
    rows = build_rows(lengths, seed)
    made = sampler("RLOOTrainer", Table(rows.old), num_generations=SAMPLES, beta=0.05, ref_model=Table(rows.ref))
    found = scored(made, lengths, rows.rewards)
    advantages = advantages_of(rows, "rloo", 0.05)
    torch.testing.assert_close(found["advantages"], advantages, rtol=1e-4, atol=1e-5)
    table = rows.old.clone().requires_grad_()
    step = ours(rows, table, found["advantages"], "pg", "fixed_length_mean") * LIMIT
    columns = {name: found[name] for name in ("old_logps", "advantages")}
    assert_agree(rows, made, step, table, value=False, **columns)


MODES = {
    "token_truncated": ("token_truncate", None), "token_masked": ("token_mask", 0.8),
    "row_truncated": ("sequence_truncate", None), "row_masked": ("sequence_mask", 0.8),
}  # fmt: skip


@pytest.mark.parametrize("name", MODES)
@few
@given(LENGTHS, SEED)
def test_rollout_corrections_are_trls(name: str, lengths: list[int], seed: int) -> None:
    rows, (mode, least) = build_rows(lengths, seed), MODES[name]
    made = sampler(
        "GRPOTrainer", Table(rows.old), num_generations=SAMPLES, scale_rewards="group", use_vllm=True,
        vllm_importance_sampling_correction=True, vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=least, vllm_importance_sampling_clip_max=1.3,
    )  # fmt: skip
    found = scored(made, lengths, rows.rewards, rows.ref)["importance_sampling_ratio"]
    options = {"max": 1.3} if least is None else {"min": least, "max": 1.3}
    inputs = CorrectionInputs(rows.old[rows.mask], rows.ref[rows.mask], rows.sizes)
    expected = correction(name, options)(inputs).double()
    torch.testing.assert_close(found.expand_as(rows.old)[rows.mask].double(), expected, rtol=1e-4, atol=1e-5)


def build_pairs(seed: int) -> Rows:
    """Chosen rows and, after them, as many rejected ones; no log-probs where there are no tokens."""
    rows = build_rows([3, 8, 1, 5, 2, 7], seed)
    hidden = {name: getattr(rows, name) * rows.mask for name in ("log_probs", "ref")}
    return Rows(**{**rows.__dict__, **hidden})


@few
@given(SEED, st.sampled_from([0.1, 0.5]))
def test_dpo_is_trls(seed: int, beta: float) -> None:
    rows = build_pairs(seed)
    made = trainer(
        "DPOTrainer", Table(rows.log_probs), ld_alpha=None, precompute_ref_logps=True, beta=beta,
        f_divergence_type="reverse_kl", loss_types=["sigmoid"], loss_weights=[1.0], use_weighting=False,
    )  # fmt: skip
    reference = rows.ref.sum(1).chunk(2)
    ids = torch.ones(len(rows.lengths), 1 + max(rows.lengths), dtype=torch.int64)
    given = {
        "input_ids": ids,
        "attention_mask": ids,
        "completion_mask": torch.nn.functional.pad(rows.mask.long(), (1, 0)),
    }
    found = made.compute_loss(
        made.model, given | dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True))
    )
    found.backward()
    table = rows.log_probs.clone().requires_grad_()
    step = dpo(*table.sum(1).chunk(2), *reference, beta).loss.mean()
    step.backward()
    assert step.item() == pytest.approx(found.item(), rel=1e-12)
    torch.testing.assert_close(table.grad, made.model.log_probs.grad)


@few
@given(SEED)
def test_the_loss_of_reward_models_is_trls(seed: int) -> None:
    scores = torch.randn(8, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)
    args = SimpleNamespace(center_rewards_coefficient=None)
    made = trainer("RewardTrainer", Table(scores.detach()), args=args)
    given = {"attention_mask": torch.ones(8, 2, dtype=torch.int64)}
    found = made.compute_loss(lambda **_: SimpleNamespace(logits=scores), given)
    (slope,) = torch.autograd.grad(found, scores)
    step = bradley_terry(*scores[:, 0].chunk(2)).loss.mean()
    assert step.item() == pytest.approx(found.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(step, scores)[0], slope)


@few
@given(LENGTHS, SEED, st.sampled_from([1.0, 0.9]), st.sampled_from([1.0, 0.95, 0.0]))
def test_gae_is_rllibs(lengths: list[int], seed: int, gamma: float, lam: float) -> None:
    rows = build_rows(lengths, seed)
    rewards, values = (column[rows.mask].float() for column in (rows.old, rows.ref))
    ends = np.zeros(len(values), dtype=np.float32)
    ends[np.cumsum(lengths) - 1] = 1
    targets = rllib_gae()(values.numpy(), rewards.numpy(), ends, np.zeros_like(ends), gamma, lam)
    inputs = AdvantageInputs(rewards, rows.sizes, values)
    found, returns = estimator("gae", {"gamma": gamma, "lam": lam, "whiten": False})(inputs)
    torch.testing.assert_close(returns, torch.from_numpy(targets), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, torch.from_numpy(targets) - values, rtol=1e-4, atol=1e-5)
