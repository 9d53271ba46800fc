"""A plugin: the schedule of `one_step_off`'s driver with a staleness of 0, which is to be sync."""

from __future__ import annotations

from hybridflow.algorithms.schedule import schedules
from hybridflow.trainer.schedules.whole_steps import WholeSteps

NAME = "bound_zero"


@schedules.register(NAME)
class BoundZero(WholeSteps):
    """Begins no step before the one before it has ended."""

    max_staleness = 0
