"""Limit on the mean cost of responses: its multiplier λ, and the advantages that it combines. It imports no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Lagrange:
    """Multiplier λ of a limit on the mean cost: ln λ ← ln λ + lr · λ · (mean cost - limit).

    Source: Safe-RLHF, arXiv 2310.12773, equation 31: gradient ascent in ln λ, which is the state, so λ stays above 0.
    It grows while the cost is above the limit and shrinks below it. But for the limit the defaults are ours.

    Args:
        multiplier: λ to begin with; above 0.
        limit: what the mean cost of a response may be; 0 in the paper's setting, where harmless answers cost less.
        lr: the size of a step; at 0, λ stays what it is.
        max: upper bound of λ, so that a limit out of reach does not drown the reward for good.
        min: lower bound of λ, above 0: a step is in proportion to λ, so from nearly nothing it would not grow again.
    """

    def __init__(
        self,
        multiplier: float = 1.0,
        limit: float = 0.0,
        lr: float = 0.1,
        max: float = 100.0,
        min: float = 1e-3,
    ) -> None:
        bounded = {"multiplier": multiplier, "max": max, "min": min}
        for name, value in bounded.items():
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"Lagrange multiplier: {name} is {value}; give more than 0")
        if not (lr >= 0 and math.isfinite(lr)):
            raise ValueError(f"Lagrange multiplier: lr is {lr}; give 0 or more")
        if not math.isfinite(limit):
            raise ValueError(f"Lagrange multiplier: limit is {limit}; give a number")
        if not min <= multiplier <= max:
            raise ValueError(
                f"Lagrange multiplier: multiplier is {multiplier}, which is not between min = {min} and "
                f"max = {max}, its bounds; change one of them"
            )
        self.limit = limit
        self.lr = lr
        self.max = max
        self.min = min
        self._log = math.log(multiplier)

    @property
    def multiplier(self) -> float:
        """λ of the coming step."""
        return math.exp(self._log)

    def update(self, cost: float) -> None:
        """Take in the mean cost of a step's responses. Raises ValueError if it is not finite."""
        if not math.isfinite(cost):
            raise ValueError(f"Lagrange multiplier: the mean cost is {cost}; look at what the cost role gave")
        self._log = self._clamped(self._log + self.lr * self.multiplier * (cost - self.limit))

    def state(self) -> dict[str, float]:
        """Return the logarithm of λ."""
        return {"log_multiplier": self._log}

    def restore(self, state: dict[str, float]) -> None:
        """Take in what `state` gave; or, of a checkpoint from before its logarithm was kept, the multiplier."""
        if "log_multiplier" in state:
            self._log = self._clamped(state["log_multiplier"])
        else:
            self._log = self._clamped(math.log(max(state["multiplier"], self.min)))

    def _clamped(self, log: float) -> float:
        return min(max(log, math.log(self.min)), math.log(self.max))


def constrained_advantages(rewards: Tensor, costs: Tensor, multiplier: float) -> Tensor:
    """Combine reward and cost as (reward - λ cost) / (1 + λ), so that the size of a step does not grow with λ.

    Source: Safe-RLHF, arXiv 2310.12773, equation 30, where both are advantages. It is linear, and so is GAE: the
    advantage of rewards and values that were put together is that of advantages that are.

    Args:
        rewards, costs: of one shape: scores [R], or values or advantages [T].
        multiplier: λ, at least 0; see `Lagrange`.

    Raises ValueError if the shapes disagree.
    """
    if rewards.shape != costs.shape:
        raise ValueError(f"{len(rewards)} advantages of reward and {len(costs)} of cost; give as many of each")
    return (rewards - multiplier * costs) / (1 + multiplier)
