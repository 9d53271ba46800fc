"""Policy losses, a token at a time. All have the signature of `ppo_clip`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hybridflow.losses.token_loss import TokenLoss, sums
from hybridflow.registry import Registry

# A ratio that overflows makes the gradient of the branch not taken 0 · inf = NaN.
LARGEST_LOG_RATIO = 20.0

PolicyLoss = Callable[[Tensor, Tensor, Tensor, float, float], TokenLoss]
policy_losses: Registry[PolicyLoss] = Registry("policy loss")


@policy_losses.register("ppo_clip")
def ppo_clip(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> TokenLoss:
    """PPO's clipped objective, negated: -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), r = policy / old policy.

    Source: arXiv 1707.06347, equation 7; a bound of its own on each side as in arXiv 2503.14476, section 3.1.

    Args:
        log_probs: [T] of the sampled tokens under the policy; gradients flow here only.
        old_log_probs: [T] under the policy that the step began with.
        advantages: [T].
        clip_low, clip_high: how far below and above 1 the ratio may still gain. A log ratio beyond ±20 counts as ±20.

    Metrics: `actor/clip_fraction` (tokens where clipping changed the objective), `actor/approx_kl` (log old - log new:
    k1 for KL(old ‖ new)), `actor/ratio` (policy / old policy).
    """
    log_ratio = log_probs - old_log_probs.detach()
    ratio = log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()
    advantages = advantages.detach()
    free = -advantages * ratio
    held = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    metrics = {"actor/clip_fraction": held > free, "actor/approx_kl": -log_ratio, "actor/ratio": ratio}
    return TokenLoss(torch.maximum(free, held), sums(metrics))
