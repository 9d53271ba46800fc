"""Progress of a run so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridflow.errors import ConfigError

OF_GIVEN_TEXT = ("nll", "dpo_loss")  # what supervised and preference losses report: a flow may learn from them too


@dataclass
class Learning:
    """Course of one role's updates.

    Attributes:
        updates: optimizer steps that were to be taken.
        skipped: those of them that changed nothing: a gradient was not finite, or no row was left to learn from.
        moved: whether any of them had a gradient that is not 0, nor only the rounding of one.
        nonfinite_in_a_row: the last ones, in steps that applied none, whose gradient was not finite.
    """

    updates: float = 0.0
    skipped: float = 0.0
    moved: bool = False
    nonfinite_in_a_row: float = 0.0


@dataclass
class Progress:
    """Progress of a run so far.

    Attributes:
        steps: that have been taken.
        seconds: that the loop has run, before interruptions too.
        accuracy: on held-out prompts or pairs, by the number of steps after which it was measured.
        draws: of prompts that the steps took, one each unless the algorithm drew more: the data cursor.
        mean_grade: of the answers to held-out prompts, by the number of steps; none of pairs.
        learning: by role.
        best_steps: the number of steps after which `trainer.keep_best` was best; None without any.
        best: what it was then.
        rows_fingerprint: of the task's rows, see `Task.fingerprint`.
        schedule: what `Schedule.state` gave after the last step.
        spent: wall seconds by what they went into, before interruptions too; see `trainer.goodput`.
    """

    steps: int = 0
    seconds: float = 0.0
    accuracy: dict[int, float] = field(default_factory=dict)
    draws: int = 0
    mean_grade: dict[int, float] = field(default_factory=dict)
    learning: dict[str, Learning] = field(default_factory=dict)
    best_steps: int | None = None
    best: float = math.nan
    rows_fingerprint: str = ""
    spent: dict[str, float] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)

    def compare_best(self, metric: str, measured: Mapping[str, float]) -> None:
        """Take this validation for the best so far if it is; of equal ones the first is.

        Raises ConfigError if no validation measures the metric.
        """
        if metric not in measured:
            raise ConfigError(
                f"trainer.keep_best: no validation of this run measures {metric!r}; there is {', '.join(measured)}"
            )
        value = measured[metric]
        better = value < self.best if "loss" in metric else value > self.best
        if self.steps and math.isfinite(value) and (self.best_steps is None or better):
            self.best_steps = self.steps
            self.best = value

    def ended(self, steps: int, stop_at_accuracy: float | None) -> bool:
        """Tell whether the run is done: all steps are taken, or the newest validation reached the accuracy."""
        reached = stop_at_accuracy is not None and self.accuracy.get(self.steps, -1.0) >= stop_at_accuracy
        return self.steps >= steps or reached

    def take_in(self, metrics: Mapping[str, float], learner: str, planned: int, *, by_advantages: bool = True) -> None:
        """Count the updates of a step.

        Args:
            learner: the role whose model the run leaves.
            planned: the updates of it that a step has.
            by_advantages: whether its policy loss learns from nothing else. Without any, what a KL to its own start
                has for a gradient is rounding.
        """
        for role in [name.removesuffix("/updates") for name in metrics if name.endswith("/updates")]:
            entry = self.learning.setdefault(role, Learning())
            tried = metrics[f"{role}/updates"]
            entry.updates += tried
            entry.skipped += tried * metrics.get(f"{role}/skipped_steps", 0.0)
            nonfinite = metrics.get(f"{role}/nonfinite_updates", 0.0)
            entry.nonfinite_in_a_row = entry.nonfinite_in_a_row + nonfinite if nonfinite == tried else 0.0
            idle = role == learner and by_advantages and without_advantages(metrics)
            idle = idle and not any(f"{role}/{name}" in metrics for name in OF_GIVEN_TEXT)
            entry.moved = entry.moved or (not idle and metrics.get(f"{role}/grad_norm", 0.0) != 0)
        if metrics.get("rollout/kept_rows") == 0 and f"{learner}/updates" not in metrics:
            entry = self.learning.setdefault(learner, Learning())
            entry.updates += planned
            entry.skipped += planned

    def fault(self, learner: str) -> str | None:
        """Explain why the run cannot have taught its model what it should; None if nothing says so.

        A run that made no update has none: it had no steps to take, or was good enough from the start. Of other roles
        than the learner a loss without gradient may be right: nothing may have cost anything.
        """
        for role, learning in self.learning.items():
            if learning.skipped * 2 > learning.updates:
                return (
                    f"{learning.skipped:.0f} of {learning.updates:.0f} updates of the {role} changed nothing, as a "
                    f"gradient was not finite or no row was left to learn from; {role}/skipped_steps and "
                    "rollout/kept_rows in metrics.jsonl say in which steps"
                )
        learning = self.learning.get(learner, Learning())
        if learning.updates and not learning.moved:
            return (
                f"the loss of the {learner} had no gradient in any of {learning.updates:.0f} updates "
                f"({learner}/grad_norm or all advantages are 0): it has learned nothing; reward/std says whether all "
                "rewards are equal"
            )
        return None


def without_advantages(metrics: Mapping[str, float]) -> bool:
    """Tell whether a step estimated advantages, and all of them are 0."""
    return metrics.get("critic/advantages_max") == 0 == metrics.get("critic/advantages_min")
