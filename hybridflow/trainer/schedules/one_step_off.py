"""One step off: the next step's prompts are generated while this one's are learned from."""

from __future__ import annotations

from hybridflow.algorithms.schedule import schedules
from hybridflow.trainer.schedules.whole_steps import WholeSteps


@schedules.register("one_step_off")
class OneStepOffSchedule(WholeSteps):
    """Learns from rows that were sampled with the weights of one step before.

    Only the first step's have its own.
    """

    max_staleness = 1
