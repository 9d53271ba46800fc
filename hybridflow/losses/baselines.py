"""Advantages without a critic: the reward less a baseline that other responses give."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from hybridflow.batch.turn_rows import TURN_INDEX
from hybridflow.bounds import Level, Positive
from hybridflow.losses.advantages import (
    AdvantageInputs,
    advantages,
    centered_on_groups,
    centered_rewards,
    needing,
    over_deviation,
    turns_as_rows,
    whitened,
)
from hybridflow.losses.independence import independent
from hybridflow.losses.segments import discounted, row_sums, to_tokens
from hybridflow.losses.turns import Turns


@advantages.register("rloo")
@independent
@needing("group_id", optional=(TURN_INDEX,))
@torch.no_grad()
def rloo(inputs: AdvantageInputs, *, per_turn: bool = False) -> tuple[Tensor, Tensor]:
    """Subtract the mean of the others of its group from a row's reward, at every token: r_i - Σ_{j≠i} r_j / (k - 1).

    Source: arXiv 2402.14740 (the estimator RLOO; first in Kool et al., "Buy 4 REINFORCE samples, get a baseline for
    free!", 2019). It equals k / (k - 1) times the reward less the group's mean; returns are the same. r is the sum of a
    row's token rewards. A group of one has nobody to compare with and gets 0; empty rows are no members.

    `per_turn` does this for each turn of a conversation: r is then the reward still to come, from the turn to the row's
    end, and the others are those rows of the group that have a turn of the same number. Whether they do is no choice of
    this row's, as a baseline must be independent of the action that it is taken from (Williams, 1992). A turn that no
    other row has gets 0, as a group of one does. A row without `turn_index`, which is no conversation, is one turn:
    then both are the same.
    """
    turns = Turns.of(inputs.lengths, inputs.columns.get(TURN_INDEX) if per_turn else None)
    members = turns_as_rows(inputs, turns)
    if members.group_id is not None:
        _, group_id = torch.unique(torch.stack([members.group_id, turns.number], 1), dim=0, return_inverse=True)
        members = replace(members, group_id=group_id)
    to_come = turns.to_come(row_sums(members.token_rewards.double(), members.lengths))
    centered, size, group = centered_on_groups(to_come, members, "rloo")
    estimate = to_tokens(centered * (size / (size - 1).clamp(min=1))[group], members.lengths).float()
    return estimate, estimate.clone()


@advantages.register("gdpo")
@needing("group_id", optional=("grades",))
@torch.no_grad()
def gdpo(inputs: AdvantageInputs, *, eps: Positive = 1e-6) -> tuple[Tensor, Tensor]:
    """Normalize each grader's grades by their group apart, add them up with their weights, normalize over the batch.

        A_k = (r_k - mean(r_k)) / (std(r_k) + eps) in its group;  S = Σ_k w_k A_k;  A = (S - mean(S)) / std(S)

    the latter over all rows of the batch, at every token of a row; returns are the same. So a grader whose grades vary
    little, or are seldom given, counts as much as its weight says: in a sum that is normalized (GRPO) different grades
    of a prompt's samples may come to the same advantage.

    Source: GDPO, arXiv 2601.05242, equations 4 (each reward by its group), 5 (their sum, here with weights) and 6 (over
    the batch). Grades are those as given, unshaped. Without several graders the row's reward is the only one, and this
    is GRPO's advantage normalized over the batch. Deviations are the sample's (n - 1), as GRPO's here; empty rows are
    no members of group or batch. `eps` is ours.
    """
    rewards = inputs.columns.get("grades")
    if rewards is None:
        rewards = row_sums(inputs.token_rewards.double(), inputs.lengths)
    present = inputs.lengths > 0
    each = (rewards if rewards.dim() > 1 else rewards[:, None]).double() * present[:, None]
    total = each.new_zeros(len(each))
    for weight, column in zip(inputs.grade_weights or [1.0] * each.shape[1], each.unbind(1), strict=True):
        centered, size, group = centered_on_groups(column, inputs, "gdpo")
        total += weight * over_deviation(centered, size, group, eps)
    scaled = torch.zeros_like(total)
    scaled[present] = whitened(total[present], inputs.all_reduce)
    estimate = to_tokens(scaled, inputs.lengths).float()
    return estimate, estimate.clone()


@advantages.register("remax")
@independent
@needing("baseline_rewards")
@torch.no_grad()
def remax(inputs: AdvantageInputs) -> tuple[Tensor, Tensor]:
    """Subtract the greedy response's reward, on the same prompt, from the reward still to come: Σ_{s≥t} r_s -
    r(greedy).

    Source: arXiv 2310.10505, algorithm 1. `baseline_rewards` has the greedy responses' rewards. Returns are the rewards
    still to come.
    """
    if inputs.baseline_rewards is None:
        raise ValueError("advantage 'remax' reads the column 'baseline_rewards': choose the algorithm 'remax'")
    returns = discounted(inputs.token_rewards.float(), inputs.lengths, 1.0)
    return returns - to_tokens(inputs.baseline_rewards.float(), inputs.lengths), returns


@advantages.register("reinforce_plus_plus")
@torch.no_grad()
def reinforce_plus_plus(inputs: AdvantageInputs, *, gamma: Level = 1.0) -> tuple[Tensor, Tensor]:
    """Bring the discounted reward still to come to mean 0 and deviation 1 over all tokens of the batch.

    Source: REINFORCE++, arXiv 2501.03262. The penalty for leaving the reference stands inside the rewards
    (`reward_kl_coef`, estimator k1). gamma 1 is the paper's. Returns are those before they were brought to scale.
    """
    returns = discounted(inputs.token_rewards.float(), inputs.lengths, gamma)
    return whitened(returns, inputs.all_reduce), returns


@advantages.register("reinforce_plus_plus_baseline")
@needing("group_id")
@torch.no_grad()
def reinforce_plus_plus_baseline(inputs: AdvantageInputs) -> tuple[Tensor, Tensor]:
    """Subtract the group's mean from a row's reward, then bring it to mean 0 and deviation 1 over the batch's tokens.

    Source: arXiv 2501.03262 (REINFORCE++ with baseline); the KL stands in the loss, by k2. Against GRPO: one deviation
    for the batch instead of one a group, so groups of nearly equal rewards are not blown up. Returns are the row's
    reward.
    """
    centered, _, _ = centered_rewards(inputs, "reinforce_plus_plus_baseline")
    estimate = to_tokens(centered, inputs.lengths).float()
    returns = to_tokens(row_sums(inputs.token_rewards.float(), inputs.lengths), inputs.lengths)
    return whitened(estimate, inputs.all_reduce), returns
