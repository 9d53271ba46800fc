"""Samplers: which finished prompts a step learns from. They rank; the bound on staleness is not theirs to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hybridflow.registry import Registry
from hybridflow.scheduling.rollout_state import Rollout
from hybridflow.scheduling.schedule_policy import SchedulePolicy


class Sampler(ABC):
    """Ranks finished prompts.

    Whatever it prefers, all prompts are learned from exactly once, none beyond the bound: where the rest of a step is
    owed to older prompts (`staleness_bound`), these are taken.
    """

    def window(self, policy: SchedulePolicy) -> int:
        """Return how many of the oldest prompts in flight it chooses among; what is taken at once, at least."""
        return policy.max_in_flight

    @abstractmethod
    def rank(self, rollout: Rollout) -> tuple[int, ...]:
        """Return a rollout's rank; the lowest is taken first."""


samplers: Registry[type[Sampler]] = Registry("sampler", of=Sampler)


@samplers.register("fifo")
class Fifo(Sampler):
    """Takes prompts in the order of the run, waiting for the oldest: a step learns from those that sync's would."""

    def window(self, policy: SchedulePolicy) -> int:
        return 0

    def rank(self, rollout: Rollout) -> tuple[int, ...]:
        return (rollout.prompt,)


@samplers.register("windowed_fifo")
class WindowedFifo(Sampler):
    """Takes what finished first among the oldest `window` · P prompts in flight."""

    def window(self, policy: SchedulePolicy) -> int:
        return policy.window * policy.prompts_per_step

    def rank(self, rollout: Rollout) -> tuple[int, ...]:
        assert rollout.finished is not None
        return (rollout.finished,)


@samplers.register("oldest_weights")
class OldestWeights(Sampler):
    """Takes what the oldest weights sampled, and of that what finished first."""

    def rank(self, rollout: Rollout) -> tuple[int, ...]:
        assert rollout.finished is not None
        return rollout.version, rollout.finished
