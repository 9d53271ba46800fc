"""Policy losses: from the ratios of tokens or rows to a loss a token.

A loss is a function `(inputs, **options) -> TokenLoss` in the registry `policy_losses`:

    @policy_losses.register("plain")
    def plain(inputs: PolicyInputs, *, scale: float = 1.0) -> TokenLoss: ...

Rows are whole: no row is split over micro-batches, so a loss may look at all tokens of a row. Gradients flow through
`log_probs` only. Every loss reports `actor/approx_kl` (log old - log new: k1 for KL(old ‖ new)) and `actor/ratio` (the
ratio that it weighs by); those that clip, also `actor/clip_fraction` (tokens where clipping changed something).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from hybridflow.bounds import Bounds, NotNegative
from hybridflow.losses.options import with_options
from hybridflow.losses.ratios import clamped_exp
from hybridflow.losses.segments import refuse_other_sizes, row_means, to_tokens
from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.registry import Registry


@dataclass(frozen=True)
class PolicyInputs:
    """Inputs of a policy loss.

    Attributes:
        log_probs: [T] of the sampled tokens under the policy, with gradients.
        old_log_probs: [T] under the policy that the step began with.
        advantages: [T].
        lengths: [R] int64, tokens of each row.

    Raises ValueError if the shapes disagree.
    """

    log_probs: Tensor
    old_log_probs: Tensor
    advantages: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        refuse_other_sizes(self, tokens=("log_probs", "old_log_probs", "advantages"))

    @property
    def log_ratio(self) -> Tensor:
        """[T] log(policy / old policy) of each token, with gradients."""
        return self.log_probs - self.old_log_probs.detach()


PolicyLoss = Callable[..., TokenLoss]
policy_losses: Registry[PolicyLoss] = Registry("policy loss", of=Callable)
DualClip = Annotated[float, Bounds(more_than=1)]


def policy_loss(name: str, options: Mapping[str, Any]) -> Callable[[PolicyInputs], TokenLoss]:
    """Return a policy loss of a registered name with its options set.

    Raises KeyError for an unknown name, ValueError for an unknown or a missing option.
    """
    return with_options(policy_losses, name, options)


@policy_losses.register("ppo_clip")
def ppo_clip(
    inputs: PolicyInputs,
    *,
    clip_low: NotNegative = 0.2,
    clip_high: NotNegative = 0.2,
    dual_clip: DualClip | None = None,
) -> TokenLoss:
    """PPO's clipped objective, negated: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r = policy / old policy.

    Source: arXiv 1707.06347, equation 7, whose section 6.1 found 0.2 best; a bound of its own on each side as in
    arXiv 2503.14476, section 3.1. With `dual_clip` c > 1, where A < 0 the loss is at most -c A (arXiv 1912.09729,
    equation 5, with c = 3): a token that became far more likely does not outweigh all others. PPO has no such bound.
    A log ratio beyond ±20 counts as ±20.
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"policy loss 'ppo_clip': dual_clip is {dual_clip}; give more than 1, or null for none")
    ratio = clamped_exp(inputs.log_ratio)
    return _clipped(inputs, ratio, clip_low, clip_high, dual_clip)


@policy_losses.register("gspo")
def gspo(inputs: PolicyInputs, *, clip_low: NotNegative = 3e-4, clip_high: NotNegative = 4e-4) -> TokenLoss:
    """PPO's clipped objective with one ratio a row: s = (π(y) / π_old(y))^(1/|y|), the geometric mean of its tokens'.

    Source: arXiv 2507.18071, equations 5 and 7; the bounds are those of its section 5.1. Written a token at a time as
    in its section 4.3 (GSPO-token): the value of the ratio is s, its gradient that of the token alone, so that
    advantages may differ within a row; where they do not, value and gradient are those of equation 5. That equation
    takes the mean over rows: aggregate by `sequence_mean`. A mean log ratio beyond ±20 counts as ±20.
    """
    of_row = to_tokens(row_means(inputs.log_ratio.detach(), inputs.lengths), inputs.lengths)
    ratio = clamped_exp(of_row + inputs.log_probs - inputs.log_probs.detach())
    return _clipped(inputs, ratio, clip_low, clip_high)


@policy_losses.register("cispo")
def cispo(inputs: PolicyInputs, *, clip_low: NotNegative = 1.0, clip_high: NotNegative = 4.0) -> TokenLoss:
    """REINFORCE weighed by clipped ratios without gradient: -clip(r, 1 - clip_low, 1 + clip_high) A log π.

    Source: arXiv 2506.13585, equations 4 and 5. No token loses its gradient, however far it moved; the bounds only say
    how much it may weigh. As in the paper there is no lower bound (a ratio is never below 1 - 1); the paper gives no
    number for the upper one, ours lets a ratio grow to 5. The paper averages over all tokens of a group: `token_mean`.
    """
    ratio = clamped_exp(inputs.log_ratio.detach())
    clamped = ratio.clamp(1 - clip_low, 1 + clip_high)
    metrics = {"actor/clip_fraction": clamped != ratio, "actor/approx_kl": -inputs.log_ratio, "actor/ratio": ratio}
    return TokenLoss(-clamped * inputs.advantages.detach() * inputs.log_probs, sums(metrics))


@policy_losses.register("pg")
def pg(inputs: PolicyInputs) -> TokenLoss:
    """Policy gradient without ratio or clipping: -A log π.

    Source: REINFORCE, Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning" (Machine Learning, 1992). Unbiased for the first optimizer step on a rollout only: use one minibatch and
    one epoch.
    """
    metrics = {"actor/approx_kl": -inputs.log_ratio, "actor/ratio": clamped_exp(inputs.log_ratio)}
    return TokenLoss(-inputs.advantages.detach() * inputs.log_probs, sums(metrics))


def _clipped(inputs: PolicyInputs, ratio: Tensor, low: float, high: float, dual: float | None = None) -> TokenLoss:
    advantages = inputs.advantages.detach()
    free = -advantages * ratio
    loss = torch.maximum(free, -advantages * ratio.clamp(1 - low, 1 + high))
    if dual is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual * advantages), loss)
    metrics = {"actor/clip_fraction": loss != free, "actor/approx_kl": -inputs.log_ratio, "actor/ratio": ratio}
    return TokenLoss(loss, sums(metrics))
