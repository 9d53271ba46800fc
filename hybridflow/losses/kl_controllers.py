"""Controllers of the KL penalty's coefficient: state machines without clocks or ranks; `state` is plain JSON."""

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
    COEF_MIN = 1e-9
    COEF_MAX = 1e9

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
        self.coef = min(max(moved, min(self.COEF_MIN, self.coef)), max(self.COEF_MAX, self.coef))

    def state(self) -> dict[str, float]:
        return {"coef": self.coef}

    def restore(self, state: dict[str, float]) -> None:
        self.coef = float(state["coef"])
