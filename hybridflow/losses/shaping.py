"""Reward shaping: what a row's reward becomes before it is compared with others.

A shaping is a function `(rewards [R], lengths [R], limit, **options) -> [R]` in the registry `reward_shapings`, with
`limit` the most tokens that a response may have.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from hybridflow.registry import Registry

RewardShaping = Callable[..., Tensor]
reward_shapings: Registry[RewardShaping] = Registry("reward shaping")


@reward_shapings.register("overlong")
def overlong(rewards: Tensor, lengths: Tensor, limit: int, *, buffer: float = 0.2, penalty: float = 1.0) -> Tensor:
    """Rewards less a penalty that grows over the last tokens before the limit: 0 up to L - c, then to -1 at L.

    Source: DAPO's soft overlong punishment, arXiv 2503.14476, equation 13: (L - c - |y|) / c in between, -1 beyond L.

    Args:
        rewards: [R].
        lengths: [R] tokens of each response.
        limit: L in tokens.
        buffer: c / L; the paper has 4096 of 20480 tokens.
        penalty: what the punishment is multiplied by; the paper has 1, with rewards of -1 and 1.

    Raises ValueError if the buffer is no share of the limit.
    """
    if not 0 < buffer <= 1:
        raise ValueError(f"reward shaping 'overlong': buffer is {buffer}; give more than 0 and at most 1")
    cache = buffer * limit
    return rewards - penalty * ((lengths - (limit - cache)) / cache).clamp(0, 1)
