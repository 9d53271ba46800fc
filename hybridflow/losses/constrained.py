"""Reward and cost in one."""

from __future__ import annotations

from torch import Tensor


def constrained_advantages(rewards: Tensor, costs: Tensor, multiplier: float) -> Tensor:
    """Combine reward and cost as (reward - λ cost) / (1 + λ), so that the size of a step does not grow with λ.

    Source: Safe-RLHF, arXiv 2310.12773, equation 30, where both are advantages. It is linear, and so is GAE: the
    advantage of rewards and values that were put together is that of advantages that are.

    Args:
        rewards, costs: of one shape: scores [R], or values or advantages [T].
        multiplier: λ, at least 0; see `hybridflow.losses.kl_controllers.Lagrange`.

    Raises ValueError if the shapes disagree.
    """
    if rewards.shape != costs.shape:
        raise ValueError(f"{len(rewards)} advantages of reward and {len(costs)} of cost; give as many of each")
    return (rewards - multiplier * costs) / (1 + multiplier)
