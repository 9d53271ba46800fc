"""The critic's loss, a token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridflow.losses.token_loss import TokenLoss, sums


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> TokenLoss:
    """Value loss ½ max((V - R)², (clip(V, V_old - clip, V_old + clip) - R)²): no reward for moving further than `clip`.

    Source: the value loss of OpenAI Baselines' PPO2 (2017), described in arXiv 2005.12729, section 3.

    Args:
        values: [T], with gradients.
        old_values: [T], what the critic said before this step's updates.
        returns: [T], the targets.
        clip: `algorithm.value_loss.clip`; its default of 0.2 is that of the code released with arXiv 1909.08593.

    Metrics: `critic/value_loss`, `critic/value_clip_fraction` (tokens where clipping changed the loss),
    `critic/value_mean`.
    """
    old_values = old_values.detach()
    returns = returns.detach()
    near = torch.clamp(values, old_values - clip, old_values + clip)
    unclipped = (values - returns).square()
    clipped = (near - returns).square()
    loss = 0.5 * torch.maximum(unclipped, clipped)
    changed = clipped > unclipped
    metrics = {"critic/value_loss": loss, "critic/value_clip_fraction": changed, "critic/value_mean": values}
    return TokenLoss(loss, sums(metrics))
