"""Advantage estimators: from the rewards of tokens to how much better each token was than expected.

An estimator is a function `(inputs, **options) -> (advantages [T], returns [T])` in the registry `advantages`:

    @advantages.register("reinforce")
    @needing("group_id")
    def reinforce(inputs: AdvantageInputs, *, scale: float = 1.0) -> tuple[Tensor, Tensor]: ...

It sees whole groups but only this rank's part of the batch; what has to be global goes through `inputs.all_reduce`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from hybridflow.batch.turn_rows import TURN_INDEX
from hybridflow.bounds import Level, Positive
from hybridflow.losses.independence import independent
from hybridflow.losses.options import with_options
from hybridflow.losses.segments import discounted, group_sums, last_tokens, refuse_other_sizes, row_sums, to_tokens
from hybridflow.losses.turns import Turns
from hybridflow.registry import Registry


def _alone(vector: Tensor) -> Tensor:
    return vector


@dataclass(frozen=True)
class AdvantageInputs:
    """Inputs of an advantage estimator.

    Attributes:
        token_rewards: [T] float32.
        lengths: [R] int64, tokens of each row. Under a `loss_mask` rows consist of their learned tokens alone.
        values: [T], the critic's value of the state before each token, or None.
        group_id: [R] int64, equal for samples of one prompt, or None. A group is never split over ranks.
        baseline_rewards: [R], the reward of another response to the row's prompt to compare with, or None.
        columns: whatever else the estimator declared, by name: [R], or [T] if the column is ragged over responses.
        grade_weights: of the graders of the column `grades`, in its order; None: 1 each.
        all_reduce: gives the sum of a small float64 vector over all ranks that hold part of the batch. An estimator
            must call it equally often on every rank, one without rows included.

    Raises ValueError if the shapes disagree.
    """

    token_rewards: Tensor
    lengths: Tensor
    values: Tensor | None = None
    group_id: Tensor | None = None
    baseline_rewards: Tensor | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    all_reduce: Callable[[Tensor], Tensor] = _alone
    grade_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        refuse_other_sizes(self, tokens=("token_rewards", "values"), rows=("group_id", "baseline_rewards"))
        sizes = {len(self.lengths), len(self.token_rewards)}
        for name, column in self.columns.items():
            if len(column) not in sizes:
                raise ValueError(f"column {name!r} has {len(column)} entries; one a row or one a token was expected")


FIELDS = ("values", "group_id", "baseline_rewards")
Estimator = Callable[..., tuple[Tensor, Tensor]]
F = TypeVar("F", bound=Estimator)
advantages: Registry[Estimator] = Registry("advantage estimator", "hybridflow.losses.baselines", of=Callable)


def needing(*columns: str, optional: Sequence[str] = ()) -> Callable[[F], F]:
    """Declare the columns that an estimator reads besides the rewards.

    `values`, `group_id` and `baseline_rewards` are fields of `AdvantageInputs`; any other, which the algorithm must
    give, is in its `columns`.

    Args:
        optional: columns that it reads too where rows have them.
    """

    def mark(function: F) -> F:
        function._needs = columns  # type: ignore[attr-defined]
        function._optional = tuple(optional)  # type: ignore[attr-defined]
        return function

    return mark


def needs(name: str) -> tuple[str, ...]:
    """Return the columns that an estimator declared. Raises KeyError for an unknown name."""
    return tuple(getattr(advantages.get(name), "_needs", ()))


def reads_too(name: str) -> tuple[str, ...]:
    """Return the columns that an estimator reads where they are there. Raises KeyError for an unknown name."""
    return tuple(getattr(advantages.get(name), "_optional", ()))


def estimator(name: str, options: Mapping[str, Any]) -> Callable[[AdvantageInputs], tuple[Tensor, Tensor]]:
    """Return an estimator of a registered name with its options set.

    Raises KeyError for an unknown name, ValueError for an unknown or a missing option.
    """
    return with_options(advantages, name, options)


@advantages.register("gae")
@needing("values")
@torch.no_grad()
def gae(
    inputs: AdvantageInputs, *, gamma: Level = 1.0, lam: Level = 0.95, whiten: bool = True
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation: A_t = δ_t + gamma lam A_{t+1}, δ_t = r_t + gamma V_{t+1} - V_t.

    Returns are A + V. Source: arXiv 1506.02438, equations 11 to 16. The state after a row's last token is terminal, its
    value 0. `whiten` brings the advantages (not the returns) of all ranks together to mean 0 and deviation 1.

    Under a `loss_mask`, t + 1 is the row's next learned token: credit passes over a tool's output or an environment's
    text in one step, since the policy decides nothing there. It is part of how the state changes, as in a semi-Markov
    decision process (Sutton, Precup and Singh, "Between MDPs and semi-MDPs", 1999); V of the next learned token, which
    has read it, says what it was worth. verl's GAE skips observations in the same way.

    Defaults: those of the code released with arXiv 1909.08593 (lm-human-preferences). No discount, since an answer is
    worth as much late as early.
    """
    if inputs.values is None:
        raise ValueError("advantage 'gae' reads the column 'values': give the algorithm a critic, or choose 'grpo'")
    lengths = inputs.lengths
    values = inputs.values.float()
    following = torch.roll(values, -1)
    following[last_tokens(lengths)] = 0.0
    estimate = discounted(inputs.token_rewards.float() + gamma * following - values, lengths, gamma * lam)
    return (whitened(estimate, inputs.all_reduce) if whiten else estimate), estimate + values


