"""How a run has gone so far."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """How a run has gone so far.

    Attributes:
        steps: that have been taken.
        seconds: that the loop has run, before interruptions too.
        accuracy: on held-out prompts or pairs, by the number of steps after which it was measured.
        draws: of prompts that the steps took, one each unless the algorithm drew more: the data cursor.
    """

    steps: int = 0
    seconds: float = 0.0
    accuracy: dict[int, float] = field(default_factory=dict)
    draws: int = 0

    def ended(self, steps: int, stop_at_accuracy: float | None) -> bool:
        """Whether there is nothing left to do: all steps are taken, or the last one reached the accuracy."""
        reached = self.steps > 0 and self.accuracy.get(self.steps, 0.0) >= (stop_at_accuracy or float("inf"))
        return self.steps >= steps or reached
