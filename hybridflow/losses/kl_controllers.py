"""Coefficients that move during a run: state machines without clocks or ranks; `state` is plain JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Protocol

from hybridflow.bounds import Bounds, Positive
from hybridflow.registry import Registry


class KLController(Protocol):
    """Controller of the KL penalty's coefficient."""

    @property
    def coef(self) -> float:
        """Coefficient of the coming step."""

    def update(self, kl: float) -> None:
        """Take in the mean KL to the reference that a step measured."""

    def state(self) -> dict[str, float]:
        """Return what a resumed run needs, as plain JSON."""

    def restore(self, state: dict[str, float]) -> None:
        """Take in what `state` gave."""


kl_controllers: Registry[Callable[..., KLController]] = Registry("KL controller", of=Callable)  # (coef, **options)
Gain = Annotated[float, Bounds(more_than=0, less_than=5)]  # of 5, an error of -0.2 would take the coefficient to 0


@kl_controllers.register("fixed")
class FixedKL:
    """Constant coefficient, whatever is measured."""

    def __init__(self, coef: float) -> None:
        self.coef = coef

    def update(self, kl: float) -> None:
        """Ignore the measured KL."""

    def state(self) -> dict[str, float]:
        """Return nothing: the coefficient is the configuration's."""
        return {}

    def restore(self, state: dict[str, float]) -> None:
        """Ignore the state, which is empty."""


@kl_controllers.register("adaptive")
class AdaptiveKL:
    """Steers the KL towards a target: β ← β (1 + gain · clip(KL / target - 1, -0.2, 0.2)).

    Source: arXiv 1909.08593, section 2.2, with its gain of 0.1. A KL of exactly the target leaves β as it is. That it
    is clamped to [1e-9, 1e9] is ours: a target out of reach for a whole run takes it to no infinity, nor to a 0 from
    which no factor leads back.

    Raises ValueError if the coefficient, the target or the gain is not above 0, or a measured KL is not finite.
    """

    BOUND = 0.2
    LEAST = 1e-9
    MOST = 1e9

    def __init__(self, coef: float, target: Positive, gain: Gain = 0.1) -> None:
        for name, value in (("coef", coef), ("target", target), ("gain", gain)):
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"adaptive KL: {name} is {value}; give more than 0")
        self.coef = coef
        self.target = target
        self.gain = gain

    def update(self, kl: float) -> None:
        if not math.isfinite(kl):
            raise ValueError(f"adaptive KL: the measured KL is {kl}; look for log-probs that are not finite")
        error = min(max(kl / self.target - 1, -self.BOUND), self.BOUND)
        moved = self.coef * (1 + self.gain * error)
        self.coef = min(max(moved, min(self.LEAST, self.coef)), max(self.MOST, self.coef))

    def state(self) -> dict[str, float]:
        return {"coef": self.coef}

    def restore(self, state: dict[str, float]) -> None:
        self.coef = state["coef"]


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