@advantages.register("grpo")
@independent
@needing("group_id", optional=(TURN_INDEX,))
@torch.no_grad()
def grpo(
    inputs: AdvantageInputs, *, normalize_std: bool = True, eps: Positive = 1e-6, per_turn: bool = False
) -> tuple[Tensor, Tensor]:
    """Compare a row's reward with its group's: (r - mean) / (std + eps) at every token; returns are the same.

    Source: arXiv 2402.03300, section 4.1.2 (outcome supervision); without `normalize_std`, arXiv 2503.20783. r is the
    sum of a row's token rewards. The deviation is the sample's (n - 1), as in other trainers, so that curves compare;
    the paper does not say. A group of one, or of equal rewards, gets 0. Empty rows are no members of their group. `eps`
    is ours: it only keeps the quotient finite.

    `per_turn` takes each turn of a conversation as a step of section 4.1.3 (process supervision): mean and std are of
    the rewards of all turns of the group, and a turn's advantage is the sum of the normalized rewards from it to the
    row's end. A row with more turns has more members among these, and more terms in its sums. A row without
    `turn_index`, which is no conversation, is one turn: then both are the same.
    """
    turns = Turns.of(inputs.lengths, inputs.columns.get(TURN_INDEX) if per_turn else None)
    members = turns_as_rows(inputs, turns)
    centered, size, group = centered_rewards(members, "grpo")
    if normalize_std:
        centered = over_deviation(centered, size, group, eps)
    estimate = to_tokens(turns.to_come(centered), members.lengths).float()
    return estimate, estimate.clone()


def turns_as_rows(inputs: AdvantageInputs, turns: Turns) -> AdvantageInputs:
    """Return the turns of rows as rows, in the groups of these; of columns, the rewards alone."""
    group = None if inputs.group_id is None else inputs.group_id[turns.row]
    return AdvantageInputs(inputs.token_rewards, turns.lengths, group_id=group, all_reduce=inputs.all_reduce)


def over_deviation(centered: Tensor, size: Tensor, group: Tensor, eps: float) -> Tensor:
    """Divide [R] rewards that are centered on their group by its (sample) deviation + eps."""
    deviation = (group_sums(centered.square(), group) / (size - 1).clamp(min=1)).sqrt()
    return centered / (deviation[group] + eps)


def centered_rewards(inputs: AdvantageInputs, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Center rewards on their group: ([R] float64 reward - its group's mean, [R] a group's size, [R] its number).

    Empty rows are no members and get 0. Size is given at the group's number. `name`: who asks, for the error. Raises
    ValueError if there are no groups.
    """
    # In float64 sums of float32 are exact, so equal rewards leave 0 and not a rounding for eps to blow up.
    return centered_on_groups(row_sums(inputs.token_rewards.double(), inputs.lengths), inputs, name)


def centered_on_groups(rewards: Tensor, inputs: AdvantageInputs, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """Center any [R] float64 rewards as `centered_rewards`, those of empty rows, which are no members, being 0."""
    if inputs.group_id is None:
        raise ValueError(f"advantage {name!r} reads the column 'group_id': sample more than one response a prompt")
    _, group = torch.unique(inputs.group_id, return_inverse=True)
    present = (inputs.lengths > 0).double()
    size = group_sums(present, group)
    mean = group_sums(rewards, group) / size.clamp(min=1)
    return (rewards - mean[group]) * present, size, group


def whitened(values: Tensor, all_reduce: Callable[[Tensor], Tensor] = _alone) -> Tensor:
    """Bring [T] values to mean 0 and (sample) deviation 1 over the tokens of all ranks. One token alone becomes 0."""
    exact = values.double()
    total, count = all_reduce(torch.stack([exact.sum(), exact.new_tensor(len(values))])).unbind()
    centered = exact - total / count.clamp(min=1)
    variance = all_reduce(centered.square().sum().reshape(1)) / (count - 1).clamp(min=1)
    return (centered * torch.rsqrt(variance + 1e-8)).to(values.dtype)
